"""Where runs are kept: the port, and its implementations beside it. Begin with `base.StateStore`, then `records`."""

from __future__ import annotations

from multiagents.exceptions import ConfigurationError
from multiagents.keys import Keys
from multiagents.state_store.base import StateStore
from multiagents.state_store.isolation import (
    LOCK_CHECK_MS,
    Isolation,
    Lock,
    Slot,
    holder_of,
    parse_holder,
    pause_ms,
)
from multiagents.state_store.payloads import PLAIN, PayloadPolicy
from multiagents.state_store.schedules import Schedules
from multiagents.state_store.visibility import Visibility

__all__ = [
    "LOCK_CHECK_MS",
    "Isolation",
    "Lock",
    "Schedules",
    "Slot",
    "StateStore",
    "Visibility",
    "holder_of",
    "open_store",
    "parse_holder",
    "pause_ms",
]


def open_store(url: str, *, keys: Keys | None = None, lease: float = 30.0, policy: PayloadPolicy = PLAIN) -> StateStore:
    """Make the store that a URL names; nothing is connected before it is first used.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, or ``memory://`` for one that lives in this process.
        keys: the key names.
        lease: seconds after which an attempt whose worker says nothing counts as lost.
        policy: in what form data is stored.

    Raises:
        ConfigurationError: when there is no store for such a URL.
    """
    scheme = url.partition("://")[0]
    if scheme in ("redis", "rediss", "unix"):
        from multiagents.state_store.redis import RedisStateStore

        return RedisStateStore(url, keys=keys, lease=lease, policy=policy)
    if scheme == "memory":
        from multiagents.state_store.memory import InMemoryStateStore

        return InMemoryStateStore.shared(keys=keys, lease=lease, policy=policy)
    raise ConfigurationError(
        f"there is no state store for {url!r}; expected a redis://, rediss:// or unix:// URL in multiagents_redis_url"
    )
