"""Worlds of one process, on each store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.passing_world import PassingWorld


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
