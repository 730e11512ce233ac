"""A warm worker for each configuration of the matrix: all tests of the rules share it.

``make test`` has prefork with inline orchestration; the seven others are marked ``full`` (``make test-full``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from multiagents.testing import server_kind
from tests.support.scenario import Deployment, Scenario

MATRIX = [
    pytest.param(
        (pool, mode), id=f"{pool}-{mode}", marks=[] if (pool, mode) == ("prefork", "inline") else pytest.mark.full
    )
    for pool in ("prefork", "threads", "gevent", "solo")
    for mode in ("inline", "queued")
]


@pytest.fixture(scope="session", params=MATRIX)
def deployment(
    request: pytest.FixtureRequest,
    new_redis_url: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """A database, a client of it and a warm worker."""
    pool, mode = request.param
    broker = request.getfixturevalue("rabbitmq").new_vhost() if server_kind() == "rabbitmq" else ""
    folder = tmp_path_factory.mktemp("rules")
    with Deployment(new_redis_url(), folder, broker=broker, pool=pool, mode=mode) as made:
        yield made


@pytest.fixture
def rules(request: pytest.FixtureRequest, deployment: Deployment) -> Iterator[Scenario]:
    """What a test of the rules works with; afterwards the invariants of every run it started are checked."""
    scenario = Scenario(deployment, request.node.name)
    yield scenario
    scenario.close()
