"""Servers for the tests: which Redis to run, and a RabbitMQ node of one's own."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from multiagents.embedded import EmbeddedServer, free_port
from multiagents.exceptions import ConfigurationError
from multiagents.redis import patient_client
from multiagents.testing.worker_process import GroupProcess

__all__ = ["RabbitNode", "empty_database", "new_server", "server_kind"]

#: Names the server the tests run against.
SERVER_VARIABLE = "MULTIAGENTS_TEST_SERVER"
SERVER_KINDS = ("valkey", "redis", "rabbitmq")
#: Each test gets a database of its own, in turn.
DATABASES = 256

#: Where packages put RabbitMQ's own scripts. Debian's /usr/sbin/rabbitmq-server changes the user, and with it the home.
_RABBITMQ_PLACES = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")


def server_kind(environ: Mapping[str, str] = os.environ) -> str:
    """What ``MULTIAGENTS_TEST_SERVER`` asks for.

    ``valkey`` (the default) is the embedded one; ``redis`` the ``redis-server`` on the path; ``rabbitmq`` keeps the
    runs in the embedded Valkey and sends messages through a RabbitMQ node.

    Raises:
        ConfigurationError: when it names none of them.
    """
    kind = environ.get(SERVER_VARIABLE) or SERVER_KINDS[0]
    if kind not in SERVER_KINDS:
        raise ConfigurationError(f"{SERVER_VARIABLE} must be one of {', '.join(SERVER_KINDS)}, got {kind!r}")
    return kind


def new_server(data_dir: str | os.PathLike[str]) -> EmbeddedServer:
    """Make (and do not start) the Redis or Valkey that the tests run against, with many databases."""
    executable = "redis-server" if server_kind() == "redis" else None
    return EmbeddedServer(data_dir, executable=executable, config={"databases": str(DATABASES)})


def empty_database(url: str) -> str:
    """Remove all that is in the database of this URL, and return the URL."""
    with closing(patient_client(url)) as client:
        client.flushdb()
    return url


class RabbitNode:
    """Run a RabbitMQ node of one's own on loopback, as Debian's ``rabbitmq-server`` package provides it.

    Erlang's name server, ``epmd``, is started with it where none runs, is shared by all nodes of the machine and stays.

    Args:
        data_dir: where all its files go.

    >>> with RabbitNode("/tmp/rabbit") as rabbit:  # doctest: +SKIP
    ...     rabbit.new_vhost()
    'amqp://guest:guest@127.0.0.1:41327/test-1'
    """

    def __init__(self, data_dir: str | os.PathLike[str]) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.port = free_port()
        self._node = f"multiagents-{self.port}@localhost"
        self._vhosts = itertools.count(1)
        files = {
            "HOME": ".",
            "RABBITMQ_CONFIG_FILE": "rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "plugins",
            "RABBITMQ_FEATURE_FLAGS_FILE": "feature_flags",
            "RABBITMQ_LOG_BASE": "log",
            "RABBITMQ_MNESIA_BASE": "mnesia",
            "RABBITMQ_PID_FILE": "pid",
        }
        env = {name: str(self.data_dir / file) for name, file in files.items()}
        env |= {
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
        }
        self._process = GroupProcess(
            [_rabbitmq_program("rabbitmq-server")], self.data_dir / "server.log", self.data_dir, env
        )

    @property
    def url(self) -> str:
        """URL of its default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def new_vhost(self) -> str:
        """Make an empty virtual host and return its URL."""
        name = f"test-{next(self._vhosts)}"
        self.control("add_vhost", name)
        self.control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{name}"

    def start(self, timeout: float = 90.0) -> Self:
        """Start it and wait until it takes connections."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._process.start().wait_for_log(r"completed with \d+ plugins", timeout)
        return self

    def stop(self) -> None:
        """Stop it; its data stays."""
        if self._process.is_running:
            self._process.stop(signal.SIGTERM, 60)
        self._process.kill()

    def kill(self) -> None:
        """Kill it with SIGKILL, as a crash would."""
        self._process.kill()

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on it and return what it printed."""
        done = subprocess.run(
            [_rabbitmq_program("rabbitmqctl"), "--quiet", "-n", self._node, *arguments],
            check=False,
            env=self._process.env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(
                f"rabbitmqctl {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done.stdout

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _rabbitmq_program(name: str) -> str:
    program = shutil.which(name, path=os.pathsep.join(_RABBITMQ_PLACES)) or shutil.which(name)
    if program is None:
        raise ConfigurationError(f"{name} was not found; install RabbitMQ: apt-get install rabbitmq-server")
    return program
