"""Where a subscription takes its entries from: it follows the stream by itself, or shares it as one of a group."""

from __future__ import annotations

import os
import socket
import time
from typing import Protocol
from uuid import uuid4

from multiagents.event_bus.entry import Entry
from multiagents.event_bus.subscription import Feed
from multiagents.exceptions import DecodeError

#: Entries that one read without a group takes at once.
BATCH = 100
#: A group's consumer takes one at a time: entries that wait in its hands would age towards redelivery.
GROUP_BATCH = 1


class Source(Protocol):
    """What feeds need of an `EventBus`, which says what each method does."""

    def entries(self, after: str, count: int, transaction_id: str | None, block: float | None) -> list[Entry]: ...

    def group_entries(self, group: str, consumer: str, count: int, block: float | None) -> list[Entry]: ...

    def claim_entries(
        self, group: str, consumer: str, idle_ms: int, count: int, max_deliveries: int
    ) -> list[Entry]: ...

    def ack(self, group: str, *ids: str) -> None: ...

    def reject(self, entry: Entry, group: str | None, error: DecodeError) -> None: ...

    def give_up(self, group: str, entry: Entry, error: str) -> None: ...

    def remove_consumer(self, group: str, consumer: str) -> None: ...


class Following(Feed):
    """Read without a group: keep a cursor."""

    def __init__(self, bus: Source, cursor: str, transaction_id: str | None) -> None:
        self._bus = bus
        self._cursor = cursor
        self._transaction_id = transaction_id

    def take(self, block: float) -> list[Entry]:
        return self._bus.entries(self._cursor, BATCH, self._transaction_id, block)

    def done(self, entry: Entry) -> None:
        self._cursor = entry.id

    def failed(self, entry: Entry, error: Exception) -> None:  # noqa: ARG002  without a group the log has it
        self._cursor = entry.id

    def reject(self, entry: Entry, error: DecodeError) -> None:
        self._bus.reject(entry, None, error)
        self._cursor = entry.id

    def close(self) -> None:
        """Do nothing: the bus knows of no reader without a group."""


class Sharing(Feed):
    """Read as a consumer of a group: acknowledge what is handled, take over what others left."""

    def __init__(
        self, bus: Source, group: str, consumer: str | None, redeliver_after: float, max_deliveries: int
    ) -> None:
        self.consumer = consumer or f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._bus = bus
        self._group = group
        self._is_named = consumer is not None
        self._redeliver_after = redeliver_after
        self._max_deliveries = max_deliveries
        self._look_at = 0.0

    def take(self, block: float) -> list[Entry]:
        if time.monotonic() >= self._look_at:
            idle = int(self._redeliver_after * 1000)
            stale = self._bus.claim_entries(self._group, self.consumer, idle, GROUP_BATCH, self._max_deliveries)
            if stale:
                return stale
            # One look in each quarter of the interval: an event waits a quarter longer at most.
            self._look_at = time.monotonic() + self._redeliver_after / 4
        wait = min(block, max(self._look_at - time.monotonic(), 0.001))
        return self._bus.group_entries(self._group, self.consumer, GROUP_BATCH, wait)

    def done(self, entry: Entry) -> None:
        self._bus.ack(self._group, entry.id)

    def failed(self, entry: Entry, error: Exception) -> None:
        if entry.deliveries >= self._max_deliveries:
            self._bus.give_up(self._group, entry, f"{type(error).__name__}: {error}")

    def reject(self, entry: Entry, error: DecodeError) -> None:
        self._bus.reject(entry, self._group, error)

    def close(self) -> None:
        if not self._is_named:
            self._bus.remove_consumer(self._group, self.consumer)
