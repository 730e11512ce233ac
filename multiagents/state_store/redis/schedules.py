"""How far schedules have come, in Redis: one hash in the first partition."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from multiagents.failpoints import WriteSite, write
from multiagents.keys import Keys
from multiagents.state_store.base import StateStore

if TYPE_CHECKING:
    import redis

    from multiagents.state_store.redis.script_server import ScriptServer


class Ticking(StateStore):
    """The part of the store on Redis that schedules ask."""

    keys: Keys
    _server: ScriptServer
    _client: redis.Redis

    def schedule_state(self, name: str) -> tuple[int | None, str | None]:
        """Read both fields in one round trip."""
        key, fields = self.keys.of_partition(0).schedules, [f"last:{name}", f"paused:{name}"]
        last, paused = self._server.call(partial(self._client.hmget, key, fields))
        return (None if last is None else int(last)), paused

    def schedule_ticked(self, name: str, at_ms: int) -> bool:
        """Move on by a script, because two may come at once."""
        key = self.keys.of_partition(0).schedules
        return bool(self._server.run(WriteSite.TICK, "tick", [key], [f"last:{name}", at_ms])[0])

    def pause_schedule(self, name: str, note: str | None) -> None:
        """Set or remove the field."""
        key, field = self.keys.of_partition(0).schedules, f"paused:{name}"
        action: Callable[[], Any] = partial(self._client.hdel, key, field)
        if note is not None:
            action = partial(self._client.hset, key, field, note)
        self._server.call(lambda: write(WriteSite.PAUSE_SCHEDULE, action))
