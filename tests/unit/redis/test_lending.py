"""What lending adds to the connections of redis-py, whichever of its releases is installed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from multiagents.address import Address
from multiagents.redis import pool_of, pooled


@pytest.fixture
def nobody() -> Iterator[str]:
    """The address of a server that is down: the port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}/0"


@pytest.mark.parametrize("retries", [0, 1, 6])
def test_who_finds_nobody_listening_tries_again_as_often_as_the_client_says(nobody: str, retries: int):
    tried = []

    class Counting(redis.Connection):
        def _connect(self) -> Any:
            tried.append(1)
            return super()._connect()

    template = pool_of(Address.parse(nobody), retry=Retry(NoBackoff(), retries))
    template.connection_class = Counting
    client = pooled(template, 1.0)

    with pytest.raises(redis.exceptions.ConnectionError):
        client.ping()

    assert len(tried) == retries + 1
