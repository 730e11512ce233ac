"""The engine on each kind of broker, and what stands between a commit and its message where they are two writes.

- same: the broker is the store's own database, so the commit pushes the message;
- other: the broker is another Redis server;
- rabbitmq: the broker is RabbitMQ.

On the last two a message may be lost after its commit, or never be sent. The outbox makes up for it.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import amqp
import pytest
import redis

from multiagents import WorkflowFailedError
from multiagents.embedded import EmbeddedServer
from multiagents.names import Direction
from multiagents.testing import RabbitNode, new_server, wait_until
from tests.support import ROOT
from tests.support.apps import mixed
from tests.support.mixed_deployment import MixedDeployment

#: The outbox publishes again after two leases.
LEASE = 1.0

OTHER = [pytest.param("other", id="other"), pytest.param("rabbitmq", id="rabbitmq", marks=pytest.mark.rabbitmq)]
MODES = ["inline", "queued"]
#: The rules' own tests run "same" in both modes, too.
MATRIX = [
    pytest.param("same", "inline", id="same-inline"),
    pytest.param("same", "queued", id="same-queued", marks=pytest.mark.full),
    *(pytest.param(*kind.values, mode, id=f"{kind.id}-{mode}", marks=kind.marks) for kind in OTHER for mode in MODES),
]


@pytest.fixture(scope="module")
def second_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A Redis server that is not the store's."""
    with new_server(tmp_path_factory.mktemp("broker")) as server:
        yield server


@pytest.fixture
def deploy(
    request: pytest.FixtureRequest, new_redis_url: Callable[[], str], tmp_path: Path
) -> Iterator[Callable[..., MixedDeployment]]:
    """A function that makes a deployment on a broker of a kind."""
    made: list[MixedDeployment] = []

    def make(kind: str, **settings: Any) -> MixedDeployment:
        store = new_redis_url()
        broker = store
        if kind == "other":
            server: EmbeddedServer = request.getfixturevalue("second_server")
            # The number of the store's database is free there, too: every test gets another one.
            broker = server.url.removesuffix("/0") + "/" + store.rpartition("/")[2]
        elif kind == "rabbitmq":
            broker = request.getfixturevalue("rabbitmq").new_vhost()
        made.append(MixedDeployment(tmp_path, broker, store, **{"lease": LEASE, "sweep_interval": 0.2, **settings}))
        return made[-1]

    yield make
    for deployment in made:
        deployment.close()


def ended(deployment: MixedDeployment, runs: list[Any], timeout: float = 20.0) -> list[str]:
    wait_until(lambda: all(run.status.is_end for run in runs), timeout, "the end of all runs")
    wait_until(deployment.nothing_is_left, 5, "nothing left to do")
    return [str(run.status) for run in runs]


def attempts(run: Any) -> list[int]:
    return [step.attempts for step in run.describe().steps.values()]


# --- every broker, both modes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "mode"), MATRIX)
def test_runs_complete_are_undone_and_survive_the_death_of_their_worker(
    deploy: Callable[..., MixedDeployment], kind: str, mode: str
) -> None:
    deployment = deploy(kind, orchestration=mode)
    assert deployment.orchestrator.dispatcher.atomic is (kind == "same")
    worker = deployment.start_worker()

    # Forward, and back.
    forward = [deployment.orchestrator.start(mixed.three_steps, {"item": n}) for n in range(10)]
    back = [deployment.orchestrator.start(mixed.taken_back) for _ in range(3)]
    assert ended(deployment, forward + back) == ["completed"] * 10 + ["compensated"] * 3
    assert [run.result()["taken"] for run in forward] == list(range(10))
    for run in back:
        with pytest.raises(WorkflowFailedError, match="it broke"):
            run.result()
    assert len(deployment.seen("take")) == 3 * 13
    undone = [entry["id"].partition("/")[2] for entry in deployment.seen("put_back")]
    assert sorted(undone) == sorted(["one/undo/1", "two/undo/1", "three/undo/1"] * 3)

    # All of a worker dies, with two steps in work and more in its memory.
    killed = [deployment.orchestrator.start(mixed.held_up, {"gate": "kill"}) for _ in range(5)]
    wait_until(lambda: len(deployment.seen("held")) == 2, what="two steps that run")
    worker.kill()
    deployment.open_gate("kill", 20)
    deployment.start_worker()
    assert ended(deployment, killed) == ["completed"] * 5
    # RabbitMQ gives the messages of the dead back at once; a step that was in work was lost and ran again.
    assert sorted(run.describe().steps["held"].attempts for run in killed) == [1, 1, 1, 2, 2]


# --- between the commit and its message -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OTHER)
def test_a_run_whose_starter_died_before_it_published_goes_on(
    deploy: Callable[..., MixedDeployment], kind: str
) -> None:
    deployment = deploy(kind)
    start = 'app.multiagents.start("plain.one_step", {}, transaction_id="A-1")'
    script = f"from tests.support.apps.mixed import app; {start}"
    environ = {**deployment.environ, mixed.KILL: "plain.take"}
    starter = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={k: v for k, v in environ.items() if v}, check=False
    )
    assert starter.returncode == -9
    assert deployment.length() == 0

    deployment.start_worker()

    run = deployment.orchestrator.get("A-1")
    assert ended(deployment, [run]) == ["completed"]
    assert attempts(run) == [1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", OTHER)
def test_a_worker_that_dies_between_commit_and_publication_loses_nothing(
    deploy: Callable[..., MixedDeployment], kind: str, mode: str
) -> None:
    deployment = deploy(kind, orchestration=mode)
    # The step of "held_up" is recorded; the message of the next one is never sent.
    task = "multiagents.orchestrate" if mode == "queued" else "plain.take"
    deployment.start_worker(env={mixed.KILL: task})
    deployment.open_gate("now")

    run = deployment.orchestrator.start(mixed.held_up, {"gate": "now"})

    assert ended(deployment, [run]) == ["completed"]
    assert deployment.redis.exists(f"killed:{task}")
    assert attempts(run) == [1, 1]
    assert len(deployment.seen("held")) == len(deployment.seen("take")) == 1


@pytest.mark.parametrize("kind", OTHER)
def test_a_worker_that_dies_before_the_next_undo_is_published_loses_nothing(
    deploy: Callable[..., MixedDeployment], kind: str
) -> None:
    deployment = deploy(kind)
    deployment.start_worker(env={mixed.KILL: "plain.put_back"})

    run = deployment.orchestrator.start(mixed.taken_back)

    assert ended(deployment, [run]) == ["compensated"]
    assert deployment.redis.exists("killed:plain.put_back")
    assert sorted(entry["id"] for entry in deployment.seen("put_back")) == [
        f"{run.transaction_id}/{step}/undo/1" for step in ("one", "three", "two")
    ]


@pytest.mark.parametrize("kind", OTHER)
def test_a_lost_message_is_published_again(deploy: Callable[..., MixedDeployment], kind: str) -> None:
    deployment = deploy(kind)
    run = deployment.orchestrator.start(mixed.one_step)
    assert deployment.purge() == 1

    deployment.start_worker()

    assert ended(deployment, [run]) == ["completed"]
    assert attempts(run) == [1]


@pytest.mark.parametrize("kind", OTHER)
def test_a_backlog_is_not_published_again_while_it_waits(deploy: Callable[..., MixedDeployment], kind: str) -> None:
    deployment = deploy(kind)
    runs = [deployment.orchestrator.start(mixed.one_step) for _ in range(8)]
    (due,) = deployment.redis.keys("*:due")
    dispatched = deployment.redis.zrange(due, 0, -1, withscores=True)

    # A worker that sweeps and does not consume this queue looks after each of them, twice.
    deployment.start_worker(queues=["elsewhere"])
    latest = max(score for _, score in dispatched)
    soonest = lambda: min(score for _, score in deployment.redis.zrange(due, 0, -1, withscores=True))  # noqa: E731
    wait_until(lambda: soonest() > latest + 2.5 * LEASE * 1000, 15, "the sweep to have looked twice")
    assert deployment.length() == 8

    deployment.start_worker()
    assert ended(deployment, runs) == ["completed"] * 8
    assert len(deployment.seen("take")) == 8


@pytest.mark.parametrize("kind", OTHER)
def test_what_was_lost_is_published_again_though_its_queue_is_never_empty(
    deploy: Callable[..., MixedDeployment], kind: str
) -> None:
    # Given: two messages are lost, and others' tasks keep the queue busy.
    deployment = deploy(kind)
    runs = [deployment.orchestrator.start(mixed.one_step) for _ in range(2)]
    assert deployment.purge() == 2
    busy = threading.Event()
    busy.set()

    def traffic() -> None:
        while busy.is_set():
            for _ in range(max(0, 12 - deployment.length())):
                deployment.app.send_task("plain.nothing")
            time.sleep(0.02)

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        # When, then: a worker finds them, and not because the queue ran empty.
        deployment.start_worker()
        assert ended(deployment, runs) == ["completed"] * 2
        assert thread.is_alive()
    finally:
        busy.clear()
        thread.join()


@contextmanager
def broker_of_its_own(kind: str, folder: Path) -> Iterator[EmbeddedServer | RabbitNode]:
    """A server that a test may kill, and start again with what it had."""
    with RabbitNode(folder) if kind == "rabbitmq" else new_server(folder) as server:
        yield server


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what kombu leaves of the connection
@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("kind", OTHER)
def test_G5_a_worker_outlives_the_restart_of_a_broker_that_is_not_the_store(
    new_redis_url: Callable[[], str], tmp_path: Path, kind: str, pool: Any
) -> None:
    # Given: a step runs, which is acknowledged when it is over.
    with broker_of_its_own(kind, tmp_path / "broker") as broker:
        deployment = MixedDeployment(tmp_path, broker.url, new_redis_url(), lease=LEASE, sweep_interval=0.2)
        worker = deployment.start_worker(pool=pool)
        run = deployment.orchestrator.start(mixed.held_up, {"gate": "now"})
        deployment.wait_for_gate("now")

        # When: its broker restarts meanwhile.
        broker.kill()
        broker.start()
        time.sleep(3)
        deployment.open_gate("now", times=3)

        # Then: the worker lives, and goes on.
        try:
            runs = [run, deployment.orchestrator.start(mixed.one_step)]
            assert ended(deployment, runs, 60) == ["completed"] * 2
            assert worker.is_running
        finally:
            deployment.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what kombu leaves of the connection
def test_G5_a_worker_without_lean_qos_outlives_the_restart_of_its_redis(tmp_path: Path) -> None:
    with new_server(tmp_path / "broker") as server:
        deployment = MixedDeployment(tmp_path, server.url, server.url, lean_qos=False, lease=LEASE, sweep_interval=0.2)
        with deployment:
            worker = deployment.start_worker()
            run = deployment.orchestrator.start(mixed.held_up, {"gate": "now"})
            deployment.wait_for_gate("now")

            server.kill()
            server.start()
            time.sleep(3)
            deployment.open_gate("now", times=3)

            assert ended(deployment, [run], 60) == ["completed"]
            assert worker.is_running


def test_a_transport_of_the_users_own_is_warned_of_where_it_is_a_redis(
    new_redis_url: Callable[[], str], tmp_path: Path
) -> None:
    url = new_redis_url()
    with MixedDeployment(tmp_path, url, url, conf={"broker_transport": "redis"}) as deployment:
        worker = deployment.start_worker()

        worker.wait_for_log("broker_transport is set.*a restart of the broker.*supervisor")


def test_a_full_broker_that_is_not_the_store_ends_no_worker_and_runs_go_on_when_it_has_room(
    new_redis_url: Callable[[], str], tmp_path: Path
) -> None:
    with (
        new_server(tmp_path / "broker") as broker,
        closing(redis.Redis.from_url(broker.url)) as admin,
        MixedDeployment(tmp_path, broker.url, new_redis_url(), lease=LEASE, sweep_interval=0.2) as deployment,
    ):
        before = deployment.orchestrator.start(mixed.held_up, {"gate": "now"})

        # A worker starts there, and takes what there is.
        admin.config_set("maxmemory", 1)
        worker = deployment.start_worker(gossip=True)
        deployment.wait_for_gate("now")
        deployment.open_gate("now", times=3)
        meanwhile = deployment.orchestrator.start(mixed.one_step)
        time.sleep(2)
        assert worker.is_running

        admin.config_set("maxmemory", 0)

        assert ended(deployment, [before, meanwhile], 60) == ["completed"] * 2
        assert worker.is_running


@pytest.mark.parametrize("kind", OTHER)
def test_a_message_that_comes_twice_runs_once(deploy: Callable[..., MixedDeployment], kind: str) -> None:
    deployment = deploy(kind)
    run = deployment.orchestrator.start(mixed.one_step)
    snapshot = deployment.orchestrator.store.load(run.transaction_id)
    correlation = snapshot.state.correlation("take", Direction.DO, 1)
    deployment.orchestrator.dispatcher.publish(snapshot.definition, correlation, "celery")
    assert deployment.length() == 2

    deployment.start_worker()

    assert ended(deployment, [run]) == ["completed"]
    wait_until(lambda: deployment.length() == 0, what="the end of both messages")
    assert len(deployment.seen("take")) == 1


def test_a_start_survives_a_broker_that_is_down(deploy: Callable[..., MixedDeployment], tmp_path: Path) -> None:
    deployment = deploy("same", conf={"broker_connection_timeout": 0.2, "task_publish_retry": False})
    with new_server(tmp_path / "broker") as server:
        late = MixedDeployment(tmp_path, server.url, deployment.store_url, deployment.conf, **deployment.settings)
        server.kill()
        began = time.monotonic()
        run = late.orchestrator.start(mixed.one_step)
        assert time.monotonic() - began < 5
        server.restart()
        late.start_worker()
        try:
            assert ended(late, [run]) == ["completed"]
        finally:
            late.close()


@pytest.mark.rabbitmq
def test_messages_are_confirmed_by_rabbitmq(
    deploy: Callable[..., MixedDeployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deploy("rabbitmq")
    confirmed = []
    publish = amqp.Channel.basic_publish_confirm

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = publish(self, *args, **kwargs)
        confirmed.append(kwargs["routing_key"])
        return answer

    monkeypatch.setattr(amqp.Channel, "basic_publish_confirm", spy)

    deployment.orchestrator.start(mixed.one_step)
    assert confirmed == ["celery"]
    deployment.app.tasks["plain.add"].delay(1, 1)
    assert confirmed == ["celery"]  # the user's own are sent as the user's settings say


@pytest.mark.parametrize("kind", OTHER)
def test_a_process_keeps_its_connection_to_the_broker(
    deploy: Callable[..., MixedDeployment], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deploy(kind)
    deployment.orchestrator.start(mixed.one_step)
    opened = []
    connect = deployment.app.amqp.Connection._establish_connection
    monkeypatch.setattr(
        deployment.app.amqp.Connection, "_establish_connection", lambda self: opened.append(1) or connect(self)
    )

    for _ in range(5):
        deployment.orchestrator.start(mixed.one_step)

    assert opened == []
    assert deployment.length() == 6
