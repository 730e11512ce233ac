"""Locks on business keys, and limits by key, in Redis: a few keys of their own, in the partition of the key."""

from __future__ import annotations

from functools import partial
from typing import Any

from multiagents.failpoints import WriteSite, write
from multiagents.keys import Keys
from multiagents.names import Correlation, Direction
from multiagents.state_store.isolation import APART_MS, AWAY_MS, LOCK_CHECK_MS, Isolation, Lock, Slot
from multiagents.state_store.records import DueKind
from multiagents.state_store.redis.script_server import ScriptServer


class RedisIsolation(Isolation):
    """Keep runs out of each other's way.

    Args:
        server: runs the scripts.
        keys: the key names.
        lease_ms: how long a slot is kept for an attempt that does not ask again.
    """

    def __init__(self, server: ScriptServer, keys: Keys, lease_ms: int) -> None:
        self._server = server
        self._client: Any = server.client
        self._keys = keys
        self._lease_ms = lease_ms

    def lock(self, key: str, holder: str, *, lease_ms: int = 0, asking_ms: int, over: int = 0) -> Lock:
        part = self._keys.of_key(key)
        keys = [part.lock(key), part.lock_line(key), part.lock_asking(key), part.meta, part.due]
        args = [DueKind.LOCK.entry(key), holder, lease_ms, asking_ms, over, LOCK_CHECK_MS, self._lease_ms]
        granted, now, token, held_by, place = self._server.run(WriteSite.LOCK, "lock", keys, args)
        self._server.heard(now)
        return Lock(granted == 1, int(token), held_by, place)

    def unlock(self, key: str, token: int) -> bool:
        part = self._keys.of_key(key)
        keys = [part.lock(key), part.due]
        return bool(self._server.run(WriteSite.UNLOCK, "unlock", keys, [DueKind.LOCK.entry(key), token])[0])

    def lock_of(self, key: str) -> Lock | None:
        read = partial(self._client.hmget, self._keys.of_key(key).lock(key), ["token", "holder", "until"])
        token, holder, until = self._server.call(read)
        return None if token is None else Lock(False, int(token), holder, until_ms=int(until))

    def take_slot(
        self,
        key: str,
        correlation: Correlation,
        *,
        concurrency: int = 0,
        every_us: int = 0,
        pause_ms: int = 0,
        keep: bool = False,
        call: str = "",
        weight: int = 1,
    ) -> Slot:
        part = self._keys.of_key(key)
        keys = [part.slots(key), part.next_start(key), part.limited(key), part.meta]
        holder = _holder(correlation, call)
        args = [holder, concurrency, every_us, pause_ms, int(keep), self._lease_ms, APART_MS, AWAY_MS]
        args += [weight, int(call != "")]
        site = WriteSite.TAKE_SLOT_UNDO if correlation.direction is Direction.UNDO else WriteSite.TAKE_SLOT
        granted, now, wait = self._server.run(site, "limit", keys, args)
        self._server.heard(now)
        return Slot(granted == 1, wait)

    def free_slot(self, key: str, correlation: Correlation, *, call: str = "", later_us: int = 0) -> None:
        site = WriteSite.FREE_SLOT_UNDO if correlation.direction is Direction.UNDO else WriteSite.FREE_SLOT
        part, holder = self._keys.of_key(key), _holder(correlation, call)
        if call:
            self._server.run(site, "limit_end", [part.slots(key), part.next_start(key)], [holder, later_us])
        else:
            give_back = partial(self._client.zrem, part.slots(key), holder)
            self._server.call(lambda: write(site, give_back))


def _holder(correlation: Correlation, call: str) -> str:
    return f"{correlation.of_its_run}/{call}" if call else correlation.of_its_run
