"""A master, its replica, and three Sentinels that watch them."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from multiagents.embedded import EmbeddedServer, free_port, valkey_binary
from multiagents.testing import wait_until
from multiagents.testing.servers import server_kind
from multiagents.testing.worker_process import GroupProcess
from tests.support.own_server import own_server

MASTER = "main"
PASSWORD = "pa55:w/rd"


class Sentinels:
    """Servers that take over from each other; all want a password, the Sentinels themselves another one.

    Args:
        folder: where their files go.
    """

    def __init__(self, folder: Path) -> None:
        self._program = "redis-server" if server_kind() == "redis" else str(valkey_binary())
        self.servers = [self._server(folder / "first")]
        self.servers[0].start()
        self.servers.append(self._server(folder / "second", of=self.servers[0].port))
        self.ports = [free_port() for _ in range(3)]
        self._sentinels = [self._sentinel(folder / f"sentinel-{port}", port) for port in self.ports]

    def _server(self, folder: Path, of: int | None = None) -> EmbeddedServer:
        config = {"masterauth": f'"{PASSWORD}"', "repl-diskless-sync-delay": "0"}
        if of is not None:
            config["replicaof"] = f"127.0.0.1 {of}"
        return own_server(folder, password=PASSWORD, config=config)

    def _sentinel(self, folder: Path, port: int) -> GroupProcess:
        folder.mkdir()
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f'dir "{folder}"',
            f'requirepass "{PASSWORD}-s"',
            f'sentinel sentinel-pass "{PASSWORD}-s"',
            f"sentinel monitor {MASTER} 127.0.0.1 {self.servers[0].port} 2",
            f'sentinel auth-pass {MASTER} "{PASSWORD}"',
            f"sentinel down-after-milliseconds {MASTER} 1000",
            f"sentinel failover-timeout {MASTER} 4000",
        ]
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
        argv = [self._program, str(folder / "sentinel.conf"), "--sentinel"]
        return GroupProcess(argv, folder / "sentinel.log", folder)

    def ask(self, number: int = 0) -> redis.Redis:
        """A client of a Sentinel."""
        return redis.Redis(port=self.ports[number], password=f"{PASSWORD}-s", decode_responses=True)

    @property
    def master(self) -> EmbeddedServer:
        """The server that most recently became the master, as the first Sentinel knows it."""
        with self.ask() as sentinel:
            port = int(sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])
        return next(server for server in self.servers if server.port == port)

    @property
    def pids(self) -> list[int]:
        """The processes of all, servers and Sentinels."""
        return [each.pid for each in (*self.servers, *self._sentinels)]

    def _are_ready(self) -> bool:
        for number in range(3):
            with self.ask(number) as sentinel:
                state = sentinel.execute_command("SENTINEL", "MASTER", MASTER)
                facts = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
                if facts["num-other-sentinels"] not in ("2", 2) or facts["num-slaves"] not in ("1", 1):
                    return False
        return True

    def __enter__(self) -> Self:
        self.servers[1].start()
        for sentinel in self._sentinels:
            sentinel.start()
        wait_until(self._answer, 20, "Sentinels that know each other and the replica")
        return self

    def _answer(self) -> bool:
        try:
            return self._are_ready()
        except redis.exceptions.RedisError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for sentinel in self._sentinels:
            sentinel.kill()
        for server in self.servers:
            server.kill()
