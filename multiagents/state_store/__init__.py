"""Where runs are kept: the port, and its implementations beside it. Begin with `base.StateStore`, then `records`."""

from __future__ import annotations

from multiagents.address import Address, Kind
from multiagents.keys import Keys
from multiagents.state_store.base import StateStore
from multiagents.state_store.examples import Examples
from multiagents.state_store.isolation import (
    LOCK_CHECK_MS,
    Isolation,
    Lock,
    Slot,
    pause_ms,
)
from multiagents.state_store.journal import Journal
from multiagents.state_store.payloads import PLAIN, PayloadPolicy
from multiagents.state_store.schedules import Schedules
from multiagents.state_store.visibility import Visibility

__all__ = [
    "LOCK_CHECK_MS",
    "Examples",
    "Isolation",
    "Journal",
    "Lock",
    "Schedules",
    "Slot",
    "StateStore",
    "Visibility",
    "open_store",
    "pause_ms",
]


def open_store(
    address: Address | str, *, keys: Keys | None = None, lease: float = 30.0, policy: PayloadPolicy = PLAIN
) -> StateStore:
    """Make the store that a URL names; nothing is connected before it is first used.

    Args:
        address: of a Redis or Valkey, or the memory of this process; as a URL, see `multiagents.address`.
        keys: the key names.
        lease: seconds after which an attempt whose worker says nothing counts as lost.
        policy: in what form data is stored.

    Raises:
        ConfigurationError: when it is a URL that cannot be read.
    """
    where = Address.parse(address).checked("the URL") if isinstance(address, str) else address
    if where.kind is Kind.MEMORY:
        from multiagents.state_store.memory import InMemoryStateStore

        return InMemoryStateStore.shared(keys=keys, lease=lease, policy=policy)
    from multiagents.state_store.redis import RedisStateStore

    return RedisStateStore(where, keys=keys, lease=lease, policy=policy)
