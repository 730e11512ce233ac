"""Deployments whose agents ask a stub: one with a warm worker that tests share, and one of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from multiagents.testing.lm_stub import LMStub

pytest.importorskip("dspy")

from tests.support.agents_kit import Agents


@pytest.fixture(scope="session")
def warm_agents(new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    """A deployment with a worker."""
    with LMStub() as stub, Agents(new_redis_url(), tmp_path_factory.mktemp("agents"), stub) as made:
        made.worker()
        yield made


@pytest.fixture
def agents(warm_agents: Agents) -> Iterator[Agents]:
    """The same, with a model that knows nothing and tools that were never called."""
    warm_agents.stub.reset()
    warm_agents.redis.delete("tools", "undone", "crashed", "hold-tools", "steady")
    yield warm_agents
    warm_agents.show()


@pytest.fixture
def own_agents(redis_url: str, tmp_path: Path, lm_stub: LMStub) -> Iterator[Agents]:
    """A deployment of the test's own, whose workers it may kill; it has none yet."""
    with Agents(redis_url, tmp_path, lm_stub) as made:
        yield made
        made.show()
