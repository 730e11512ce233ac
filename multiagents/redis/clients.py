"""Clients of a Redis or Valkey, made from a URL."""

from __future__ import annotations

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

#: Seconds a call may take before it is sent again; every script may be sent twice.
SOCKET_TIMEOUT = 5.0
#: How often a call is sent again while the server does not answer (about ten seconds in all).
RETRIES = 6
#: Seconds a call of the sweep may take; it is not sent again before the next tick.
SWEEP_TIMEOUT = 1.0


def patient_client(url: str) -> redis.Redis:
    """A client that tries again for a while when the server does not answer."""
    return _client(url, SOCKET_TIMEOUT, Retry(ExponentialBackoff(base=0.05, cap=2.0), RETRIES))


def hasty_client(url: str) -> redis.Redis:
    """A client that gives up at once."""
    return _client(url, SWEEP_TIMEOUT, Retry(NoBackoff(), 0))


def _client(url: str, timeout: float, retry: Retry) -> redis.Redis:
    return redis.Redis.from_url(
        url, decode_responses=True, socket_timeout=timeout, socket_connect_timeout=timeout, retry=retry
    )


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    head, at, tail = url.rpartition("@")
    return f"{head.split('://')[0]}://***@{tail}" if at else url
