"""What an example needs around it: a Valkey of its own and a real Celery worker, for as long as the example runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from rich.console import Console

from multiagents.embedded import EmbeddedServer, bound_to_parent

#: Where `celery_app` finds its broker; an example that finds one there starts no server.
BROKER = "CELERY_BROKER_URL"
#: The setting that says where the state of runs is kept, when that is not the broker.
STORE = "MULTIAGENTS_REDIS_URL"
#: Seconds that a worker may take until it is ready, and until it has stopped.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 5.0


class StageError(Exception):
    """The worker of an example did not come up."""


class WorkerProcess:
    """``celery -A celery_app worker`` with prefork children, as a process group of its own.

    Args:
        folder: where its log goes.
        concurrency: how many children it has.
    """

    def __init__(self, folder: Path, concurrency: int = 2) -> None:
        self.log_file = folder / "worker.log"
        self._command = ["-m", "celery", "-A", "celery_app", "worker", "--pool=prefork"]
        self._command += [f"--concurrency={concurrency}", "--loglevel=INFO", "--hostname=demo@localhost"]
        self._command += ["--without-gossip", "--without-mingle"]
        self.log_file.unlink(missing_ok=True)
        self.start()

    def start(self) -> None:
        """Start it, or another one in its place when it was killed; the log goes on."""
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                bound_to_parent([sys.executable, *self._command]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal reaches the example, which then stops its worker.
            )

    @property
    def pid(self) -> int:
        """The process id of the parent, which is also the id of the group."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the parent is alive."""
        return self._process.poll() is None

    def owns(self, pid: int) -> bool:
        """Whether a process is one of this worker's pool children."""
        try:
            return pid != self.pid and os.getpgid(pid) == self.pid
        except ProcessLookupError:
            return False

    def wait_until_ready(self) -> None:
        """Return when the worker takes work.

        Raises:
            StageError: when it ends or does not get there in time; with the last lines of its log.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while " ready." not in self.log():
            if not self.is_running or time.monotonic() > deadline:
                raise StageError(f"the Celery worker did not come up; the end of {self.log_file}:\n{self.log_tail()}")
            time.sleep(0.05)

    def log(self) -> str:
        """All that it logged since its last start."""
        return self.log_file.read_bytes()[self._log_start :].decode(errors="replace")

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, indented."""
        return "\n".join(f"  {line}" for line in self.log().splitlines()[-lines:])

    def kill(self) -> None:
        """Kill the whole group with SIGKILL, as when its machine is lost."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Stop it: first kindly, then the whole group with SIGKILL, so that no child is left behind."""
        if self.is_running:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)
        self.kill()


@contextmanager
def own_stage(folder: Path, environ: Mapping[str, str], concurrency: int = 2) -> Iterator[WorkerProcess]:
    """Run a Valkey and a worker on it; both are gone when the block ends, however it ends.

    This process gets the same environment, so that ``celery_app``, imported after this, talks to the same Valkey.

    Args:
        folder: where the data and the logs go.
        environ: settings for this process and for the worker.
        concurrency: how many children the worker has.
    """
    with EmbeddedServer(folder / "valkey") as server:
        # The store is named too: a setting from outside must not send these runs elsewhere.
        os.environ.update({**environ, BROKER: server.url, STORE: server.url})
        worker = WorkerProcess(folder, concurrency)
        try:
            worker.wait_until_ready()
            yield worker
        finally:
            worker.stop()


@contextmanager
def own_folder(data: Path, name: str) -> Iterator[Path]:
    """Give an example an empty folder that nobody else uses; its files stay there until the next time.

    Raises:
        StageError: when the same example runs there already.
    """
    data.mkdir(parents=True, exist_ok=True)
    with (data / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageError(
                f"another {name} runs in {data}; wait for its end, or choose another folder with --data"
            ) from None
        folder = (data / name).resolve()
        # Runs of an example that was broken off would go on here, in a world that never heard of them.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder


def new_console() -> Console:
    """A console that is wide enough for the pictures where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def end_on_sigterm() -> None:
    """Make SIGTERM unwind this process as Ctrl-C does, so that what it started is stopped."""

    def leave(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)
