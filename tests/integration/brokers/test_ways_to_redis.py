"""What an app has told Celery of its Redis is all that it has to tell: TLS, Sentinels, sockets, users and prefixes.

Each test has a server of its own, that is reached in a way of its own, and a real worker. No setting of the library
says where runs live.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from multiagents.event_bus import RedisEventBus
from multiagents.events import ResultEvent
from multiagents.exceptions import ConfigurationError, StateStoreError
from multiagents.testing import wait_until
from multiagents.testing.plugin import WorkerStarter
from multiagents.testing.worker_process import WorkerProcess
from tests.support import ROOT
from tests.support.apps import reached
from tests.support.own_server import own_server
from tests.support.sentinels import MASTER, PASSWORD, Sentinels
from tests.support.tls import Certificates, TLSServer

#: Seconds in which a run ends, on a busy machine.
SOON = 60.0


class Reached:
    """A deployment that is told nothing but Celery's settings: here, and in its workers."""

    def __init__(self, start_worker: WorkerStarter, conf: dict[str, Any], store: str | None = None) -> None:
        self.conf = conf if store is None else {**conf, "multiagents_redis_url": store}
        self.app = reached.make_app(self.conf)
        self.orchestrator = self.app.multiagents
        self._start_worker = start_worker

    @property
    def environ(self) -> dict[str, str | None]:
        """What its processes have in their environment."""
        # Celery's own variable wins over the settings, and ours over what is found there.
        unset = dict.fromkeys(("CELERY_BROKER_URL", "MULTIAGENTS_REDIS_URL"))
        return {**unset, "MULTIAGENTS_TEST_CONF": json.dumps(self.conf), "PYTHONPATH": str(ROOT)}

    def worker(self, **options: Any) -> WorkerProcess:
        """A worker, ready."""
        return self._start_worker("tests.support.apps.reached", env=self.environ, cwd=ROOT, **options)

    def goes_forward_and_back(self) -> bool:
        """Whether a run completes, and another one is undone."""
        runs = [self.orchestrator.start(reached.order, {"order": 1, "refused": refused}) for refused in (False, True)]
        wait_until(lambda: all(run.status.is_end for run in runs), SOON, "the end of both runs")
        return [str(run.status) for run in runs] == ["completed", "compensated"]


@pytest.fixture
def deploy(start_worker: WorkerStarter, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Reached]:
    for name in ("CELERY_BROKER_URL", "MULTIAGENTS_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    def make(conf: dict[str, Any], store: str | None = None) -> Reached:
        return Reached(start_worker, conf, store)

    return make


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[TLSServer]:
    with TLSServer(tmp_path_factory.mktemp("tls"), certificates) as server:
        yield server


@pytest.mark.parametrize(
    "told", ["in the URL", "in broker_use_ssl", "as Celery spells it, unchecked", "in its own URL"]
)
def test_runs_live_behind_tls_as_the_broker_does(
    deploy: Callable[..., Reached], tls_server: TLSServer, certificates: Certificates, told: str
):
    certificate, key = certificates.issue("client")
    at = f"127.0.0.1:{tls_server.tls_port}"
    ours = f"ssl_certfile={certificate}&ssl_keyfile={key}"
    checked = f"ssl_cert_reqs=required&ssl_ca_certs={certificates.authority}&{ours}"
    options = {"ssl_ca_certs": certificates.authority, "ssl_certfile": certificate, "ssl_keyfile": key}
    ways: dict[str, tuple[dict[str, Any], str | None]] = {
        "in the URL": ({"broker_url": f"rediss://{at}/0?{checked}"}, None),
        "in broker_use_ssl": (
            {"broker_url": f"redis://{at}/1", "broker_use_ssl": {**options, "ssl_cert_reqs": "required"}},
            None,
        ),
        "as Celery spells it, unchecked": ({"broker_url": f"rediss://{at}/2?ssl_cert_reqs=CERT_NONE&{ours}"}, None),
        "in its own URL": ({"broker_url": f"{tls_server.url.removesuffix('/0')}/3"}, f"rediss://{at}/4?{checked}"),
    }
    conf, store = ways[told]
    reached_so = deploy(conf, store)

    reached_so.worker()

    assert reached_so.orchestrator.dispatcher.atomic is (store is None)
    assert reached_so.goes_forward_and_back()


def test_a_server_whose_certificate_nobody_has_signed_is_not_talked_to(
    deploy: Callable[..., Reached], tls_server: TLSServer
):
    reached_so = deploy({"broker_url": "memory://"}, f"rediss://127.0.0.1:{tls_server.tls_port}/0")

    with pytest.raises(StateStoreError, match=r"CERTIFICATE_VERIFY_FAILED.*TLS in the URL"):
        reached_so.orchestrator.start(reached.order, {"order": 1})


# --- a socket, a user, a prefix -------------------------------------------------------------------------------------


def test_runs_live_behind_the_brokers_socket(deploy: Callable[..., Reached], tmp_path: Path):
    socket = f"/tmp/multiagents-{os.getpid()}.sock"  # a path of a socket is short
    with own_server(tmp_path / "server", password=PASSWORD, config={"unixsocket": socket}):
        reached_so = deploy({"broker_url": f"redis+socket://:{quote(PASSWORD, safe='')}@{socket}?virtual_host=3"})

        reached_so.worker()

        assert reached_so.orchestrator.dispatcher.atomic
        assert reached_so.goes_forward_and_back()


def documented_rights(admin: redis.Redis, user: str, password: str) -> list[str]:
    """What docs/redis.md has an operator type on this server, for a user of another name."""
    page = (ROOT / "docs" / "redis.md").read_text()
    command = next(block for block in page.split("```") if "ACL SETUSER" in block)
    if admin.info("server")["redis_version"].startswith("7.0."):  # as the page says
        command = command.replace("+client|setinfo", "")
    return command.replace("SETUSER team", f"SETUSER {user}").replace(">secret", f">{password}").split()


def test_a_user_with_the_documented_rights_can_do_all_that_celery_and_runs_need(
    deploy: Callable[..., Reached], tmp_path: Path
):
    with own_server(tmp_path / "server") as server, redis.Redis(port=server.port, decode_responses=True) as admin:
        admin.execute_command(*documented_rights(admin, "ann", PASSWORD))
        url = f"redis://ann:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}/0"
        options = {"global_keyprefix": "team:", "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
        reached_so = deploy(
            {
                "broker_url": url,
                "broker_transport_options": options,
                "multiagents_claim_check_store": url,
                "multiagents_claim_check_bytes": 64,
                "multiagents_history_limit": 4,
                "multiagents_history_archive": str(tmp_path) + "/",
                "multiagents_retention": 3600,
            }
        )
        worker = reached_so.worker()
        orchestrator = reached_so.orchestrator

        assert reached_so.goes_forward_and_back()
        reached_so.app.send_task("reached.plain")
        wait_until(lambda: "Task reached.plain" in worker.log, SOON, "an ordinary task")
        assert reached_so.app.control.inspect(destination=[worker.node], timeout=10).ping()
        given = {"order": 7, "items": ["a", "b" * 100, "c"]}
        run = orchestrator.start(reached.everything, given, transaction_id="all", attributes={"customer": "c-1"})
        wait_until(lambda: run.describe().steps["ship"].attempts == 1, SOON, "the external step")
        run.set_attributes({"customer": "c-2", "total": 7})
        run.pause()
        run.resume()
        with closing(RedisEventBus(orchestrator.runtime.address, prefix=orchestrator.keys.prefix)) as bus:
            bus.publish(ResultEvent(transaction_id="all", correlation_id="all/ship/do/1", payload={"van": 7}))
            bus.publish(ResultEvent(transaction_id="gone", correlation_id="gone/ship/do/1", payload={}))
            wait_until(lambda: run.describe().steps["ship"].status == "succeeded", SOON, "the carrier's answer")
            run.signal("answer", {"yes": True}, key="1")
            assert run.result(timeout=SOON)["van"] == 7
            wait_until(orchestrator.dead_letters, SOON, "the letter about a run that there is none of")
            admin.xadd(orchestrator.keys.of_partition(0).bus, {"event": "no JSON"})
            wait_until(bus.dead_letters, SOON, "the letter about an event that cannot be read")
            bus.discard(*[letter.id for letter in bus.dead_letters()])
        again = orchestrator.start(reached.everything, given, transaction_id="all:2")
        again.cancel()
        wait_until(lambda: again.status.is_end, SOON, "the end of the cancelled run")
        assert orchestrator.count() == len(orchestrator.list()) == 5
        assert [each.transaction_id for each in orchestrator.list(attributes={"customer": "c-2"})] == ["all"]
        assert len(run.history()) > 10
        again.delete(reason="asked for")
        assert [each.transaction_id for each in orchestrator.deleted()] == ["all:2"]
        worker.stop()

        # INFO is tried, and done without.
        # What a store may be and have been is looked at once, and may be forbidden.
        assert {refused["object"] for refused in admin.acl_log()} <= {"info", "{team:ma:0}:meta"}
        assert [key for key in admin.scan_iter() if not key.startswith("team:")] == []


def test_a_right_that_is_missing_is_named_and_the_page_that_lists_them(deploy: Callable[..., Reached], tmp_path: Path):
    with own_server(tmp_path / "server") as server, redis.Redis(port=server.port) as admin:
        admin.execute_command(*documented_rights(admin, "ann", "secret"), "-hset")
        reached_so = deploy({"broker_url": f"redis://ann:secret@127.0.0.1:{server.port}/0"})

        with pytest.raises(StateStoreError, match=r"NoPermissionError.*grant it what docs/redis\.md lists, on ~ma:\*"):
            reached_so.orchestrator.start(reached.order, {"order": 1})


# --- a cluster ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["broker", "store"])
def test_a_cluster_is_refused_in_words(deploy: Callable[..., Reached], tmp_path: Path, at: str):
    with own_server(tmp_path / "server", config={"cluster-enabled": "yes"}) as server:
        with redis.Redis(port=server.port) as admin:
            admin.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        broker = server.url if at == "broker" else "memory://"
        reached_so = deploy({"broker_url": broker}, None if at == "broker" else server.url)

        with pytest.raises(ConfigurationError, match=r"a node of a Redis Cluster, which cannot keep runs.*sentinel://"):
            reached_so.orchestrator.start(reached.order, {"order": 1})


# --- Sentinels ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with Sentinels(tmp_path) as made:
        yield made


def behind(sentinels: Sentinels) -> dict[str, Any]:
    """Celery's settings for a broker behind Sentinels."""
    login = quote(PASSWORD, safe="")
    return {
        "broker_url": ";".join(f"sentinel://:{login}@127.0.0.1:{port}/0" for port in sentinels.ports),
        "broker_transport_options": {"master_name": MASTER, "sentinel_kwargs": {"password": f"{PASSWORD}-s"}},
        "broker_connection_max_retries": None,
    }


class Customers(threading.Thread):
    """Start runs without a pause, each again with its id until the start is acknowledged."""

    def __init__(self, orchestrator: Any, name: str) -> None:
        super().__init__(daemon=True)
        self.given: dict[str, dict[str, Any]] = {}
        self.over = threading.Event()
        self._orchestrator, self._name = orchestrator, name

    def run(self) -> None:
        """Until told to stop."""
        while not self.over.wait(0.02):
            number = len(self.given)
            identity, given = f"{self._name}-{number}", {"order": number, "refused": number % 3 == 0}
            try:
                self._orchestrator.start(reached.order, given, transaction_id=identity)
            except StateStoreError:
                continue
            self.given[identity] = given


def test_G3_G5_a_master_killed_under_load_is_replaced_by_its_replica_and_every_run_ends(
    deploy: Callable[..., Reached], sentinels: Sentinels
):
    reached_so = deploy(behind(sentinels))
    workers = [reached_so.worker(), reached_so.worker()]
    customers = [Customers(reached_so.orchestrator, name) for name in ("a", "b")]
    first = sentinels.master

    def acknowledged() -> int:
        return sum(len(customer.given) for customer in customers)

    for customer in customers:
        customer.start()
    wait_until(lambda: acknowledged() > 40, SOON, "starts")
    first.kill()
    wait_until(lambda: sentinels.master is not first, SOON, "another master")
    seen = acknowledged()
    wait_until(lambda: acknowledged() > seen + 40, SOON, "starts at the new master")
    for customer in customers:
        customer.over.set()
        customer.join()

    # What had not reached the replica is lost with the master; a start that is repeated with its id brings it back.
    runs = [
        (given, reached_so.orchestrator.start(reached.order, given, transaction_id=identity))
        for customer in customers
        for identity, given in customer.given.items()
    ]
    wait_until(lambda: all(run.status.is_end for _, run in runs), SOON, "the end of all runs")
    ends = {run.transaction_id: str(run.status) for _, run in runs}
    assert ends == {run.transaction_id: "compensated" if given["refused"] else "completed" for given, run in runs}
    assert all(worker.is_running for worker in workers)


def holds_a_message_only_in_memory(reached_so: Reached, port: int, gate: Path) -> bool:
    """Whether a worker that has a step in hand has written nothing of its message to the broker."""
    run = reached_so.orchestrator.start(reached.held, {"gate": str(gate)})
    wait_until(lambda: run.describe().steps["hold"].status == "running", SOON, "a step that runs")
    with redis.Redis(port=port, password=PASSWORD) as admin:
        written = admin.exists("unacked")
    gate.touch()
    run.result(timeout=SOON)
    return not written


def test_a_worker_behind_sentinels_is_lean_after_a_failover_as_before(
    deploy: Callable[..., Reached], sentinels: Sentinels, tmp_path: Path
):
    reached_so = deploy(behind(sentinels))
    worker = reached_so.worker()
    first = sentinels.master
    assert holds_a_message_only_in_memory(reached_so, first.port, tmp_path / "gate-1")

    first.kill()
    wait_until(lambda: sentinels.master is not first, SOON, "another master")

    assert holds_a_message_only_in_memory(reached_so, sentinels.master.port, tmp_path / "gate-2")
    assert worker.is_running


def test_a_worker_at_a_brokers_socket_is_lean(deploy: Callable[..., Reached], tmp_path: Path):
    socket = f"/tmp/multiagents-{os.getpid()}.sock"
    with own_server(tmp_path / "server", password=PASSWORD, config={"unixsocket": socket}) as server:
        reached_so = deploy({"broker_url": f"redis+socket://:{quote(PASSWORD, safe='')}@{socket}?virtual_host=0"})
        reached_so.worker()

        assert holds_a_message_only_in_memory(reached_so, server.port, tmp_path / "gate")


def test_who_is_connected_to_a_master_that_was_demoted_finds_the_new_one(
    deploy: Callable[..., Reached], sentinels: Sentinels
):
    reached_so = deploy(behind(sentinels))
    worker = reached_so.worker()
    assert reached_so.goes_forward_and_back()
    first = sentinels.master

    with sentinels.ask() as sentinel:
        sentinel.execute_command("SENTINEL", "FAILOVER", MASTER)
    wait_until(lambda: sentinels.master is not first, SOON, "another master")
    with redis.Redis(port=first.port, password=PASSWORD, decode_responses=True) as demoted:
        wait_until(lambda: demoted.info("replication")["role"] == "slave", SOON, "the old master as a replica")

    assert reached_so.goes_forward_and_back()
    assert worker.is_running


# --- what is not to be seen -----------------------------------------------------------------------------------------


def test_no_password_is_in_a_report_of_celery_or_in_a_log(deploy: Callable[..., Reached], tmp_path: Path):
    secret = "pa55word"
    with own_server(tmp_path / "server", password=secret) as server:
        url = server.url.removesuffix("/0")
        conf = {
            "broker_url": f"{url}/0",
            "result_backend": f"{url}/0",
            "multiagents_redis_url": f"{url}/0",
            "multiagents_claim_check_store": f"{url}/1",
        }
        reached_so = deploy(conf)
        worker = reached_so.worker()
        assert reached_so.goes_forward_and_back()

        told = reached_so.app.control.inspect(destination=[worker.node], timeout=10)
        seen = {
            "inspect conf": json.dumps(told.conf(with_defaults=True)),
            "inspect stats": json.dumps(told.stats()),
            "report": celery(reached_so, "report"),
            "settings": repr(reached_so.orchestrator.settings),
            "address": repr(reached_so.orchestrator.runtime.address),
            "log": worker.log,
        }

    assert "multiagents_redis_url" in seen["inspect conf"].lower()
    assert "multiagents_redis_url" in seen["report"].lower()
    assert [name for name, text in seen.items() if secret in text] == []


def celery(reached_so: Reached, *command: str) -> str:
    """What a command of Celery prints."""
    argv = [sys.executable, "-m", "celery", "-A", "tests.support.apps.reached", *command]
    env = {name: value for name, value in {**os.environ, **reached_so.environ}.items() if value is not None}
    return subprocess.run(argv, cwd=ROOT, env=env, check=True, capture_output=True, text=True, timeout=60).stdout
