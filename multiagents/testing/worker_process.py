"""Processes under test: start one, wait for what it logs, kill it, pause it, look at its children."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

import psutil

from multiagents.embedded import bound_to_parent

__all__ = ["GroupProcess", "WorkerProcess", "wait_until"]

Pool = Literal["prefork", "threads", "gevent", "solo"]
_Found = TypeVar("_Found")

#: Seconds between two looks at a condition.
_LOOK = 0.02
#: The command that a worker is started with.
_CELERY = Path(__file__).with_name("celery_command.py")
_numbers = itertools.count(1)


def wait_until(condition: Callable[[], _Found], timeout: float = 10.0, what: str = "the condition") -> _Found:
    """Look at a condition until it holds, and return what it gave.

    Args:
        condition: called again and again until it returns something true.
        timeout: seconds after which it is given up.
        what: what is waited for, for the error message.

    Raises:
        TimeoutError: when it did not hold in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come about within {timeout:g} s")
        time.sleep(_LOOK)


class GroupProcess:
    """Run a command as the leader of a process group of its own, with its output in a file.

    It is killed, children included, at the end of a ``with`` block; and with the process that started it, whatever
    became of that (on Linux).

    Args:
        argv: the command.
        log_file: where its standard output and error go, appended over restarts.
        cwd: its working directory.
        env: what its environment has on top of ours; None for a value removes the name.
    """

    def __init__(
        self,
        argv: Sequence[str],
        log_file: str | os.PathLike[str],
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str | None] | None = None,
    ) -> None:
        self.argv = list(argv)
        self.log_file = Path(log_file)
        self.cwd = cwd
        self.env = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The leader's process id, also after its end; of one never started: RuntimeError."""
        if self._process is None:
            raise RuntimeError(f"{self.argv[0]} was never started, so it has no pid; call start() first")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the leader is alive, be it paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How the leader ended: its exit code, or minus the signal; None while it runs."""
        return self._process.poll() if self._process else None

    @property
    def log(self) -> str:
        """What it has written since its last start."""
        if not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def start(self) -> Self:
        """Start it, without waiting for anything. Calling it while it runs changes nothing."""
        if self.is_running:
            return self
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                bound_to_parent(self.argv),
                cwd=self.cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def children(self) -> list[int]:
        """Process ids of all its descendants that are alive, oldest first."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child.pid for child in sorted(found, key=lambda child: (child.create_time(), child.pid))]

    def kill(self, *, group: bool = True) -> None:
        """Kill it with SIGKILL and wait until it is gone.

        Args:
            group: with its children, as when the machine is lost; False for the leader alone, as the kernel's
                out-of-memory killer would.
        """
        if group:
            self._signal_group(signal.SIGKILL)
        elif self._process is not None:
            self._process.kill()
        if self._process is not None:
            self._process.wait()

    def kill_child(self, pid: int | None = None) -> int:
        """Kill one child with SIGKILL and wait until it is gone; return its pid.

        Args:
            pid: which one; None for the oldest.

        Raises:
            ValueError: when it has no such child.
        """
        children = self.children()
        if not children or (pid is not None and pid not in children):
            which = "child" if pid is None else f"child {pid}"
            raise ValueError(f"process {self.pid} has no {which} to kill; its children: {children}")
        child = psutil.Process(children[0] if pid is None else pid)
        child.kill()
        wait_until(
            lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE,
            10,
            f"the end of child {child.pid}",
        )
        return child.pid

    def pause(self) -> None:
        """Stop the whole group with SIGSTOP, as a long pause of the machine would, and wait until all of it stands."""
        self._signal_group(signal.SIGSTOP)
        wait_until(lambda: all(map(_stands_still, [self.pid, *self.children()])), 10, f"the pause of {self.pid}")

    def resume(self) -> None:
        """Let a paused group go on."""
        self._signal_group(signal.SIGCONT)

    def stop(self, signum: signal.Signals = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Send the leader a signal, wait for its end and return its exit code (minus the signal that killed it).

        Raises:
            TimeoutError: when it has not ended in time; it still runs then.
        """
        assert self._process is not None, "it was never started"
        if self.is_running:
            self._process.send_signal(signum)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"process {self.pid} did not end within {timeout:g} s of {signum.name}; the end of its log:\n"
                f"{self._tail()}"
            ) from None

    def wait_for_log(self, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """Wait until its log (since its last start) has a match for a regular expression.

        Raises:
            TimeoutError: when there is none in time, or it ended without writing one; with the end of its log.
        """
        deadline = time.monotonic() + timeout
        while True:
            ended = not self.is_running  # Asked first: what it wrote before its end is read below.
            if match := re.search(pattern, self.log):
                return match
            if ended or time.monotonic() > deadline:
                why = f"ended with exit code {self.returncode}" if ended else f"{timeout:g} s have passed"
                raise TimeoutError(f"{pattern!r} is not in {self.log_file}, and {why}; the end of it:\n{self._tail()}")
            time.sleep(_LOOK)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def _signal_group(self, signum: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signum)
        except ProcessLookupError:
            pass  # All of it is gone already.

    def _tail(self) -> str:
        return "\n".join(self.log.splitlines()[-30:])


def _stands_still(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
    except psutil.NoSuchProcess:
        return True


class WorkerProcess(GroupProcess):
    """Run ``celery worker``, as a process that a test may kill.

    ``start()`` does not wait; ``ready()`` does. A ``with`` block does both. Commands that other packages add to
    ``celery``, such as Flower's, are not loaded.

    Args:
        app: what ``-A`` gets: ``"module"`` or ``"module:app"``, found from ``cwd``.
        log_file: where its output goes.
        pool: ``prefork``, ``threads``, ``gevent`` or ``solo``.
        concurrency: how many steps at a time.
        queues: the queues it consumes; None for the app's default.
        name: its node name, before the ``@``; None for one of its own.
        loglevel: ``INFO`` or ``DEBUG``: `ready` reads the log.
        gossip: whether it talks to other workers (gossip and mingle), which slows its start by a second.
        extra: more arguments of ``celery worker``.
        cwd: working directory, and first place for imports.
        env: what its environment has on top of ours, e.g. ``{"CELERY_BROKER_URL": url}``.
    """

    def __init__(
        self,
        app: str,
        log_file: str | os.PathLike[str],
        *,
        pool: Pool = "prefork",
        concurrency: int = 2,
        queues: Sequence[str] | None = None,
        name: str | None = None,
        loglevel: Literal["INFO", "DEBUG"] = "INFO",
        gossip: bool = False,
        extra: Sequence[str] = (),
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str | None] | None = None,
    ) -> None:
        self.node = f"{name or f'w{os.getpid()}-{next(_numbers)}'}@localhost"
        argv = [sys.executable, str(_CELERY), "-A", app, "worker", "-n", self.node, "-l", loglevel, "-P", pool]
        argv += ["-c", str(concurrency)]
        argv += [] if gossip else ["--without-gossip", "--without-mingle"]
        argv += ["-Q", ",".join(queues)] if queues else []
        argv += extra
        super().__init__(argv, log_file, cwd, {"PYTHONUNBUFFERED": "1", **(env or {})})

    def ready(self, timeout: float = 30.0) -> Self:
        """Wait until it consumes.

        Raises:
            TimeoutError: when it is not ready in time, or ended; with the end of its log.
        """
        self.wait_for_log(rf"{re.escape(self.node)} ready\.", timeout)
        return self

    def term(self, timeout: float = 30.0) -> int:
        """Shut it down warm: running steps finish first. Return its exit code."""
        return self.stop(signal.SIGTERM, timeout)

    def quit(self, timeout: float = 30.0) -> int:
        """Shut it down cold: running steps are broken off. Return its exit code."""
        return self.stop(signal.SIGQUIT, timeout)

    def restart(self, timeout: float = 30.0) -> Self:
        """Kill what is left of it, start it again under the same name and wait until it is ready."""
        self.kill()
        return self.start().ready(timeout)

    def __enter__(self) -> Self:
        try:
            return self.start().ready()
        except BaseException:
            self.kill()
            raise
