"""Faults of messages: delivered twice and out of order, links that come early, twice or never, and long backlogs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from multiagents.names import Direction
from multiagents.orchestrator.recovery.maintenance import SPARED
from multiagents.state_store.records import LINK_GRACE_MS
from multiagents.testing import wait_until
from multiagents.testing.plugin import WorkerStarter
from tests.support.apps.fault_sagas import DIE, LINE, ONE, PREFETCH, SAGA
from tests.support.fault_scene import LEASE, RECOVERY, Postman, Scene


@pytest.fixture
def scene(tmp_path: Path, redis_url: str, start_worker: WorkerStarter) -> Scene:
    return Scene(tmp_path, redis_url, start_worker)


@contextmanager
def delivery(postman: Postman) -> Iterator[Postman]:
    """A postman at work."""
    postman.start()
    try:
        yield postman
    finally:
        postman.stop()


@pytest.mark.parametrize("orchestration", ["inline", "queued"])
def test_G2_every_message_twice_and_out_of_order_counts_every_step_once(
    tmp_path: Path, redis_url: str, start_worker: WorkerStarter, orchestration: str
) -> None:
    # Priorities are lists of their own on Redis; the postman empties one.
    settings = {"queue": "sent", "orchestrator_queue": "sent", "orchestration": orchestration, "start_priority": 0}
    scene = Scene(tmp_path, redis_url, start_worker, **settings)
    scene.worker(queues=["delivered"])
    with delivery(Postman(redis_url, "sent", "delivered")) as postman:
        runs = [scene.start(SAGA) for _ in range(15)]
        runs += [scene.start(SAGA, {"do:charge": {"fail": 1}, "do:fraud": {"fail": 1}}) for _ in range(5)]
        runs += [scene.start(SAGA, {"do:ship": {"fail": True}, "undo:credit": {"fail": 1}}) for _ in range(5)]
        runs += [scene.start(LINE, {"do:ship": {"fail": True}}) for _ in range(10)]
        cancelled = [scene.start(LINE, {"do:charge": {"gate": "cancelled"}}) for _ in range(2)]
        for run in cancelled:
            scene.wait_for(run=run.transaction_id, step="charge", event="began")
            run.cancel()
        scene.ledger.open("cancelled")
        scene.ended([*runs, *cancelled])

        began = Counter((row["key"], row["direction"], row["attempt"]) for row in scene.ledger.rows(event="began"))
        assert set(began.values()) == {1}
        assert postman.carried >= 2 * len(began)
        scene.audit([*runs, *cancelled], "completed", "compensated", "cancelled")


def test_a_link_that_fires_early_or_twice_runs_its_undo_once(scene: Scene) -> None:
    worker = scene.worker()
    run = scene.start(LINE, {"do:ship": {"gate": "ship", "fail": True}, "undo:charge": {"gate": "undo"}})
    scene.wait_for(step="ship", event="began")
    attempt = scene.store.load(run.transaction_id).state.correlation("charge", Direction.UNDO, 1)

    def fire(times: int) -> None:
        """Publish the link of charge's undo, and wait until the worker has refused it."""
        refused = rf"(?s)({attempt}\] ignored.*){{{times}}}"
        scene.orchestrator.dispatcher.link(LINE, attempt).apply_async()
        worker.wait_for_log(refused, 10)

    fire(1)  # early: nothing is to be undone yet
    assert scene.ledger.rows(direction="undo") == []
    scene.ledger.open("ship")
    scene.wait_for(step="charge", direction="undo", event="began")
    fire(2)  # twice: it is running
    scene.ledger.open("undo")
    scene.ended([run])
    fire(3)  # again: it is over

    undos = scene.ledger.rows(direction="undo", event="began")
    assert [(row["step"], row["attempt"]) for row in undos] == [("pack", 1), ("charge", 1), ("reserve", 1)]
    # Each is the child of the one before it, as Celery and Flower see it.
    assert [row["parent"] for row in undos[1:]] == [
        f"{run.transaction_id}/{step}/undo/1" for step in ("pack", "charge")
    ]
    scene.audit([run], "compensated")


def test_a_lost_link_is_sent_by_the_sweep_two_seconds_later(scene: Scene) -> None:
    scene.worker(env={DIE: "before_link"})
    run = scene.start(LINE, {"do:ship": {"fail": True}})

    scene.ended([run])

    undos = scene.ledger.rows(direction="undo", event="began")
    assert [(row["step"], row["attempt"]) for row in undos] == [("pack", 1), ("charge", 1), ("reserve", 1)]
    assert undos[1]["parent"] == run.transaction_id, "it came from the sweep, not by the link"
    assert LINK_GRACE_MS / 1000 <= undos[1]["at"] - undos[0]["at"] < LINK_GRACE_MS / 1000 + RECOVERY
    scene.audit([run], "compensated")


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(5_000),
        pytest.param(100_000, marks=[pytest.mark.full, pytest.mark.timeout(1200)]),
    ],
)
def test_G5_a_backlog_that_waits_for_many_leases_causes_no_flood_of_duplicates(
    tmp_path: Path, redis_url: str, start_worker: WorkerStarter, steps: int
) -> None:
    scene = Scene(tmp_path, redis_url, start_worker)
    held = scene.worker(concurrency=1)
    began = time.monotonic()
    scene.start(ONE, {"do:only": {"gate": "held"}})
    scene.wait_for(event="began")

    for _ in range(steps - 1):
        scene.start(ONE)
    wait_until(lambda: time.monotonic() - began > 3 * LEASE, 5, "some leases")
    leases = (time.monotonic() - began) / LEASE
    again = scene.sent() - steps
    waiting = scene.waiting()
    scene.ledger.open("held")
    scene.worker()
    wait_until(lambda: scene.orchestrator.count(ONE, "completed") == steps, 900, "the end of the backlog")
    at_the_end = scene.sent() - steps

    assert waiting >= steps - 4, "it was no backlog"
    # Of what a worker holds and has not begun, three messages here, each is sent again once a lease.
    assert again <= 3 * leases
    assert at_the_end <= again + 50
    assert scene.store.visibility.unattended() == []
    assert scene.orchestrator.count() == steps
    effects = Counter(row["key"] for row in scene.ledger.rows(event="took"))
    assert (len(effects), set(effects.values())) == (steps, {1})
    assert held.is_running


def test_G5_a_worker_that_prefetches_without_limit_gets_no_copies_of_what_it_holds(scene: Scene) -> None:
    steps = 100
    for number in range(steps):
        scene.start(ONE, {"do:only": {"gate": "held"}} if number == 0 else None)
    scene.worker(concurrency=1, env={PREFETCH: "0"})
    scene.wait_for(event="began")
    began = time.monotonic()
    wait_until(lambda: scene.waiting() == 0, 10, "the worker to have taken all of them")

    wait_until(lambda: time.monotonic() - began > 5 * LEASE, 20, "some leases")
    leases = (time.monotonic() - began) / LEASE
    again = scene.sent() - steps
    scene.ledger.open("held")
    wait_until(lambda: scene.orchestrator.count(ONE, "completed") == steps, 60, "the end of the backlog")

    # Those that are its next may be had by others, who are idle; all else is known to be held.
    assert again <= (SPARED + 2) * leases
    effects = Counter(row["key"] for row in scene.ledger.rows(event="took"))
    assert (len(effects), set(effects.values())) == (steps, {1})


def test_G5_what_a_killed_worker_held_is_sent_again_all_of_it(scene: Scene) -> None:
    for number in range(60):
        scene.start(ONE, {"do:only": {"gate": "held"}} if number == 0 else None)
    doomed = scene.worker(concurrency=1, env={PREFETCH: "0"})
    scene.wait_for(event="began")
    wait_until(lambda: scene.waiting() == 0, 10, "the worker to have taken all of them")
    time.sleep(LEASE)  # it says what it holds

    doomed.kill()
    scene.worker()
    scene.ledger.open("held")

    wait_until(lambda: scene.orchestrator.count(ONE, "completed") == 60, LEASE + RECOVERY + 20, "the end of all runs")
