"""Clients of a Redis or Valkey, made from a URL, and what to do about each kind of error that they raise."""

from multiagents.redis.clients import hasty_client, patient_client, without_password
from multiagents.redis.errors import ADVICE, CLIENT_ERRORS, advice, is_configuration, is_refusal

__all__ = [
    "ADVICE",
    "CLIENT_ERRORS",
    "advice",
    "hasty_client",
    "is_configuration",
    "is_refusal",
    "patient_client",
    "without_password",
]
