"""Faults of processes: killed, paused and woken, with the wrong time, two on one backlog."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from multiagents.events import ResultEvent
from multiagents.testing import wait_until
from multiagents.testing.plugin import WorkerStarter
from tests.support.apps.fault_sagas import DIE, LINE, ONE, SAGA
from tests.support.fault_scene import LEASE, RECOVERY, Scene


@pytest.fixture(params=["inline", pytest.param("queued", marks=pytest.mark.full)])
def scene(tmp_path: Path, redis_url: str, start_worker: WorkerStarter, request: pytest.FixtureRequest) -> Scene:
    return Scene(tmp_path, redis_url, start_worker, orchestration=request.param)


def test_G2_S1a_a_killed_pool_child_costs_one_attempt_and_no_run(scene: Scene) -> None:
    scene.worker()
    doing = scene.start(SAGA, {"do:charge": {"die": "child", "first": 1}})
    undoing = scene.start(LINE, {"do:ship": {"fail": True}, "undo:charge": {"die": "child", "first": 1}})
    others = [scene.start(SAGA) for _ in range(20)]

    ended = scene.ended([doing, undoing, *others])

    assert ended == {doing.transaction_id: "completed", undoing.transaction_id: "compensated"} | {
        run.transaction_id: "completed" for run in others
    }
    charge = scene.store.load(doing.transaction_id).state.step("charge")
    assert (charge.do.attempt, charge.do.losses, charge.do.failures) == (2, 1, 0)
    refund = scene.store.load(undoing.transaction_id).state.step("charge")
    assert (refund.undo.attempt, refund.undo.losses, refund.undo.failures) == (2, 1, 0)
    scene.audit([doing, undoing, *others], "completed", "compensated")


def test_G5_a_killed_worker_is_replaced_by_the_others_within_a_lease_and_five_seconds(scene: Scene) -> None:
    killed = scene.worker()
    busy = [scene.start(SAGA, {"do:charge": {"gate": "never", "first": 1}}) for _ in range(2)]
    for run in busy:
        scene.wait_for(run=run.transaction_id, step="charge", event="began")
    scene.worker()
    going_back = [scene.start(LINE, {"do:ship": {"fail": True}}) for _ in range(10)]

    killed.kill()
    began = time.monotonic()
    scene.ended([*busy, *going_back])

    assert time.monotonic() - began < LEASE + RECOVERY
    scene.audit([*busy, *going_back], "completed", "compensated")


def test_G5_the_last_prefetched_messages_of_a_killed_worker_are_sent_again(scene: Scene) -> None:
    killed = scene.worker(concurrency=1)
    runs = [scene.start(ONE, {"do:only": {"gate": "never", "first": 1}}) for _ in range(4)]
    wait_until(lambda: scene.waiting() == 0, 10, "an empty queue: all messages are in the worker")
    scene.wait_for(event="began")
    scene.worker(concurrency=1)

    killed.kill()
    began = time.monotonic()
    scene.ledger.open("never")  # What was not claimed is sent again under the same number, so it comes by here, too.
    scene.ended(runs)

    attempts = [scene.store.load(run.transaction_id).state.step("only").do.attempt for run in runs]
    assert sorted(attempts) == [1, 1, 1, 2], "three were in the worker's hands, one was running"

    assert time.monotonic() - began < LEASE + RECOVERY
    scene.audit(runs, "completed")


def test_G5_when_every_worker_was_killed_the_next_one_takes_up_all_runs(scene: Scene) -> None:
    workers = [scene.worker(), scene.worker()]
    runs = [scene.start(SAGA, {"do:charge": {"sleep": 0.02}}) for _ in range(40)]
    runs += [scene.start(LINE, {"do:ship": {"fail": True}, "undo:charge": {"sleep": 0.02}}) for _ in range(40)]
    scene.wait_for(direction="undo", event="took")

    for worker in workers:
        worker.kill()
    running = sum(not run.status.is_end for run in runs)
    assert running > 20, "the fault came too late to show anything"
    assert scene.store.visibility.unattended() == []
    scene.worker()

    scene.audit(runs, "completed", "compensated")


def test_G2_S5_the_late_result_of_a_worker_that_was_frozen_is_refused(scene: Scene) -> None:
    frozen = scene.worker(concurrency=1)
    run = scene.start(SAGA, {"do:charge:1": {"gate": "thaw"}, "do:charge:2": {"gate": "second"}})
    scene.wait_for(step="charge", event="began")
    scene.worker()

    frozen.pause()
    scene.wait_for(step="charge", event="began", attempt=2)
    scene.ledger.open("thaw")
    frozen.resume()
    scene.wait_for(step="charge", attempt=1, event="took")
    late = wait_until(
        lambda: [e for e in run.history() if isinstance(e, ResultEvent) and (e.step, e.attempt) == ("charge", 1)],
        10,
        "the record of the late result",
    )
    meanwhile = scene.store.load(run.transaction_id).state.step("charge")
    scene.ledger.open("second")
    status = scene.ended([run])

    assert (meanwhile.do.in_flight, meanwhile.do.attempt, meanwhile.late) == (True, 2, (1,))
    assert status == {run.transaction_id: "completed"}
    assert len(late) == 1
    # Twice in the world, with one idempotency key; once in the run.
    assert [row["attempt"] for row in scene.ledger.rows(step="charge", event="took")] == [1, 2]
    assert len({row["key"] for row in scene.ledger.rows(step="charge", event="took")}) == 1
    assert run.describe().steps["charge"].result == {"charge.do": 2}
    assert [e.attempt for e in run.history() if isinstance(e, ResultEvent) and e.step == "ship"] == [1]
    scene.audit([run], "completed")


def test_S5_a_frozen_step_of_a_run_that_went_back_is_undone_after_it_has_woken(
    tmp_path: Path, redis_url: str, start_worker: WorkerStarter
) -> None:
    scene = Scene(tmp_path, redis_url, start_worker, max_lost=1)
    frozen = scene.worker(concurrency=1)
    run = scene.start(ONE, {"do:only": {"gate": "thaw", "first": 1}})
    scene.wait_for(step="only", event="began")
    scene.worker()

    frozen.pause()
    first = scene.ended([run])
    scene.ledger.open("thaw")
    frozen.resume()
    took = scene.wait_for(step="only", direction="do", event="took")
    wait_until(
        lambda: any(row["at"] > took["at"] for row in scene.ledger.rows(direction="undo", event="took")), 10, "an undo"
    )

    assert first == {run.transaction_id: "compensated"}
    scene.audit([run], "compensated")


def test_S1a_a_step_that_kills_its_process_each_time_ends_as_unknown_and_is_undone(
    tmp_path: Path, redis_url: str, start_worker: WorkerStarter
) -> None:
    scene = Scene(tmp_path, redis_url, start_worker, max_lost=3)
    scene.worker()
    run = scene.start(LINE, {"do:pack": {"die": "child"}})
    others = [scene.start(LINE) for _ in range(10)]

    ended = scene.ended([run, *others])

    assert ended[run.transaction_id] == "compensated"
    pack = scene.store.load(run.transaction_id).state.step("pack")
    assert (pack.do.attempt, pack.do.losses, pack.do.failures, pack.do.in_doubt) == (3, 3, 0, True)
    assert run.describe().error.type == "WorkerLost"
    scene.audit([run, *others], "completed", "compensated")


@pytest.mark.full
def test_S1a_a_step_that_kills_the_whole_worker_each_time_ends_as_unknown_and_spares_its_neighbours(
    tmp_path: Path, redis_url: str, start_worker: WorkerStarter
) -> None:
    scene = Scene(tmp_path, redis_url, start_worker, max_lost=3)
    worker = scene.worker()
    run = scene.start(LINE, {"do:pack": {"die": "worker"}})
    others = [scene.start(LINE, {"do:pack": {"sleep": 0.1}}) for _ in range(10)]

    deadline = time.monotonic() + 60
    while not all(one.status.is_end for one in [run, *others]):
        assert time.monotonic() < deadline
        if not worker.is_running:
            worker.restart()  # as its supervisor would
        time.sleep(0.05)

    pack = scene.store.load(run.transaction_id).state.step("pack")
    assert (run.status, pack.do.losses, pack.do.in_doubt) == ("compensated", 3, True)
    assert {one.status for one in others} <= {"completed", "compensated"}
    scene.audit([run, *others], "completed", "compensated")


def test_S1a_after_two_losses_a_step_goes_to_the_quarantine_queue_if_it_is_consumed(scene: Scene) -> None:
    main = scene.worker(queues=["celery"])
    ward = scene.worker(queues=["celery.quarantine"], concurrency=1)
    run = scene.start(ONE, {"do:only": {"die": "child", "first": 2}})

    scene.ended([run])

    nodes = [row["node"] for row in scene.ledger.rows(event="began", step="only")]
    assert nodes == [main.node, main.node, ward.node]
    scene.audit([run], "completed")


def test_G4_S1a_steps_in_quarantine_go_back_to_their_queue_when_its_consumers_have_left(scene: Scene) -> None:
    # Given: one step of unlucky runs is in the ward's hands, it holds some more, and the rest wait in its queue.
    main = scene.worker(queues=["celery"])
    ward = scene.worker(queues=["celery.quarantine"], concurrency=1)
    dies = {"do:only:1": {"die": "child"}, "do:only:2": {"die": "child"}, "do:only:3": {"gate": "ward"}}
    runs = [scene.start(ONE, dies) for _ in range(8)]
    wait_until(lambda: scene.waiting("celery.quarantine") >= 2, 30, "more in quarantine than the ward can hold")

    # When: the ward is gone.
    ward.kill()
    scene.ledger.open("ward")

    # Then: all of them are run by those who are left.
    assert set(scene.ended(runs).values()) == {"completed"}
    assert {row["node"] for row in scene.ledger.rows(event="took", attempt=3)} == {main.node}
    scene.audit(runs, "completed")


def test_G4_a_sweeper_killed_with_a_due_entry_in_hand_leaves_it_to_the_others(scene: Scene) -> None:
    victim = scene.worker(env={DIE: "sweeping"})
    scene.worker(concurrency=1)
    # The retry is a timer, so the first sweep of the victim has an entry to die with.
    runs = [scene.start(ONE, {"do:only": {"fail": 2}}) for _ in range(20)]

    wait_until(lambda: not victim.is_running or all(run.status.is_end for run in runs), 20, "the end of the sweeper")
    while victim.is_running:  # the other one was faster: more timers
        runs += [scene.start(ONE, {"do:only": {"fail": 2}}) for _ in range(5)]
        scene.ended(runs)
    began = time.monotonic()
    scene.ended(runs)

    [died] = scene.ledger.rows(event="died sweeping")
    assert died["member"].startswith("a|")
    assert time.monotonic() - began < LEASE + RECOVERY
    scene.audit(runs, "completed")


def test_two_workers_started_on_one_backlog_run_every_step_once(scene: Scene) -> None:
    runs = [scene.start(SAGA if n % 3 else LINE, {} if n % 3 else {"do:ship": {"fail": True}}) for n in range(120)]
    first, second = scene.worker(wait=False), scene.worker(wait=False)

    scene.ended(runs)

    rows = scene.ledger.rows(event="began")
    assert len(rows) == len({(row["key"], row["direction"]) for row in rows})
    assert {row["node"] for row in rows} == {first.node, second.node}
    scene.audit(runs, "completed", "compensated")


SHIFTED_CLOCK = """
import datetime, os, time

seconds = float(os.environ["FAULTS_CLOCK"])
true, base = time.time, datetime.datetime
time.time = lambda: true() + seconds
time.time_ns = lambda: int(time.time() * 1e9)


class Kind(type):
    def __instancecheck__(cls, other):
        return isinstance(other, base)


class Shifted(base, metaclass=Kind):
    @classmethod
    def now(cls, tz=None):
        return base.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return base.fromtimestamp(time.time(), datetime.timezone.utc).replace(tzinfo=None)


datetime.datetime = Shifted
"""


def test_workers_whose_clocks_differ_by_minutes_neither_lose_nor_hurry_anything(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SHIFTED_CLOCK)
    early, late = (
        scene.worker(env={"FAULTS_CLOCK": str(shift)}, path=[tmp_path / "site"], concurrency=1) for shift in (-420, 420)
    )
    runs = [scene.start(SAGA, {"do:charge": {"fail": 1}}) for _ in range(20)]
    runs += [scene.start(LINE, {"do:ship": {"fail": True}, "undo:pack": {"fail": 1}}) for _ in range(20)]
    long = scene.start(ONE, {"do:only": {"sleep": LEASE * 1.5}})

    scene.ended([*runs, long])

    rows = scene.ledger.rows(event="began")
    assert {row["node"] for row in rows} == {early.node, late.node}
    skews = {row["node"]: round(row["wall"] - row["at"] - (time.time() - time.monotonic())) for row in rows}
    assert skews == {early.node: -420, late.node: 420}
    states = [scene.store.load(run.transaction_id).state for run in [*runs, long]]
    assert {step.do.losses + step.undo.losses for state in states for step in state.steps.values()} == {0}
    moments = [event.timestamp for run in runs for event in run.history()]
    assert max(moments) - min(moments) < timedelta(minutes=1), "the store's clock is the only one"
    scene.audit([*runs, long], "completed", "compensated")
