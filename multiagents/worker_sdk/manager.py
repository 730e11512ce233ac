"""Start, stop and look at worker processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from multiagents.exceptions import WorkerError
from multiagents.worker_sdk.registry import Worker, workers


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """What a worker process says of itself.

    Attributes:
        node: its Celery node name.
        alive: whether it answered.
        active: ids of the tasks it runs.
        registered: names of the workers and other tasks it knows.
        queues: the queues it consumes.
    """

    node: str
    alive: bool
    active: tuple[str, ...] = ()
    registered: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()


@dataclass(slots=True)
class _Process:
    node: str
    popen: subprocess.Popen[bytes] = field(repr=False)


class WorkerManager:
    """Run ``celery worker`` processes and ask those that there are how they are.

    Args:
        event_bus: the bus that this program's own part uses; kept for it as ``.event_bus``.
        worker_monitor: kept as ``.worker_monitor``.
        logger: where starts and stops are noted; None is Python's own logging.
    """

    def __init__(self, event_bus: Any = None, worker_monitor: Any = None, logger: Any = None) -> None:
        self.event_bus = event_bus
        self.worker_monitor = worker_monitor
        self.logger = logger if logger is not None else logging.getLogger(__name__)
        self._app: Any = None
        self._processes: list[_Process] = []

    @property
    def registered(self) -> Mapping[str, Worker]:
        """The workers of this process, by name."""
        return MappingProxyType(dict(workers))

    def start(
        self,
        app: Any,
        *,
        pool: str = "prefork",
        concurrency: int | None = None,
        queues: Sequence[str] | None = None,
        loglevel: str = "INFO",
    ) -> str:
        """Start a worker process in the current folder; returns at once, `health` says when it is up.

        Args:
            app: the Celery app, or where it is: ``"celery_app:app"``.
            pool: ``prefork``, ``threads``, ``gevent`` or ``solo``.
            concurrency: how many steps at a time; None is Celery's choice.
            queues: the queues it consumes; None for the app's default.
            loglevel: as for ``celery worker -l``.

        Returns:
            the worker's node name.
        """
        path = app if isinstance(app, str) else _path_of(app)
        node = f"multiagents-{os.getpid()}-{uuid.uuid4().hex[:8]}@localhost"
        command = [sys.executable, "-m", "celery", "-A", path, "worker", "-n", node, "-P", pool, "-l", loglevel]
        command += [] if concurrency is None else ["-c", str(concurrency)]
        command += ["-Q", ",".join(queues)] if queues else []
        self._app = None if isinstance(app, str) else app
        popen = subprocess.Popen(command)  # noqa: S603 - our own interpreter, with the caller's own app
        self._processes.append(_Process(node, popen))
        # One finished sentence: it is all that every kind of logger takes.
        self.logger.info(f"worker {node} started as process {popen.pid}")  # noqa: G004 - as it says
        return node

    def stop(self, timeout: float = 30.0) -> None:
        """Shut down the workers that `start` started: running steps finish first.

        Args:
            timeout: seconds until they are broken off; their steps then count as lost and run again elsewhere.
        """
        processes, self._processes = self._processes, []
        for process in processes:
            process.popen.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                code = process.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                process.popen.send_signal(signal.SIGQUIT)
                try:
                    code = process.popen.wait(5)
                except subprocess.TimeoutExpired:
                    process.popen.kill()
                    code = process.popen.wait()
            self.logger.info(f"worker {process.node} ended with exit code {code}")  # noqa: G004 - as above

    def health(self, app: Any = None, timeout: float = 1.0) -> dict[str, WorkerHealth]:
        """Ask every worker of an app how it is.

        Args:
            app: the Celery app; the one that `start` was given if left out.
            timeout: seconds to wait for answers.

        Returns:
            node name -> health. Workers that `start` started are in it even if they do not answer.
        """
        app = app if app is not None else self._app
        if app is None:
            raise WorkerError("health() needs the Celery app to ask its workers; give it: health(app)")
        inspect = app.control.inspect(timeout=timeout)
        answered = inspect.ping() or {}
        active, registered, queues = inspect.active() or {}, inspect.registered() or {}, inspect.active_queues() or {}
        found = {
            node: WorkerHealth(
                node,
                alive=True,
                active=tuple(task["id"] for task in active.get(node, ())),
                registered=tuple(sorted(registered.get(node, ()))),
                queues=tuple(queue["name"] for queue in queues.get(node, ())),
            )
            for node in answered
        }
        for process in self._processes:
            found.setdefault(process.node, WorkerHealth(process.node, alive=False))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def _path_of(app: Any) -> str:
    """Where an app can be imported from, as ``celery -A`` wants it."""
    for name, module in list(sys.modules.items()):
        if name != "__main__" and module is not None:
            for attribute, value in list(getattr(module, "__dict__", {}).items()):
                if value is app:
                    return f"{name}:{attribute}"
    raise WorkerError(
        f"the Celery app {getattr(app, 'main', app)!r} was not found in an importable module, so no other process can "
        f'load it; put it into a module, or say where it is: start("celery_app:app")'
    )
