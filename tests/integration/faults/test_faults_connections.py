"""What becomes of a process' connections to the store when servers, networks and exceptions break them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

import pytest
import redis

from multiagents.embedded import EmbeddedServer
from multiagents.event_bus import RedisEventBus
from multiagents.events import ResultEvent
from multiagents.exceptions import StateStoreError, WorkflowNotFoundError
from multiagents.redis import patient_client
from multiagents.state_store.records import of_workers
from multiagents.state_store.redis import RedisStateStore
from multiagents.testing import wait_until
from multiagents.testing.plugin import WorkerStarter
from multiagents.testing.servers import new_server
from tests.support.apps.fault_sagas import LINE, ONE, SAGA
from tests.support.balancer import Balancer
from tests.support.fault_scene import Scene
from tests.support.greenlets import three_hundred
from tests.support.own_server import own_server
from tests.support.sentinels import MASTER, PASSWORD, Sentinels

WAYS = ["script", "command", "pipeline"]


class Caller:
    """Asks a store in each way that there is of asking it, and knows what the answer has to be."""

    def __init__(self, url: str) -> None:
        self.store = RedisStateStore(url)
        self._answers: dict[str, Callable[[], object]] = {
            "script": self.store.load,
            "command": self.store.status,
            "pipeline": self.store.payloads,
        }

    def asks(self, way: str = "script") -> bool:
        """Whether the answer is the right one: that there is no such run."""
        with pytest.raises(WorkflowNotFoundError, match="order-1"):
            self._answers[way]("order-1")  # type: ignore[call-arg]
        return True

    def writes(self) -> None:
        self.store.announce(of_workers({"charge": {"queue": "payments"}}))


@pytest.fixture
def caller(crash_server: EmbeddedServer) -> Iterator[Caller]:
    found = Caller(crash_server.url)
    yield found
    found.store.close()


@pytest.fixture
def admin(crash_server: EmbeddedServer) -> Iterator[Any]:
    with closing(redis.Redis.from_url(crash_server.url, client_name="admin")) as client:
        yield client


def connections(admin: Any) -> int:
    """How many the server has, but for the one that asks."""
    return sum(each["name"] != "admin" for each in admin.client_list())


def test_after_a_thousand_broken_connections_a_process_talks_to_the_store_as_before(caller: Caller, admin: Any) -> None:
    for number in range(1_000):
        caller.asks(WAYS[number % 3])
        admin.client_kill_filter(_type="normal", skipme=True)

    assert all(caller.asks(way) for way in WAYS)
    assert connections(admin) <= 3


def test_a_server_that_closes_idle_connections_costs_no_call(caller: Caller, admin: Any) -> None:
    admin.config_set("timeout", 1)
    with ThreadPoolExecutor(30) as threads:
        for _ in range(3):
            assert all(threads.map(caller.asks, WAYS * 30))
            wait_until(lambda: connections(admin) == 0, 20, "the server to have closed what is idle")


def test_who_finds_no_connection_free_waits_for_one(crash_server: EmbeddedServer, admin: Any) -> None:
    caller = Caller(f"{crash_server.url}?max_connections=3")
    seen: list[int] = []
    with closing(caller.store), ThreadPoolExecutor(60) as threads:
        answers = threads.map(caller.asks, WAYS * 200)
        seen.extend(connections(admin) for _ in range(50))

        assert all(answers)
    assert 1 <= max(seen) <= 3


def test_more_subscriptions_of_a_bus_than_connections_hold_up_neither_calls_nor_each_other(
    crash_server: EmbeddedServer, admin: Any
) -> None:
    seen: list[list[str]] = [[] for _ in range(12)]
    with closing(RedisEventBus(f"{crash_server.url}?max_connections=3")) as bus, ExitStack() as subscriptions:
        for number in range(12):
            group = "together" if number < 6 else None
            take = lambda event, number=number: seen[number].append(event.transaction_id)  # noqa: E731
            subscriptions.enter_context(bus.subscribe(take, group=group))

        for number in range(20):
            bus.publish(ResultEvent(transaction_id=f"r{number}", correlation_id=f"r{number}/a/do/1", payload={}))

        published = [f"r{number}" for number in range(20)]
        wait_until(lambda: all(each == published for each in seen[6:]), 30, "each to have seen all")
        wait_until(lambda: sorted(chain(*seen[:6])) == sorted(published), 30, "the group to have seen all")
        # Each that reads has one; a call takes one of the three.
        assert connections(admin) <= 12 + 3


def test_who_waits_for_a_connection_in_vain_is_told_what_to_do(crash_server: EmbeddedServer) -> None:
    caller = Caller(f"{crash_server.url}?max_connections=1")
    pool = caller.store.client.connection_pool
    pool._patience = 0.1
    taken = pool.take()

    with closing(caller.store):
        with pytest.raises(StateStoreError, match=r"none of 1 connections came free within 0\.1 s.*max_connections"):
            caller.asks()
        pool.give(taken)
        assert caller.asks()


def test_an_outage_that_two_hundred_threads_meet_is_over_when_the_server_is_back(
    caller: Caller, crash_server: EmbeddedServer, admin: Any
) -> None:
    caller.asks()
    crash_server.kill()

    def meets(number: int) -> bool:
        try:
            return caller.asks(WAYS[number % 3])
        except StateStoreError:
            return False

    with ThreadPoolExecutor(200) as threads:
        met = [threads.submit(meets, number) for number in range(200)]
        time.sleep(1)
        crash_server.start()
        assert [each.result() for each in met] == [True] * 200
        assert all(threads.map(caller.asks, WAYS * 100))
    assert connections(admin) <= 100


@contextmanager
def reached(kind: str, folder: Path) -> Iterator[tuple[str, list[int]]]:
    """A server that is reached in some way: its URL, and the processes to stop so that nobody answers."""
    if kind == "sentinels":
        with Sentinels(folder) as sentinels:
            secret = quote(f"{PASSWORD}-s", safe="")
            hosts = [f"sentinel://:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/0" for port in sentinels.ports]
            yield f"{';'.join(hosts)}?master_name={MASTER}&sentinel_password={secret}", sentinels.pids
    else:
        socket = f"/tmp/multiagents-{os.getpid()}.sock"
        with own_server(folder, config={"unixsocket": socket}) as server:
            yield f"unix://{socket}?db=0" if kind == "socket" else server.url, [server.pid]


@pytest.mark.parametrize("kind", ["server", "socket", "sentinels"])
def test_a_call_to_who_takes_in_all_and_answers_nothing_ends_within_what_is_set(tmp_path: Path, kind: str) -> None:
    with reached(kind, tmp_path) as (url, pids), ThreadPoolExecutor(6) as threads:
        callers = [Caller(url) for _ in WAYS * 2]
        assert all(caller.asks() for caller in callers[:3])  # the others have not connected yet

        def takes(caller: Caller, way: str) -> float:
            began = time.monotonic()
            with pytest.raises(StateStoreError, match="nothing acknowledged was lost"):
                caller.asks(way)
            return time.monotonic() - began

        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            took = list(threads.map(takes, callers, WAYS * 2))
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

        # At most an attempt of 5 s, and those that begin within 10 s, each 5 s to connect and 5 s to be answered.
        assert max(took) < 30
        for caller in callers:
            caller.store.close()


class _Interruption(BaseException):
    """What a soft time limit, a cancellation or a greenlet's time-out does to whoever is in the middle of a call."""


def is_destructor(frame: FrameType | None) -> bool:
    """Whether Python swallows what is raised here: whoever shows it keeps all that is under way, as in use for ever."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def interrupted(action: Callable[[], object], at: int) -> bool:
    """Do something that is interrupted when it comes to its so-manieth line; whether it came as far."""
    left = at

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if event == "line" and (
            "/multiagents/redis/" in frame.f_code.co_filename or "/redis/" in frame.f_code.co_filename
        ):
            left -= 1
            if left == 0 and is_destructor(frame):
                left = 1
            if left == 0:
                raise _Interruption
        return on_line

    before = sys.gettrace()
    sys.settrace(on_line)
    try:
        action()
    except _Interruption:
        pass
    finally:
        sys.settrace(before)
    return left <= 0


@pytest.mark.parametrize("way", WAYS)
def test_wherever_a_call_is_interrupted_the_next_gets_its_own_answer_and_a_connection(
    way: str, crash_server: EmbeddedServer
) -> None:
    caller = Caller(f"{crash_server.url}?max_connections=1")
    client, idle = caller.store.client, caller.store.client.connection_pool.idle
    caller.asks(way)
    asked = {
        "script": lambda: client.ask("ECHO", "mine"),
        "command": lambda: client.execute_command("ECHO", "mine"),
        "pipeline": lambda: client.pipeline(transaction=True).echo("mine").execute(),
    }[way]

    at = 0
    with closing(caller.store):
        while interrupted(asked, at := at + 1):
            assert len(idle) <= 1, "who is lent the one connection twice would share it"
            assert client.ask("ECHO", f"next {at}") == f"next {at}"
            assert client.execute_command("ECHO", f"and {at}") == f"and {at}"
    assert at > 20


@pytest.mark.parametrize(
    "says",
    [
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-NOREPLICAS Not enough good replicas to write.\r\n",
    ],
    ids=lambda says: says.split()[0].decode(),
)
@pytest.mark.parametrize("way", WAYS[:2])
def test_a_connection_to_a_server_that_is_not_the_one_to_talk_to_is_given_up(
    crash_server: EmbeddedServer, says: bytes, way: str
) -> None:
    with Balancer(crash_server.port) as balancer:
        caller = Caller(balancer.url)
        with closing(caller.store), ThreadPoolExecutor(10) as threads:
            assert all(threads.map(caller.asks, WAYS * 10))
            balancer.answer_old_ones(says)

            if way == "command" and b"NOREPLICAS" in says:
                with pytest.raises(StateStoreError, match="NOREPLICAS"):  # said once, as redis-py has no name for it
                    caller.asks(way)
            assert caller.asks(way)
            assert all(threads.map(caller.asks, WAYS * 10))


@pytest.mark.parametrize("who", ["patient", "hasty"])
def test_a_process_that_was_there_before_a_failover_finds_the_new_master(tmp_path: Path, who: str) -> None:
    with new_server(tmp_path / "a") as old, new_server(tmp_path / "b") as new, Balancer(old.port) as balancer:
        caller = Caller(balancer.url)
        if who == "hasty":
            caller.store = caller.store.for_sweep()
        with closing(caller.store), closing(patient_client(old.url)) as was, closing(patient_client(new.url)) as is_now:
            is_now.replicaof("127.0.0.1", old.port)
            wait_until(lambda: is_now.info("replication")["master_link_status"] == "up", 20, "the replica")
            caller.writes()

            is_now.replicaof("NO", "ONE")
            balancer.target = new.port
            was.replicaof("127.0.0.1", new.port)
            wait_until(lambda: was.info("replication")["role"] == "slave", 20, "the demotion")
            if who == "hasty":  # may give up at once, and has then let go of what leads to the old one
                with suppress(StateStoreError):
                    caller.writes()
            caller.writes()

            assert caller.store.announced().workers == {"charge": {"queue": "payments"}}


def test_workers_that_were_there_before_a_failover_go_on_with_the_new_master(
    tmp_path: Path, start_worker: WorkerStarter
) -> None:
    with new_server(tmp_path / "a") as old, new_server(tmp_path / "b") as new, Balancer(old.port) as balancer:
        scene = Scene(tmp_path, balancer.url, start_worker)
        worker = scene.worker()
        before = [scene.start(SAGA), scene.start(LINE, {"do:pack": {"gate": "pack"}})]
        scene.wait_for(step="pack", event="began")
        with closing(patient_client(old.url)) as was, closing(patient_client(new.url)) as is_now:
            is_now.replicaof("127.0.0.1", old.port)
            wait_until(lambda: is_now.info("replication")["master_link_status"] == "up", 20, "the replica")
            scene.ended(before[:1])
            wait_until(lambda: was.wait(1, 1000), 20, "the replica to have all")

            is_now.replicaof("NO", "ONE")
            balancer.target = new.port
            was.replicaof("127.0.0.1", new.port)
            wait_until(lambda: was.info("replication")["role"] == "slave", 20, "the demotion")
            scene.ledger.open("pack")
            after = [scene.start(SAGA), scene.start(ONE)]

            scene.ended([*before, *after])
            scene.redis.connection_pool.disconnect()
            scene.audit([*before, *after], "completed")
        assert worker.is_running


def test_a_forked_process_has_connections_of_its_own(caller: Caller) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(caller.asks, WAYS * 10))
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                right = all(caller.asks(way) for way in WAYS * 50)
            except BaseException:
                right = False
            os._exit(0 if right else 1)
        children.append(child)

    here = all(caller.asks(way) for way in WAYS * 50)

    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert here


def test_three_hundred_greenlets_share_the_connections_and_their_timeouts_spoil_none(
    crash_server: EmbeddedServer,
) -> None:
    assert three_hundred("calls", crash_server.url) == "300 right"
