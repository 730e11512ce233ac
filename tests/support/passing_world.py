"""A world in which runs pass away: their steps run at once, their retention is short, and the test is what sweeps."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import redis
from celery import Celery

from multiagents import init_app
from multiagents.orchestrator.recovery import Sweep
from multiagents.state_store.memory import InMemoryStateStore

#: Seconds for which runs are kept that are over.
RETENTION = 0.3


class PassingWorld:
    """An orchestrator whose steps run at once, one whose steps wait for a worker, and the sweep of a worker.

    Args:
        url: where runs are kept; None: in memory.
        partitions: over how many partitions.
    """

    def __init__(self, url: str | None, partitions: int = 1) -> None:
        self.url = url
        settings: dict[str, Any] = {
            "retention": RETENTION,
            "lease": 1,
            "partitions": partitions,
            "key_prefix": "passing",
        }
        self.apps = []
        for eager in (True, False):
            app = Celery(f"passing-{uuid4().hex[:8]}", broker=url or "memory://", set_as_current=False)
            app.conf.task_always_eager = eager
            self.apps.append(app)
        self.now, self.later = (init_app(app, settings | ({"redis_url": url} if url else {})) for app in self.apps)
        self.client = redis.Redis.from_url(url, decode_responses=True) if url else None
        self.sweep = Sweep(self.now.engine)

    @property
    def store(self) -> Any:
        """Where the runs are kept."""
        return self.now.store

    @property
    def runs(self) -> list[str]:
        """The ids of all runs, as they are listed."""
        return sorted(run.transaction_id for run in self.now.list(limit=1_000))

    def tend(self, seconds: float = RETENTION + 0.3) -> None:
        """Do what is due for a while, as a worker would."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.sweep.tick()
            time.sleep(0.01)

    def tend_until_nothing_is_due(self, seconds: float) -> None:
        """Do what is due until all of it is done, for so long at most."""
        until = time.monotonic() + seconds
        while "due" in self.left() and time.monotonic() < until:
            for _ in range(20):
                time.sleep(min(self.sweep.tick(), 0.02))

    def drain(self, queue: str) -> None:
        """Take all messages out of a queue, as a worker would."""
        if self.client is not None:
            self.client.delete(*(self.client.keys(f"{queue}*") or ["none"]))
        else:
            for name in [each for each in self.store.lists if each.startswith(queue)]:
                del self.store.lists[name]

    def left(self) -> set[str]:
        """What is stored and not empty, by its kind."""
        if self.client is None:
            tables = self.store._tables
            return {name for name, value in vars(tables).items() if isinstance(value, dict | list) and value}
        tags = [part.tag for part in self.now.keys.of_each_partition()]
        numbers = {part.sequence for part in self.now.keys.of_each_partition()}
        keys = [key for key in self.client.keys("*") if key not in numbers or self.client.hkeys(key) != [""]]
        return {key.removeprefix(f"{tag}:") for tag in tags for key in keys if key.startswith(tag)}

    def close(self) -> None:
        """Give everything back."""
        for made in (self.now, self.later):
            made.store.close()
        if self.client is not None:
            self.client.close()
        InMemoryStateStore.shared(keys=self.now.keys).clear()
        for app in self.apps:
            app.close()
