"""Whatever a step raises, on every pool: a failed attempt, recorded at once, and the worker goes on.

The leases are longer than any of these tests waits: an attempt that were left to its lease would not end in time.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multiagents.testing import WorkerProcess, wait_until
from multiagents.testing.plugin import WorkerStarter
from tests.support import ROOT
from tests.support.apps import thrown

POOLS = ["prefork", "threads", "gevent", "solo"]
APP = "tests.support.apps.thrown"
#: Steps at a time. Under gevent a worker that has as many in hand asks Redis for more once a second only.
CONCURRENCY = {"prefork": 2, "threads": 2, "gevent": 20, "solo": 1}


class Scene:
    """A worker, and an orchestrator of the same app in this process."""

    def __init__(self, url: str, worker: WorkerProcess) -> None:
        self.worker = worker
        self._log_start = len(worker.log)
        self.app = thrown.Celery("client", broker=url, set_as_current=False)
        self.orchestrator = thrown.init_app(self.app, thrown.SETTINGS)

    @property
    def log(self) -> str:
        """What the worker has written since this test began."""
        return self.worker.log[self._log_start :]

    def start(self, workflow: Any, **input: Any) -> Any:
        return self.orchestrator.start(workflow, input)

    def end(self, run: Any, timeout: float = 30.0) -> Any:
        self.orchestrator.store.wait_for_end(run.transaction_id, timeout)
        return run.describe()


@contextlib.contextmanager
def shared_worker(new_redis_url: Callable[[], str], folder: Path, pool: str) -> Iterator[tuple[str, WorkerProcess]]:
    """A database, and a worker for several tests, which may not end it."""
    url = new_redis_url()
    env = {"PYTHONPATH": str(ROOT), "CELERY_BROKER_URL": url, "MULTIAGENTS_REDIS_URL": url}
    with WorkerProcess(
        APP, folder / "worker.log", pool=pool, concurrency=CONCURRENCY[pool], cwd=ROOT, env=env
    ) as worker:
        yield url, worker


@contextlib.contextmanager
def scene_on(url: str, worker: WorkerProcess) -> Iterator[Scene]:
    scene = Scene(url, worker)
    yield scene
    scene.app.close()
    print(f"--- {worker.node}\n{scene.log}")  # pytest shows it of a test that failed


@pytest.fixture(scope="module", params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def shared(
    pool: str, new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, WorkerProcess]]:
    with shared_worker(new_redis_url, tmp_path_factory.mktemp(f"thrown-{pool}"), pool) as made:
        yield made


@pytest.fixture
def scene(shared: tuple[str, WorkerProcess]) -> Iterator[Scene]:
    with scene_on(*shared) as made:
        yield made


def test_whatever_a_step_raises_has_failed_at_once_and_the_worker_goes_on(scene: Scene) -> None:
    runs = {
        (what, flow.name): scene.start(flow, what=what)
        for what in thrown.RAISED
        for flow in (thrown.sync_flow, thrown.async_flow)
    }

    ended = {of: scene.end(run, 60) for of, run in runs.items()}
    after = [scene.end(scene.start(flow, what=None)) for flow in (thrown.sync_flow, thrown.async_flow)]

    steps = {of: (state.steps["throw"].status, state.steps["throw"].attempts) for of, state in ended.items()}
    assert steps == dict.fromkeys(runs, ("failed", 2))
    assert [state.status for state in after] == ["completed"] * 2
    assert scene.worker.is_running
    assert not [line for line in ("CRITICAL", "exited prematurely") if line in scene.log]


def test_a_coroutine_that_stops_the_loop_it_runs_in_stops_no_other(scene: Scene) -> None:
    states = [scene.end(scene.start(thrown.async_flow, what=what)) for what in ("loop", None, "loop", None)]

    assert [state.status for state in states] == ["completed"] * 4


def test_user_code_between_steps_may_raise_anything_and_the_step_before_it_is_not_done_again(scene: Scene) -> None:
    runs = {what: scene.start(thrown.deciding, what=what) for what in thrown.RAISED}
    states = {what: scene.end(run) for what, run in runs.items()}

    assert {state.steps["first"].attempts for state in states.values()} == {1}
    assert {state.status for state in states.values()} == {"failed"}
    assert scene.worker.is_running


def test_no_detail_of_a_heartbeat_costs_the_lease_or_the_step(redis_url: str, start_worker: WorkerStarter) -> None:
    env = {"PYTHONPATH": str(ROOT), "CELERY_BROKER_URL": redis_url, "MULTIAGENTS_REDIS_URL": redis_url}
    worker = start_worker(APP, concurrency=4, cwd=ROOT, env={**env, "MULTIAGENTS_LEASE": "1"})
    scene = Scene(redis_url, worker)
    runs = {what: scene.start(thrown.beating, what=what) for what in thrown.BEATS}

    states = {what: scene.end(run) for what, run in runs.items()}

    assert {what: (state.status, state.steps["beat"].attempts) for what, state in states.items()} == dict.fromkeys(
        runs, ("completed", 1)
    )
    shown = {what: state.steps["beat"].detail for what, state in states.items()}
    assert shown["decimal"] == "1.5"
    assert shown["datetime"].keys() == {"at"}
    assert "50,000,002 bytes" in shown["huge"]
    assert all(detail is not None for detail in shown.values())
    scene.app.close()


def test_a_worker_that_is_shut_down_cold_gives_up_its_steps_at_once_and_ends(
    pool: str, redis_url: str, start_worker: WorkerStarter
) -> None:
    env = {"PYTHONPATH": str(ROOT), "CELERY_BROKER_URL": redis_url, "MULTIAGENTS_REDIS_URL": redis_url}
    first = start_worker(APP, pool=pool, concurrency=CONCURRENCY[pool], cwd=ROOT, env=env)
    scene = Scene(redis_url, first)
    run = scene.start(thrown.lingering)
    wait_until(lambda: run.describe().steps["linger"].status == "running", 20, "the step to run")

    first.quit(20)

    start_worker(APP, pool=pool, concurrency=CONCURRENCY[pool], cwd=ROOT, env=env)
    state = scene.end(run, 20)
    [lost] = [event for event in run.history() if event.type == "error"]
    assert (state.status, state.steps["linger"].result) == ("completed", {"attempt": 2})
    assert (lost.kind, lost.error.type) == ("lost", "WorkerLost")
    assert "shut down" in lost.error.message or "told to stop" in lost.error.message
    scene.app.close()


@pytest.fixture(scope="module")
def shared_prefork(
    new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, WorkerProcess]]:
    with shared_worker(new_redis_url, tmp_path_factory.mktemp("thrown-dying"), "prefork") as made:
        yield made


@pytest.fixture
def prefork(shared_prefork: tuple[str, WorkerProcess]) -> Iterator[Scene]:
    """One whose pool processes may die."""
    with scene_on(*shared_prefork) as made:
        yield made


def test_S1a_how_a_process_died_is_in_the_error(prefork: Scene) -> None:
    says = {
        "SIGKILL": r"signal 9 \(SIGKILL\)",
        "SIGTERM": r"signal 15 \(SIGTERM\)",
        "abort": r"signal 6 \(SIGABRT\)",
        "exit 3": "exit code 3",
        "exit 0": "exit code 0",
    }
    # Side by side: Celery looks for dead processes every five seconds.
    runs = {how: prefork.start(thrown.dying, how=how) for how in says}

    states = {how: prefork.end(run, 60) for how, run in runs.items()}

    assert {how: state.error.type for how, state in states.items()} == dict.fromkeys(says, "WorkerLost")
    for how, state in states.items():
        assert re.search(f"its process on worker .* {says[how]}", state.error.message), how
        assert state.steps["die"].attempts == thrown.SETTINGS["max_lost"], how
        assert state.steps["die"].error.message == state.error.message, how


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of 100 MB, where whoever runs the tests may make one."""
    groups = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    of_memory = Path(f"/sys/fs/cgroup/memory{groups['memory']}") if "memory" in groups else None
    mine = of_memory or Path(f"/sys/fs/cgroup{groups.get('', '/')}")
    group = mine / f"multiagents-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if of_memory else "memory.max")).write_text("100000000")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"a worker short of memory needs a control group of its own, which may not be made here: {error}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text(), 20, "the group to be empty")
    group.rmdir()


def test_S1a_that_the_kernel_has_killed_it_for_want_of_memory_is_in_the_error(
    small_group: Path, redis_url: str, start_worker: WorkerStarter
) -> None:
    env = {"PYTHONPATH": str(ROOT), "CELERY_BROKER_URL": redis_url, "MULTIAGENTS_REDIS_URL": redis_url}
    worker = start_worker(APP, concurrency=1, cwd=ROOT, env=env | {"THROWN_GROUP": str(small_group)})
    scene = Scene(redis_url, worker)

    run = scene.start(thrown.dying, how="memory")
    state = scene.end(run)
    after = scene.end(scene.start(thrown.sync_flow, what=None))
    worker.quit(20)

    assert re.search(r"signal 9 \(SIGKILL\), .* for want of memory \(OOM\)", state.error.message)
    assert [event.error.message for event in run.history() if event.type == "error"] == [
        re.sub(r"do/\d", f"do/{n}", state.error.message) for n in (1, 2, 3)
    ]
    assert after.status == "completed"
    scene.app.close()


def test_memory_that_python_cannot_get_is_an_error_like_any_other(prefork: Scene) -> None:
    state = prefork.end(prefork.start(thrown.dying, how="ulimit"))

    assert (state.error.type, state.steps["die"].attempts) == ("MemoryError", 1)


def test_a_process_that_is_replaced_for_its_size_costs_no_attempt(redis_url: str, start_worker: WorkerStarter) -> None:
    env = {"PYTHONPATH": str(ROOT), "CELERY_BROKER_URL": redis_url, "MULTIAGENTS_REDIS_URL": redis_url}
    worker = start_worker(APP, concurrency=1, cwd=ROOT, env=env, extra=["--max-memory-per-child", "150000"])
    scene = Scene(redis_url, worker)

    run = scene.start(thrown.growing)
    state = scene.end(run)

    assert state.status == "completed"
    assert [step.attempts for step in state.steps.values()] == [1, 1]
    assert state.steps["first"].result["first"] != state.steps["second"].result["second"]
    assert not [event for event in run.history() if event.type == "error"]
    scene.app.close()


def test_S1a_a_process_that_dies_in_a_local_step_is_seen_at_once(prefork: Scene) -> None:
    state = prefork.end(prefork.start(thrown.held), 20)

    assert (state.status, state.steps["first"].attempts) == ("completed", 1)
    assert state.steps["then"].result == {"attempt": 2}


def test_the_hard_limit_of_a_local_step_is_its_own(prefork: Scene) -> None:
    # The first step has 1 s, and would be killed at 11 s, or some seconds later.
    state = prefork.end(prefork.start(thrown.long_held, seconds=15), 40)

    assert state.steps["then"].result == {"attempt": 1}


def test_a_terminal_error_is_an_answer_one_line_at_warning(prefork: Scene) -> None:
    run = prefork.start(thrown.declining)
    prefork.end(run)

    line = prefork.worker.wait_for_log(rf".*{run.transaction_id}/pay/do/1 ended with an answer.*").group()
    assert "WARNING" in line
    assert "TerminalError: the card was declined" in line
    assert "Traceback" not in prefork.log
    assert "ERROR" not in prefork.log


def test_a_step_that_waits_for_a_run_is_told_of_add_child(prefork: Scene) -> None:
    state = prefork.end(prefork.start(thrown.asking))

    assert "add_child" in state.error.message


def test_the_time_limits_that_celery_was_told_hold_for_steps(redis_url: str, start_worker: WorkerStarter) -> None:
    env = {"PYTHONPATH": str(ROOT), "CELERY_BROKER_URL": redis_url, "MULTIAGENTS_REDIS_URL": redis_url}
    worker = start_worker(APP, concurrency=2, cwd=ROOT, env=env, extra=["--time-limit", "2"])
    scene = Scene(redis_url, worker)

    states = [scene.end(scene.start(flow), 25) for flow in (thrown.dawdling, thrown.lazing)]

    assert [state.error.type.rpartition(".")[2] for state in states] == ["StepTimeoutError"] * 2
    assert ["limit of 1 s" in states[0].error.message, "limit of 2 s" in states[1].error.message] == [True, True]
    assert worker.is_running
    assert "exited prematurely" not in worker.log
    scene.app.close()
