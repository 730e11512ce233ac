"""A server that has come to its maxmemory: it takes no new runs, and frees itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from multiagents.embedded import EmbeddedServer
from multiagents.exceptions import StateStoreError
from multiagents.testing import wait_until
from multiagents.testing.plugin import WorkerStarter
from tests.support.apps.fault_sagas import LINE, ONE, PARENT, SAGA
from tests.support.fault_scene import Scene

FAILS = {"do:ship": {"fail": True}}


@pytest.fixture
def scene(tmp_path: Path, crash_server: EmbeddedServer, start_worker: WorkerStarter) -> Scene:
    return Scene(tmp_path, crash_server.url, start_worker)


@pytest.fixture
def forgetful(tmp_path: Path, crash_server: EmbeddedServer, start_worker: WorkerStarter) -> Scene:
    return Scene(tmp_path, crash_server.url, start_worker, retention=3)


@contextmanager
def full(scene: Scene) -> Iterator[None]:
    """The server has no room at all."""
    scene.redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        scene.redis.config_set("maxmemory", 0)


def test_a_full_server_brings_its_runs_to_their_ends_forward_and_back(scene: Scene) -> None:
    worker = scene.worker()
    held = {"do:reserve": {"gate": "room"}}
    runs = [scene.start(kind, {**held, **orders}) for kind in (SAGA, LINE) for orders in ({}, FAILS)]
    scene.wait_for(event="began", number=2)

    with full(scene):
        scene.ledger.open("room")
        scene.audit(runs, "completed", "compensated")
        assert worker.is_running


def test_a_full_server_refuses_new_runs_in_words_and_gives_those_that_are_there(scene: Scene) -> None:
    run = scene.start(ONE, {}, "there")

    with full(scene):
        with pytest.raises(StateStoreError, match=r"OutOfMemory.*the server is full.*maxmemory.*multiagents_retention"):
            scene.start(ONE, {}, "new")
        assert scene.start(ONE, {}, "there") == run
        run.cancel()
        assert run.status == "cancelled"
        assert run.history()
        run.delete()

    assert [each.transaction_id for each in scene.orchestrator.list()] == []
    assert scene.start(ONE, {}, "new").status == "running"


def test_a_full_server_frees_itself_by_the_retention_of_its_runs(forgetful: Scene) -> None:
    scene = forgetful
    scene.worker()
    scene.ended([scene.start(ONE) for _ in range(20)])

    with full(scene):
        wait_until(lambda: not scene.orchestrator.list(), 30, "all runs to be forgotten")

        assert scene.redis.keys(f"{scene.orchestrator.keys.of_partition(0).runs}*") == []


def test_a_child_waits_until_a_full_server_has_room_again(scene: Scene) -> None:
    worker = scene.worker()
    run = scene.start(PARENT, {"do:reserve": {"gate": "room"}})
    scene.wait_for(event="began")

    with full(scene):
        scene.ledger.open("room")
        worker.wait_for_log("the server is full", 30)
        time.sleep(2)
        assert run.status == "running"

    assert scene.ended([run]) == {run.transaction_id: "completed"}
    assert len(scene.ledger.rows(event="took")) == 2
    assert scene.store.visibility.unattended() == []
    assert worker.is_running


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_worker_starts_on_a_full_server_and_brings_its_runs_to_their_ends(scene: Scene, pool: str) -> None:
    """All workers were gone when it filled up; the one that comes has another name, and talks to the others."""
    gone = scene.worker()
    held = {"do:reserve": {"gate": "room"}}
    runs = [scene.start(kind, {**held, **orders}) for kind in (SAGA, LINE) for orders in ({}, FAILS)]
    scene.wait_for(event="began", number=2)
    gone.kill()

    with full(scene):
        worker = scene.worker(pool=pool, gossip=True)
        scene.ledger.open("room")
        scene.audit(runs, "completed", "compensated")
        assert worker.is_running


def test_a_worker_that_starts_on_a_full_server_frees_it(forgetful: Scene) -> None:
    scene = forgetful
    scene.worker().stop()
    for run in [scene.start(ONE) for _ in range(20)]:
        run.cancel()

    with full(scene):
        scene.worker()
        wait_until(lambda: not scene.orchestrator.list(), 30, "all runs to be forgotten")


def test_a_worker_that_starts_on_a_full_server_that_knows_no_queue_yet_consumes_all_the_same(scene: Scene) -> None:
    run = scene.start(ONE)

    with full(scene):
        worker = scene.worker(gossip=True)
        assert scene.ended([run]) == {run.transaction_id: "completed"}
        worker.wait_for_log("the broker is full.*queue celery", 20)
    wait_until(lambda: scene.redis.smembers("_kombu.binding.celery"), 20, "the queue to be known")
    assert worker.is_running
