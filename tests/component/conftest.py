"""An orchestrator on a store of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from celery import Celery

from multiagents import Orchestrator
from multiagents.state_store.records import Commit


@pytest.fixture(params=["memory", "redis", "redis-3-partitions"])
def orchestrator(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    """An orchestrator on a store of each kind; no worker runs, so nothing goes on by itself."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("new_redis_url")()
    partitions = 3 if request.param.endswith("partitions") else 1
    app = Celery("starting", broker=url, set_as_current=False)
    settings = {"partitions": partitions, "key_prefix": f"t{uuid4().hex[:8]}"}
    made = Orchestrator(app, settings)
    yield made
    made.store.close()


@pytest.fixture
def end_run(orchestrator: Orchestrator) -> Callable[..., None]:
    """Ends a run as if its workers had."""

    def end(identity: str, status: str = "completed") -> None:
        seen = orchestrator.store.load(identity)
        orchestrator.store.commit(
            Commit(
                identity,
                [],
                header={"status": status, "finished": "1"},
                moved=(seen.definition.name, seen.state.status.value, status),
                retention_ms=60_000,
                version=seen.version,
                nonce=seen.state.nonce,
                ends=[(step, entry.record) for step, entry in seen.in_flight.items()],
            )
        )

    return end
