"""Faults of the server: killed under load, away for longer than a lease, forgetful; and sweeps that come late."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from multiagents.embedded import EmbeddedServer
from multiagents.exceptions import StateStoreError
from multiagents.names import Direction
from multiagents.orchestrator import Run
from multiagents.orchestrator.recovery import Sweep
from multiagents.testing import wait_until
from multiagents.testing.plugin import WorkerStarter
from tests.support.apps.fault_sagas import LINE, ONE, SAGA
from tests.support.fault_scene import LEASE, RECOVERY, Scene
from tests.support.letters import abouts


@pytest.fixture
def scene(tmp_path: Path, crash_server: EmbeddedServer, start_worker: WorkerStarter) -> Scene:
    return Scene(tmp_path, crash_server.url, start_worker)


class Customers(threading.Thread):
    """Start runs without a pause, each again with its id until the start is acknowledged."""

    def __init__(self, scene: Scene, name: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[Run] = []
        self.over = threading.Event()
        self._scene, self._prefix = scene, name

    def run(self) -> None:
        """Until told to stop."""
        while not self.over.wait(0.01):
            number = len(self.acknowledged)
            kind, orders = (LINE, {"do:ship": {"fail": True}}) if number % 3 == 0 else (SAGA, {})
            try:
                self.acknowledged.append(self._scene.start(kind, orders, f"{self._prefix}-{number}"))
            except StateStoreError:
                continue


def test_G3_G5_redis_killed_under_load_with_aof_always_loses_no_acknowledged_start(
    scene: Scene, crash_server: EmbeddedServer
) -> None:
    scene.redis.config_set("appendfsync", "always")
    workers = [scene.worker(), scene.worker()]
    customers = [Customers(scene, name) for name in ("a", "b", "c")]
    for customer in customers:
        customer.start()

    for _ in range(2):
        seen = sum(len(customer.acknowledged) for customer in customers)
        wait_until(lambda seen=seen: sum(len(c.acknowledged) for c in customers) > seen + 40, 20, "more starts")
        crash_server.kill()
        time.sleep(0.2)
        crash_server.start()
        scene.redis.config_set("appendfsync", "always")
    seen = sum(len(customer.acknowledged) for customer in customers)
    wait_until(lambda: sum(len(c.acknowledged) for c in customers) > seen + 40, 20, "starts after the last restart")
    for customer in customers:
        customer.over.set()
        customer.join()
    runs = [run for customer in customers for run in customer.acknowledged]

    scene.audit(runs, "completed", "compensated")
    assert all(worker.is_running for worker in workers)


def _killed(server: EmbeddedServer, seconds: float) -> None:
    server.kill()
    time.sleep(seconds)
    server.start()


def _paused(server: EmbeddedServer, seconds: float) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "outage", [pytest.param(_killed, id="killed"), pytest.param(_paused, id="paused", marks=pytest.mark.full)]
)
def test_G5_an_outage_longer_than_a_lease_extends_the_leases_of_the_living_once_and_not_those_of_the_dead(
    scene: Scene, crash_server: EmbeddedServer, outage: Callable[[EmbeddedServer, float], None]
) -> None:
    one_each = {"concurrency": 1, "extra": ["--prefetch-multiplier", "1"]}
    first, second = scene.worker(**one_each), scene.worker(**one_each)
    runs = [scene.start(ONE, {"do:only": {"gate": "after", "first": 1}}) for _ in range(2)]
    wait_until(lambda: len(scene.ledger.rows(event="began")) == 2, 10, "both at work")
    [dead] = {row["run"] for row in scene.ledger.rows(node=second.node)}

    died = threading.Timer(LEASE / 2, second.kill)
    died.start()
    outage(crash_server, 2 * LEASE)
    died.join()
    back = time.monotonic()
    # The dead one's step is sent again after the extension; the living one renews its lease meanwhile.
    wait_until(lambda: scene.store.load(dead).state.step("only").do.losses, LEASE + RECOVERY, "the dead one's loss")
    assert time.monotonic() - back < LEASE + RECOVERY
    scene.ledger.open("after")
    scene.ended(runs)

    attempts = {run.transaction_id: scene.store.load(run.transaction_id).state.step("only").do for run in runs}
    assert {name: (do.attempt, do.losses) for name, do in attempts.items()} == {
        run.transaction_id: ((2, 1) if run.transaction_id == dead else (1, 0)) for run in runs
    }
    assert first.is_running
    scene.audit(runs, "completed")


def test_G5_writes_that_the_server_has_forgotten_cost_an_attempt_and_no_run(
    scene: Scene, crash_server: EmbeddedServer
) -> None:
    """A power cut with ``appendfsync everysec``, or a failover: what was acknowledged last is not there any more."""
    scene.worker(concurrency=4)
    run = scene.start(LINE, {"do:charge": {"gate": "charge"}, "do:pack": {"gate": "pack"}})
    scene.wait_for(step="charge", event="began")
    [log] = (crash_server.data_dir / "appendonlydir").glob("*.incr.aof")
    known = log.stat().st_size
    scene.ledger.open("charge")
    scene.wait_for(step="pack", event="began")

    crash_server.kill()
    os.truncate(log, known)
    crash_server.start()
    forgotten = scene.store.load(run.transaction_id).state
    scene.wait_for(step="pack", event="began", attempt=1, number=2)  # one of before, one of now: whose result counts?
    scene.ledger.open("pack")
    ended = scene.ended([run])
    wait_until(lambda: len(scene.ledger.rows(step="pack", event="took")) == 2, 10, "the other one")

    assert (forgotten.step("charge").do.in_flight, forgotten.step("pack").do.attempt) == (True, 0)
    assert ended == {run.transaction_id: "completed"}
    assert run.describe().context["pack.do"] == 1
    # In the world twice, with one idempotency key, by which a provider tells; in the run once.
    assert [row["attempt"] for row in scene.ledger.rows(step="charge", event="took")] == [1, 2]
    assert len({row["key"] for row in scene.ledger.rows(step="charge", event="took")}) == 1
    scene.audit([run], "completed")


def test_S27_a_result_whose_run_the_server_has_lost_is_kept_in_the_dead_letters(
    tmp_path: Path, redis_url: str, start_worker: WorkerStarter
) -> None:
    scene = Scene(tmp_path, redis_url, start_worker)
    scene.worker(concurrency=1)
    run = scene.start(ONE, {"do:only": {"gate": "lost"}})
    scene.wait_for(event="began")

    scene.redis.flushdb()
    scene.ledger.open("lost")
    letters = wait_until(scene.orchestrator.dead_letters, 10, "a dead letter")
    again = scene.start(ONE, {}, run.transaction_id)

    [letter] = letters.values()
    assert abouts(letters) == [f"{run.transaction_id}/only/do/1"]
    assert letter["event"]["payload"] == {"only.do": 1}
    assert scene.ended([again]) == {run.transaction_id: "completed"}


def test_G4_sweeps_that_come_late_every_time_do_not_keep_the_dead_alive(
    tmp_path: Path, redis_url: str, start_worker: WorkerStarter
) -> None:
    scene = Scene(tmp_path, redis_url, start_worker, lease=1.0)
    sweep = Sweep(scene.orchestrator.engine)
    sweep.tick()
    run = scene.start(ONE)
    attempt = scene.store.load(run.transaction_id).state.correlation("only", Direction.DO, 1)
    scene.store.claim(attempt, ONE.content_hash, owner="dies", worker="w", timeout=60)
    began = time.monotonic()

    while scene.store.load(run.transaction_id).state.step("only").do.losses == 0:
        assert time.monotonic() - began < 4, "an outage is seen in every late tick"
        time.sleep(0.5)  # half a lease: late
        sweep.tick()

    assert time.monotonic() - began > 1, "the lease had run out"


def test_G4_a_purged_queue_is_filled_again_whole(tmp_path: Path, redis_url: str, start_worker: WorkerStarter) -> None:
    scene = Scene(tmp_path, redis_url, start_worker, lease=3.0)
    runs = [scene.start(ONE) for _ in range(700)]
    purged = scene.orchestrator.app.control.purge()
    sweep = Sweep(scene.orchestrator.engine)

    for _ in range(2):  # Messages are looked after every half second, 500 at a time.
        sweep.tick()
        time.sleep(0.5)
    timed = scene.redis.zcount(scene.orchestrator.keys.of_partition(0).due, "-inf", "+inf")
    wait_until(lambda: sweep.tick() is not None and scene.waiting() == 700, 20, "all messages")

    assert purged == timed == 700, "all of them are due after one lease"
    assert scene.sent() == 1400
    scene.worker()
    scene.ended(runs)
    assert len(scene.ledger.rows(event="began")) == 700
    assert scene.store.visibility.unattended() == []
