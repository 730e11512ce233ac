"""Clients of a Redis or Valkey, made for its address."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from multiagents.address import Address
from multiagents.redis.errors import ELSEWHERE
from multiagents.redis.lending import Client, pooled
from multiagents.redis.patience import Patience
from multiagents.redis.pools import pool_of

#: Seconds a call may take before it is sent again, unless the address says another; every script may be sent twice.
SOCKET_TIMEOUT = 5.0
#: How often a call is sent again while the server does not answer ...
RETRIES = 6
#: ... and after how many seconds it is not any more: then it ends with the attempt that is under way.
GIVE_UP = 10.0
#: Seconds a call may have to wait for a connection before that.
PATIENCE = 30.0
#: Seconds a call of the sweep may take; it is not sent again before the next tick.
SWEEP_TIMEOUT = 1.0
_TRIED_AGAIN = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, *ELSEWHERE)


def patient_client(address: Address | str) -> Client:
    """A client that tries again for a while when the server does not answer, or is not the master any more."""
    found = _read(address)
    limits = {
        "socket_timeout": found.options.get("socket_timeout", SOCKET_TIMEOUT),
        "socket_connect_timeout": found.options.get("socket_connect_timeout", SOCKET_TIMEOUT),
    }
    retry = Patience(ExponentialBackoff(base=0.05, cap=2.0), RETRIES, GIVE_UP, _TRIED_AGAIN)
    return _client(found, retry, PATIENCE, **limits)


def hasty_client(address: Address | str) -> Client:
    """A client that gives up at once."""
    limits = {"socket_timeout": SWEEP_TIMEOUT, "socket_connect_timeout": SWEEP_TIMEOUT}
    return _client(_read(address), Retry(NoBackoff(), 0), SWEEP_TIMEOUT, **limits)


def _client(address: Address, retry: Retry, patience: float, **arguments: Any) -> Client:
    return pooled(pool_of(address, retry=retry, decode_responses=True, **arguments), patience)


def _read(address: Address | str) -> Address:
    return Address.parse(address).checked("the URL") if isinstance(address, str) else address
