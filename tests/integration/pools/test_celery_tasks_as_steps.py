"""A Celery task that was there already, as it is: what it asks of Celery, a step answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import VERSION

from multiagents.testing import WorkerProcess, wait_until
from multiagents.testing.plugin import WorkerStarter
from tests.support import ROOT
from tests.support.apps import borrowed, heard

#: How its run ends, after how many attempts, with what.
ENDS: dict[str, tuple[str, int, Any]] = {
    "retries": ("completed", 4, {"retries": 3}),
    "gives_up": ("failed", 2, "ValueError"),
    "has_a_way_out": ("completed", 2, {"way": "out"}),
    "does_not_throw": ("completed", 2, {"retries": 1}),
    "auto": ("failed", 3, "ValueError"),
    "raises": ("failed", 2, "KeyError"),
    "ignores": ("completed", 1, None),
    "rejects": ("failed", 1, "celery.exceptions.Reject"),
    "comes_again": ("completed", 1, {"times": 3}),
    "replaces": ("failed", 1, "multiagents.exceptions.TerminalError"),
    "soft": ("completed", 1, {"partial": True}),
    "hard": ("failed", 2, "multiagents.worker_sdk.execution.timeouts.StepTimeoutError"),
}


class Scene:
    def __init__(self, url: str, settings: dict[str, Any] = borrowed.SETTINGS) -> None:
        self.app = borrowed.Celery("client", broker=url, set_as_current=False)
        self.orchestrator = borrowed.init_app(self.app, settings)

    def end(self, run: Any) -> Any:
        self.orchestrator.store.wait_for_end(run.transaction_id, 40)
        return run.describe()


@pytest.fixture(scope="module", params=["prefork", "threads", "gevent", "solo"])
def pool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def shop(pool: str, new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A worker that the tests of a pool share."""
    url, folder = new_redis_url(), tmp_path_factory.mktemp(f"borrowed-{pool}")
    env = {"PYTHONPATH": str(ROOT), "CELERY_BROKER_URL": url, "MULTIAGENTS_REDIS_URL": url}
    env["BORROWED_TIMES"] = str(folder / "times")
    concurrency = 1 if pool == "solo" else 4
    with WorkerProcess(
        borrowed.__name__, folder / "worker.log", pool=pool, concurrency=concurrency, cwd=ROOT, env=env
    ) as worker:
        scene = Scene(url)
        yield scene
        scene.app.close()
        print(f"--- {worker.node}\n{worker.log}")  # pytest shows it of a test that failed


def test_what_a_celery_task_asks_of_celery_its_step_answers(shop: Scene, pool: str) -> None:
    limits = ("soft", "hard") if pool == "threads" else ()  # nothing stops a thread
    runs = {name: shop.orchestrator.start(borrowed.FLOWS[name], {}) for name in ENDS if name not in limits}

    states = {name: shop.end(run) for name, run in runs.items()}

    ended = {
        name: (s.status, s.steps["it"].attempts, s.error.type if s.error else s.steps["it"].result)
        for name, s in states.items()
    }
    assert ended == {name: ENDS[name] for name in runs}
    assert "add_child" in states["replaces"].error.message


def test_a_celery_task_finds_a_request_like_any_other(shop: Scene) -> None:
    run = shop.orchestrator.start(borrowed.FLOWS["looks"], {})

    seen = shop.end(run).steps["it"]

    assert seen.result == {
        "id": f"{run.transaction_id}/it/do/1",
        "hostname": seen.worker,
        "queue": "celery",
        "root": run.transaction_id,
        "progress": {"done": 1},
        "called_directly": False,
    }


def test_who_listens_to_a_celery_task_is_told_of_a_step_what_celery_tells_of_a_message(
    pool: str, redis_url: str, start_worker: WorkerStarter, tmp_path: Path
) -> None:
    env = {"PYTHONPATH": str(ROOT), "CELERY_BROKER_URL": redis_url, "HEARD": str(tmp_path / "heard")}
    start_worker("tests.support.apps.heard", pool=pool, concurrency=1, cwd=ROOT, env=env)
    shop, order = Scene(redis_url, heard.SETTINGS), {"amount": 5, "currency": "CHF"}
    of_messages = {}
    for name, executions in heard.EXECUTIONS.items():
        task = f"heard.{name}"
        # The last that is told; a rejected message is told of by the worker's main process.
        last = "task_failure" if name == "rejects" and VERSION >= (5, 7) else "task_postrun"
        shop.app.send_task(task, kwargs=order, task_id=heard.message_id(task))
        wait_until(_is_told(tmp_path / "heard", task, last, executions), 20, f"{task} to end")
        of_messages[name] = _told(tmp_path / "heard", task)

    for name in heard.EXECUTIONS:
        shop.end(shop.orchestrator.start(heard.FLOWS[name], order))
        wait_until(_is_told(tmp_path / "heard", f"heard.{name}.step", "task_postrun", heard.EXECUTIONS[name]), 20, name)

    of_steps = {name: _told(tmp_path / "heard", f"heard.{name}")[len(told) :] for name, told in of_messages.items()}
    assert of_steps == of_messages
    # Of the message that brings a step nobody is told that it has failed, too, or is tried again.
    brought = [what for name in heard.EXECUTIONS for what, _ in _told(tmp_path / "heard", f"heard.{name}.step")]
    assert set(brought) == {"task_prerun", "task_success", "task_postrun"}
    shop.app.close()


def _told(heard_in: Path, task: str) -> list[Any]:
    lines = heard_in.read_text().splitlines() if heard_in.exists() else []
    return [[what, words] for name, what, words in map(json.loads, lines) if name == task]


def _is_told(heard_in: Path, task: str, what: str, times: int) -> Callable[[], bool]:
    return lambda: [told for told, _ in _told(heard_in, task)].count(what) == times
