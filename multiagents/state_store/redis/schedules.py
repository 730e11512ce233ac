"""How far schedules have come, in Redis: one hash in the first partition."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from multiagents.failpoints import WriteSite, write
from multiagents.keys import Keys
from multiagents.state_store.redis.script_server import ScriptServer
from multiagents.state_store.schedules import FORGOTTEN_AFTER_MS, Schedules


class RedisSchedules(Schedules):
    """Keep two fields for each schedule.

    Args:
        server: runs the script.
        keys: the key names.
    """

    def __init__(self, server: ScriptServer, keys: Keys) -> None:
        self._server = server
        self._client: Any = server.client
        self._key = keys.of_partition(0).schedules

    def state(self, name: str) -> tuple[int | None, str | None]:
        fields = [f"last:{name}", f"paused:{name}"]
        last, paused = self._server.call(partial(self._client.hmget, self._key, fields))
        return (None if last is None else int(last)), paused

    def ticked(self, name: str, at_ms: int) -> bool:
        return bool(
            self._server.run(WriteSite.TICK, "tick", [self._key], [f"last:{name}", at_ms, FORGOTTEN_AFTER_MS])[0]
        )

    def pause(self, name: str, note: str | None) -> None:
        field = f"paused:{name}"
        action: Callable[[], Any] = partial(self._client.hdel, self._key, field)
        if note is not None:
            action = partial(self._client.hset, self._key, field, note)
        self._server.call(lambda: write(WriteSite.PAUSE_SCHEDULE, action))
