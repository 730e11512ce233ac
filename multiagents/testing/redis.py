"""What the test kit asks of Redis itself."""

from __future__ import annotations

from contextlib import closing

import redis

__all__ = ["flush"]


def flush(url: str) -> None:
    """Empty the database of this URL."""
    with closing(redis.Redis.from_url(url)) as client:
        client.flushdb()
