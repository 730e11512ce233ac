"""What an example needs around it: a Valkey of its own and a real Celery worker, for as long as the example runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

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
    """``celery -A celery_app worker`` with two prefork children, as a process group of its own.

    Args:
        folder: where its log goes.
    """

    def __init__(self, folder: Path) -> None:
        self.log_file = folder / "worker.log"
        command = ["-m", "celery", "-A", "celery_app", "worker", "--pool=prefork", "--concurrency=2"]
        command += ["--loglevel=INFO", "--without-gossip", "--without-mingle", "--hostname=demo@localhost"]
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                bound_to_parent([sys.executable, *command]),
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
        """All that it logged."""
        return self.log_file.read_text(errors="replace")

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, indented."""
        return "\n".join(f"  {line}" for line in self.log().splitlines()[-lines:])

    def stop(self) -> None:
        """Stop it: first kindly, then the whole group with SIGKILL, so that no child is left behind."""
        if self.is_running:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def own_stage(folder: Path, environ: Mapping[str, str]) -> Iterator[WorkerProcess]:
    """Run a Valkey and a worker on it; both are gone when the block ends, however it ends.

    This process gets the same environment, so that ``celery_app``, imported after this, talks to the same Valkey.

    Args:
        folder: where the data and the logs go.
        environ: settings for this process and for the worker.
    """
    with EmbeddedServer(folder / "valkey") as server:
        # The store is named too: a setting from outside must not send these runs elsewhere.
        os.environ.update({**environ, BROKER: server.url, STORE: server.url})
        worker = WorkerProcess(folder)
        try:
            worker.wait_until_ready()
            yield worker
        finally:
            worker.stop()


def end_on_sigterm() -> None:
    """Make SIGTERM unwind this process as Ctrl-C does, so that what it started is stopped."""

    def leave(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, leave)
