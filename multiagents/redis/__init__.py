"""Clients of a Redis or Valkey, made for its address, and what to do about each kind of error that they raise."""

from multiagents.redis.clients import hasty_client, patient_client
from multiagents.redis.errors import ADVICE, CLIENT_ERRORS, advice, is_configuration, is_refusal
from multiagents.redis.pools import pool_of

__all__ = [
    "ADVICE",
    "CLIENT_ERRORS",
    "advice",
    "hasty_client",
    "is_configuration",
    "is_refusal",
    "patient_client",
    "pool_of",
]
