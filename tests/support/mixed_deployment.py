"""A deployment of `apps.mixed`: its client in this process, and worker processes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import redis

from multiagents.testing import GroupProcess, WorkerProcess, wait_until
from tests.support import ROOT
from tests.support.apps import mixed
from tests.support.due import unfinished

#: Losses are found soon; longer than any pause that a busy test machine makes.
SETTINGS = {"lease": 2.0, "sweep_interval": 0.3}


class MixedDeployment:
    """A client and the workers it talks to.

    Args:
        folder: where logs go.
        broker: where messages go.
        store: where runs and results live.
        conf: Celery settings of the app, here and in the workers.
        settings: settings of the library, here and in the workers.
    """

    def __init__(
        self, folder: Path, broker: str, store: str, conf: Mapping[str, Any] | None = None, **settings: Any
    ) -> None:
        self.folder = folder
        self.broker = broker
        self.store_url = store
        self.conf = dict(conf or {})
        self.settings = {**SETTINGS, **settings}
        self.app = mixed.make_app(broker, store, self.conf, **self.settings)
        self.orchestrator = self.app.multiagents
        self.redis = redis.Redis.from_url(store, decode_responses=True, socket_timeout=40)
        self.processes: list[GroupProcess] = []

    @property
    def environ(self) -> dict[str, str | None]:
        """What a process of this deployment has in its environment."""
        return {
            "CELERY_BROKER_URL": self.broker,
            "MULTIAGENTS_REDIS_URL": self.store_url,
            "MULTIAGENTS_TEST_CONF": json.dumps(self.conf),
            "PYTHONPATH": str(ROOT),
            **{f"MULTIAGENTS_{name.upper()}": str(value) for name, value in self.settings.items()},
        }

    def start_worker(
        self, *, env: Mapping[str, str | None] | None = None, wait: bool = True, **arguments: Any
    ) -> WorkerProcess:
        """Start a worker; the end of this deployment ends it."""
        log = self.folder / f"worker-{len(self.processes) + 1}.log"
        worker = WorkerProcess(
            "tests.support.apps.mixed", log, cwd=ROOT, env={**self.environ, **(env or {})}, **arguments
        )
        self.processes.append(worker)
        worker.start()
        return worker.ready() if wait else worker

    def run_celery(self, *arguments: str) -> GroupProcess:
        """Start another command of Celery: beat, flower."""
        argv = [sys.executable, "-m", "celery", "-A", "tests.support.apps.mixed", *arguments]
        process = GroupProcess(argv, self.folder / f"{arguments[0]}.log", ROOT, self.environ)
        self.processes.append(process)
        return process.start()

    @property
    def nodes(self) -> list[str]:
        """The nodes of its workers; who asks them by name need not wait for others to answer."""
        return [process.node for process in self.processes if isinstance(process, WorkerProcess)]

    def inspect(self) -> Any:
        """Celery's remote control of its workers."""
        return self.app.control.inspect(destination=self.nodes, timeout=5)

    def seen(self, task: str, count: int = 0, timeout: float = 15.0) -> list[dict[str, Any]]:
        """What the runs of a task noted; waits until there are ``count`` of them."""
        key = f"seen:plain.{task}"
        if count:
            wait_until(lambda: self.redis.llen(key) >= count, timeout, f"{count} runs of {task}")
        return [json.loads(entry) for entry in self.redis.lrange(key, 0, -1)]

    def wait_for_gate(self, name: str, timeout: float = 15.0) -> None:
        """Wait until a task waits there."""
        wait_until(lambda: name in self.redis.lrange("waiting", 0, -1), timeout, f"a task at gate {name}")

    def open_gate(self, name: str, times: int = 1) -> None:
        """Let waiting tasks go on, or those that will come."""
        self.redis.rpush(f"gate:{name}", *["go"] * times)

    def forget_seen(self) -> None:
        """Empty what was noted."""
        for key in self.redis.keys("seen:*"):
            self.redis.delete(key)
        self.redis.delete("waiting")

    def length(self, queue: str = "celery") -> int:
        """How many messages wait in a queue, on any broker."""
        with self.app.connection_for_read() as connection, suppress(Exception):
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
        return 0

    def purge(self, queue: str = "celery") -> int:
        """Lose what waits in a queue."""
        with self.app.connection_for_write() as connection:
            return int(connection.default_channel.queue_purge(queue))

    def nothing_is_left(self) -> bool:
        """Whether no run is unattended, and nothing is due but the end of what is kept of finished runs."""
        store = self.orchestrator.store
        left = [entry for key in self.redis.keys("*:due") for entry in self.redis.zrange(key, 0, -1)]
        return store.visibility.unattended() == [] and unfinished(left) == []

    def close(self) -> None:
        """End all processes; what they wrote is in the report of a failed test."""
        for process in self.processes:
            process.kill()
            print(f"--- {' '.join(process.argv[1:])}, exit code {process.returncode}\n{process.log[-6000:]}")
        self.app.close()
        self.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


@contextmanager
def receiving(signal: Any, receiver: Any) -> Any:
    """Connect a receiver to one of Celery's signals, for a while."""
    signal.connect(receiver)
    try:
        yield receiver
    finally:
        signal.disconnect(receiver)
