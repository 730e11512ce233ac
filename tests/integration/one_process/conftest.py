"""Worlds of one process, on each store; and one in memory that runs everything on the spot.

A file that needs more of that has an ``orchestrator`` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from multiagents import Orchestrator
from tests.support.one_process import one_process
from tests.support.passing_world import PassingWorld


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    """Whoever starts a run there has it run to where it waits."""
    with one_process() as made:
        yield made


@pytest.fixture(params=["inline", "queued"])
def in_each_mode(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    """The same, once for each mode of orchestration."""
    with one_process(multiagents_orchestration=request.param) as made:
        yield made


@pytest.fixture(params=["memory", "redis", "redis-3-partitions"])
def passing_world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[PassingWorld]:
    """Runs pass away in it, on each store."""
    monkeypatch.delenv("MULTIAGENTS_REDIS_URL", raising=False)
    url = None if request.param == "memory" else request.getfixturevalue("new_redis_url")()
    made = PassingWorld(url, 3 if request.param.endswith("partitions") else 1)
    yield made
    made.close()


@pytest.fixture
def redis_world(new_redis_url: Callable[[], str]) -> Iterator[PassingWorld]:
    """The same, on Redis."""
    made = PassingWorld(new_redis_url())
    yield made
    made.close()
