"""Clients of a Redis or Valkey, made for its address, and what to do about each kind of error that they raise."""

from multiagents.redis.clients import PATIENCE, hasty_client, patient_client
from multiagents.redis.errors import (
    ADVICE,
    CLIENT_ERRORS,
    ELSEWHERE,
    FULL,
    advice,
    is_configuration,
    is_refusal,
    says_elsewhere,
)
from multiagents.redis.lending import Client, Pool, listening, pooled, socket_of
from multiagents.redis.pools import pool_of

__all__ = [
    "ADVICE",
    "CLIENT_ERRORS",
    "ELSEWHERE",
    "FULL",
    "PATIENCE",
    "Client",
    "Pool",
    "advice",
    "hasty_client",
    "is_configuration",
    "is_refusal",
    "listening",
    "patient_client",
    "pool_of",
    "pooled",
    "says_elsewhere",
    "socket_of",
]
