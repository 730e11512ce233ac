"""Pytest fixtures: servers, workers and a language model to test sagas with.

Ask for it in the ``conftest.py`` at the top of the tests::

    pytest_plugins = ("multiagents.testing.plugin",)

==================  ========  ==========================================================================
fixture             scope     what it is
==================  ========  ==========================================================================
``valkey_server``   session   the Redis or Valkey that all tests share; do not kill it
``new_redis_url``   session   a function: the URL of an empty database of that server
``redis_url``       function  the URL of an empty database
``broker_url``      function  where messages go: ``redis_url``, or a RabbitMQ virtual host
``rabbitmq``        session   a RabbitMQ node
``start_worker``    function  a function: a Celery worker process, ready; see `WorkerStarter`
``crash_server``    function  a server of the test's own, to kill and restart
``lm_stub``         function  a language model on loopback that the test scripts; see `LMStub`
==================  ========  ==========================================================================

The environment variable ``MULTIAGENTS_TEST_SERVER`` chooses the servers: ``valkey`` (the default, which comes along as
a wheel), ``redis`` or ``rabbitmq``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest

from multiagents.embedded import EmbeddedServer
from multiagents.testing.lm_stub import LMStub
from multiagents.testing.servers import DATABASES, RabbitNode, empty_database, new_server, server_kind
from multiagents.testing.worker_process import WorkerProcess


class WorkerStarter(Protocol):
    """Start a Celery worker and wait until it is ready; the fixture ends it after the test.

    It takes the arguments of `WorkerProcess`. The worker finds the test's servers in its environment as
    ``CELERY_BROKER_URL`` and ``MULTIAGENTS_REDIS_URL``, which both win over what its app says. When the test fails,
    the report has the worker's log.
    """

    def __call__(
        self, app: str, *, env: Mapping[str, str | None] | None = None, wait: bool = True, **arguments: Any
    ) -> WorkerProcess:
        """Start it; with ``wait=False``, without waiting until it is ready."""


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The server that all tests share."""
    with new_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def new_redis_url(valkey_server: EmbeddedServer) -> Callable[[], str]:
    """A function that gives the URL of an empty database, another one each time (until all were used)."""
    # Databases are taken in turn, so what a test left running does not write into the next one's.
    numbers = iter(range(1, 1_000_000))

    def next_url() -> str:
        url = urlsplit(valkey_server.url)._replace(path=f"/{next(numbers) % DATABASES}").geturl()
        return empty_database(url)

    return next_url


@pytest.fixture
def redis_url(new_redis_url: Callable[[], str]) -> str:
    """The URL of an empty database."""
    return new_redis_url()


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """A RabbitMQ node; an error where RabbitMQ is not installed."""
    with RabbitNode(tmp_path_factory.mktemp("rabbitmq")) as node:
        yield node


@pytest.fixture
def broker_url(request: pytest.FixtureRequest) -> str:
    """Where messages go: the database of ``redis_url``, or an empty virtual host of RabbitMQ."""
    if server_kind() == "rabbitmq":
        node: RabbitNode = request.getfixturevalue("rabbitmq")
        return node.new_vhost()
    url: str = request.getfixturevalue("redis_url")
    return url


@pytest.fixture
def crash_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A running server of the test's own: ``kill()`` it, ``restart()`` it."""
    with new_server(tmp_path / "crash_server") as server:
        yield server


@pytest.fixture
def lm_stub() -> Iterator[LMStub]:
    """A language model that says what the test tells it to; give its address to ``dspy.LM``, or to workers."""
    with LMStub() as stub:
        yield stub
    # Pytest shows this for a test that failed, and only then.
    for request in stub.requests:
        print(f"LMStub, {'NO REPLY SCRIPTED, ' if request in stub.unscripted else ''}{request}")


@pytest.fixture
def start_worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WorkerStarter]:
    """A function that starts Celery workers: see `WorkerStarter`."""
    workers: list[WorkerProcess] = []

    def start(
        app: str, *, env: Mapping[str, str | None] | None = None, wait: bool = True, **arguments: Any
    ) -> WorkerProcess:
        servers = dict(env or {})
        # Asked for only where needed: a test with a server of its own gives both.
        if "CELERY_BROKER_URL" not in servers:
            servers["CELERY_BROKER_URL"] = request.getfixturevalue("broker_url")
        if "MULTIAGENTS_REDIS_URL" not in servers:
            servers["MULTIAGENTS_REDIS_URL"] = request.getfixturevalue("redis_url")
        arguments.setdefault("cwd", Path.cwd())
        worker = WorkerProcess(app, tmp_path / f"worker-{len(workers) + 1}.log", env=servers, **arguments)
        workers.append(worker)
        worker.start()
        return worker.ready() if wait else worker

    yield start
    for worker in workers:
        worker.kill()
        # Pytest shows this for a test that failed, and only then.
        print(f"--- {worker.node} ({' '.join(worker.argv)}), exit code {worker.returncode}\n{worker.log}")
