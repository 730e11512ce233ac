"""What the tests of agents work with: a store, an orchestrator in this process, and workers whose model is a stub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import pytest
import redis

from multiagents.testing import WorkerProcess
from multiagents.testing.lm_stub import LMStub
from tests.support.apps import agents
from tests.support.scenario import start_worker


class Agents:
    """A store, an orchestrator in this process, and workers beside it."""

    def __init__(self, url: str, folder: Path, stub: LMStub, app: str = agents.__name__, **settings: Any) -> None:
        self.url = url
        self.settings = settings
        self._app = app
        self.stub = stub
        self.app = agents.make_app(url, **settings)
        self.orchestrator = self.app.multiagents
        self.redis = redis.Redis.from_url(url, decode_responses=True)
        self.workers: list[WorkerProcess] = []
        #: what the MCP server of these agents was asked
        self.seen = folder / "seen"
        self._folder = folder

    def with_settings(self, **settings: Any) -> Any:
        """An orchestrator with settings of its own, for what a run has from its start."""
        return agents.make_app(self.url, **settings).multiagents

    def worker(self, pool: str = "prefork", **options: Any) -> WorkerProcess:
        """Start a worker, and wait until it takes steps."""
        log = self._folder / f"worker-{len(self.workers) + 1}.log"
        options = {**agents.SETTINGS, "concurrency": 2, **self.settings, **options}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(agents.API_BASE, self.stub.openai_base)
            patch.setenv("MCP_SEEN", str(self.seen))
            started = start_worker(self.url, log, pool=pool, app=self._app, **options)
        self.workers.append(started)
        started.ready()
        return started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for worker in self.workers:
            worker.kill()
        self.redis.close()

    def show(self) -> None:
        """Print what pytest shows of a test that failed."""
        for request in self.stub.requests:
            print(f"LMStub, {request}")
        for worker in self.workers:
            print(f"--- {worker.node}\n{worker.log[-20_000:]}")

    def tools(self) -> list[str]:
        """The calls of tools that were begun."""
        return [entry.partition("|")[0] for entry in self.redis.lrange("tools", 0, -1)]

    def undone(self) -> list[dict[str, Any]]:
        """What compensations of tools, and of their agent, were told."""
        return [json.loads(entry) for entry in self.redis.lrange("undone", 0, -1)]

    def keys(self) -> list[str]:
        """Their idempotency keys."""
        return [entry.partition("|")[2] for entry in self.redis.lrange("tools", 0, -1)]
