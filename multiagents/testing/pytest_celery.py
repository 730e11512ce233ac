"""pytest-celery without Docker: its ``celery_setup`` with processes in place of containers.

In the ``conftest.py`` at the top of the tests::

    pytest_plugins = ("celery.contrib.pytest", "multiagents.testing.plugin", "multiagents.testing.pytest_celery")

Then a test that asks for pytest-celery's ``celery_setup`` gets two Valkey servers (broker and result backend) and a
Celery worker of its own, each a process on loopback; ``worker.kill()``, ``restart()``, ``wait_for_log()`` and the rest
of pytest-celery's interface work on them. Its own fixtures change what runs, e.g. ``default_worker_tasks``.

With ``celery.contrib.pytest`` first in the list, ``celery_worker`` stays Celery's own worker in a thread of the test;
otherwise pytest-celery takes that name for its container. ``celery_setup`` works either way.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestWorker,
    CeleryWorkerCluster,
    CeleryWorkerContainer,
    RedisContainer,
    RedisTestBackend,
    RedisTestBroker,
)

import multiagents
from multiagents.embedded import free_port, valkey_binary
from multiagents.testing.worker_process import GroupProcess

__all__ = ["LocalProc", "LocalRedis", "LocalWorker"]


class LocalProc:
    """Imitate a Docker container, as far as pytest-celery looks at one, with a process.

    Args:
        name: shown in messages.
        argv: the command; ``{id}`` stands for the container's id, its host name.
        folder: its working directory and the place of its log.
        env: what its environment has on top of ours.
        port: where it listens, for those who ask.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        folder: Path,
        env: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.id = uuid4().hex[:12]
        self.name = f"{name}-{self.id}"
        self.folder = folder
        self.port = port
        #: pytest-celery runs "python" and "celery": those of this environment.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        argv = [argument.replace("{id}", self.id) for argument in argv]
        self.process = GroupProcess(argv, folder / f"{self.name}.log", folder, {"PATH": path, **(env or {})})
        self.process.start()
        # Without ports, as nothing is mapped: the vendors below know theirs.
        self.attrs: dict[str, Any] = {
            "NetworkSettings": {"Networks": {"loopback": {"IPAddress": "127.0.0.1"}}, "Ports": {}},
            "HostConfig": {"PortBindings": {}},
            "Config": {"Hostname": self.id, "Env": [f"{key}={value}" for key, value in (env or {}).items()]},
        }

    @property
    def status(self) -> str:
        """``running`` or ``exited``."""
        return "running" if self.process.is_running else "exited"

    def logs(self) -> bytes:
        """What it wrote since its last start."""
        return self.process.log.encode()

    def reload(self) -> None:
        """Do nothing: `status` is never stale."""

    def kill(self, signum: str | int | None = None) -> None:
        """Send a signal: SIGKILL (the default) to the whole group and wait for its end; any other to the leader."""
        number = signal.Signals[signum] if isinstance(signum, str) else signal.Signals(signum or signal.SIGKILL)
        if number == signal.SIGKILL:
            self.process.kill()
        elif self.process.is_running:
            os.kill(self.process.pid, number)

    def restart(self, timeout: float = 10) -> None:
        """Stop it, kill it when that takes too long, and start it again."""
        try:
            self.process.stop(signal.SIGTERM, timeout)
        except TimeoutError:
            pass
        self.process.kill()
        self.process.start()

    def exec_run(self, command: str | Sequence[str]) -> tuple[int, bytes]:
        """Run a command in its folder and environment."""
        argv = shlex.split(command) if isinstance(command, str) else list(command)
        done = subprocess.run(
            argv,
            check=False,
            cwd=self.folder,
            env=self.process.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
        )
        return done.returncode, done.stdout


class LocalRedis(RedisContainer):  # type: ignore[misc]  # pytest-celery has no types
    """pytest-celery's Redis, as a Valkey process on a port of its own."""

    @classmethod
    def run(cls, name: str, folder: Path) -> LocalRedis:
        """Start one."""
        port = free_port()
        argv = [str(valkey_binary()), *cls.command()[1:], "--bind", "127.0.0.1", "--port", str(port)]
        return cls(LocalProc(name, argv, folder, port=port))

    @property
    def hostname(self) -> str:
        """Loopback: there is no network of containers."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._container.port)

    @property
    def url(self) -> str:
        """The URL for workers: the same as for the test itself."""
        return str(self.host_url)

    @property
    def host_url(self) -> str:
        """The URL for the test."""
        return f"{self.prefix()}127.0.0.1:{self.port}/{self.vhost}"

    def teardown(self) -> None:
        """End its process."""
        self._container.process.kill()


class LocalWorker(CeleryWorkerContainer):  # type: ignore[misc]  # pytest-celery has no types
    """pytest-celery's worker, as a process of this Python environment."""

    @classmethod
    def run(
        cls, command: Sequence[str], content: Mapping[str, Any], env: Mapping[str, str], folder: Path
    ) -> LocalWorker:
        """Write the files that pytest-celery generated into a folder and start the worker there."""
        for name, text in content.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
        # What pytest-celery has here is a folder of its image. The worker needs this library, installed or not.
        places = [str(folder), str(Path(multiagents.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        env = {**env, "PYTHONPATH": os.pathsep.join(place for place in places if place)}
        argv = [sys.executable, "-m", *(argument.replace("%h", "{id}") for argument in command)]
        return cls(LocalProc("worker", argv, folder, env))

    @property
    def process(self) -> GroupProcess:
        """Its process, to kill a child of it or to pause it."""
        found: GroupProcess = self._container.process
        return found

    def teardown(self) -> None:
        """End its process and its children."""
        self.process.kill()


@pytest.fixture
def default_redis_broker(tmp_path: Path) -> Iterator[LocalRedis]:
    """The broker's server."""
    server = LocalRedis.run("broker", tmp_path)
    yield server
    server.teardown()


@pytest.fixture
def default_redis_backend(tmp_path: Path) -> Iterator[LocalRedis]:
    """The result backend's server."""
    server = LocalRedis.run("backend", tmp_path)
    yield server
    server.teardown()


@pytest.fixture
def celery_broker_cluster(celery_redis_broker: RedisTestBroker) -> CeleryBrokerCluster:
    """Redis alone: pytest-celery would run each test on RabbitMQ, too."""
    return CeleryBrokerCluster(celery_redis_broker)


@pytest.fixture
def celery_backend_cluster(celery_redis_backend: RedisTestBackend) -> CeleryBackendCluster:
    """Redis alone."""
    return CeleryBackendCluster(celery_redis_backend)


@pytest.fixture
def celery_worker_cluster(celery_setup_worker: CeleryTestWorker) -> CeleryWorkerCluster:
    """One worker, by its own name: ``celery_worker`` may be that of ``celery.contrib.pytest``."""
    return CeleryWorkerCluster(celery_setup_worker)


@pytest.fixture
def default_worker_container_cls() -> type[LocalWorker]:
    """The class that pytest-celery asks for commands, files and environment."""
    return LocalWorker


@pytest.fixture(scope="session")
def default_worker_container_session_cls() -> type[LocalWorker]:
    """As above, for the whole session."""
    return LocalWorker


@pytest.fixture
def default_worker_container(
    default_worker_command: list[str],
    default_worker_initial_content: dict[str, bytes],
    default_worker_env: dict[str, str],
    tmp_path: Path,
) -> Iterator[LocalWorker]:
    """The worker."""
    folder = tmp_path / "worker"
    worker = LocalWorker.run(default_worker_command, default_worker_initial_content, default_worker_env, folder)
    yield worker
    worker.teardown()
