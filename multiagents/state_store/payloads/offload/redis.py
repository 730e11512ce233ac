"""Large payloads in a Redis of their own: one with more memory, or less to lose, than the one that holds the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from multiagents.keys import Keys
from multiagents.redis import hasty_client, patient_client

#: Seconds: ninety days.
LIFETIME = 90 * 86_400.0


class RedisPayloadStore:
    """Keep payloads in a Redis or Valkey: a hash for each run.

    Args:
        url: as in `multiagents.address`.
        lifetime: seconds after the last payload of a run was put at which all of them are gone, whatever became of the
            run. It has to be longer than the longest run and its retention.
        keys: the key names; the default has the prefix ``ma``.
        client: a client to use in place of one made for the URL; it must decode responses.

    Nothing connects before the first use.

    >>> RedisPayloadStore("redis://blobs:6379/0", lifetime=30 * 86400).name
    'redis'
    """

    name = "redis"

    def __init__(
        self, url: str, *, lifetime: float = LIFETIME, keys: Keys | None = None, client: redis.Redis | None = None
    ) -> None:
        # redis-py types every command as sync-or-async; Any keeps the casts out of each call.
        self._client: Any = client or patient_client(url)
        # Runs are forgotten by the sweep, which must not stand still while this server is away.
        self._hasty_client: Any = client or hasty_client(url)
        self._lifetime_ms = round(lifetime * 1000)
        self._keys = keys or Keys()

    def put(self, transaction_id: str, payloads: Mapping[str, str]) -> None:
        """Keep payloads of a run, and all it had for as long again."""
        key = self._keys.of_run(transaction_id).blobs
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(key, mapping=dict(payloads))
            pipe.pexpire(key, self._lifetime_ms)
            pipe.execute()

    def get(self, transaction_id: str, names: Sequence[str]) -> Mapping[str, str]:
        """The payloads of a run by name; what is not there is left out."""
        found = self._client.hmget(self._keys.of_run(transaction_id).blobs, list(names))
        return {name: text for name, text in zip(names, found, strict=True) if text is not None}

    def forget(self, transaction_id: str) -> None:
        """Remove all payloads of a run."""
        self._hasty_client.unlink(self._keys.of_run(transaction_id).blobs)
