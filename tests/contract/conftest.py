"""What the contract tests share: a real server, and a state store of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from multiagents.keys import Keys
from tests.support.store_kit import MemoryKit, RedisKit, StoreKit


@pytest.fixture(params=["memory", "redis", "redis-3-partitions"])
def kit(request: pytest.FixtureRequest) -> Iterator[StoreKit]:
    """A state store of each kind; every test has an empty one."""
    made: StoreKit
    if request.param == "memory":
        made = MemoryKit(Keys())
    else:
        keys = Keys(partitions=3) if request.param.endswith("partitions") else Keys()
        made = RedisKit(request.getfixturevalue("new_redis_url")(), keys)
    yield made
    made.close()


@pytest.fixture
def kit_in_memory() -> StoreKit:
    """The store in memory, whose time the test moves."""
    return MemoryKit(Keys())


@pytest.fixture
def redis_kit(new_redis_url: Callable[[], str]) -> Iterator[RedisKit]:
    """The store on Redis, over three partitions."""
    made = RedisKit(new_redis_url(), Keys(partitions=3))
    yield made
    made.close()
