"""The port of the event bus.

What every implementation keeps to:

1. ``publish`` returns after the event is on the bus; the id it returns is a cursor, from which reading goes on.
2. A *group* shares the events among its consumers: each goes to one of them, and comes again, to any, until one has
   acknowledged it. So a group gets every event at least once. An event that was handed out ``max_deliveries`` times and
   never acknowledged goes to the dead letters with the error.
3. Without a group a reader follows the stream and keeps its own cursor; it has no claim on entries that were trimmed.
4. Trimming keeps about ``maxlen`` of the newest entries, and any entry, however old, that some group has not
   acknowledged. So memory is bounded by ``maxlen`` where there is no group, else by the slowest group: one that nobody
   reads any more must be removed (`EventBus.remove_group`), and the log says which one holds the stream up.
5. An entry that cannot be read goes to the dead letters with its bytes, and the ones behind it go on.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

from multiagents.event_bus.entry import DeadLetter, Entry, encode
from multiagents.event_bus.feeds import BATCH, Following, Sharing
from multiagents.event_bus.subscription import BLOCK, BusLogger, BusMonitor, Subscription, guard
from multiagents.events import Event
from multiagents.exceptions import DecodeError

#: How often an event is handed to a group before it goes to the dead letters.
MAX_DELIVERIES = 5
#: Seconds without acknowledgement after which a group's event is handed out again.
REDELIVER_AFTER = 30.0


class EventBus(ABC):
    """Publish events and hand them to whoever listens.

    >>> from multiagents.event_bus import InMemoryEventBus, ResultEvent
    >>> bus = InMemoryEventBus()
    >>> cursor = bus.publish(ResultEvent(transaction_id="order-1", step="charge_card", payload={"charge_id": "ch-1"}))
    >>> [event.payload for _, event in bus.read()]
    [{'charge_id': 'ch-1'}]
    >>> bus.read(after=cursor)
    []
    """

    def __init__(self, *, event_monitor: BusMonitor | None = None, logger: BusLogger | None = None) -> None:
        self.event_monitor = event_monitor
        self.logger: BusLogger = logger or logging.getLogger("multiagents.event_bus")

    # What everybody uses.

    def publish(self, event: Event) -> str:
        """Put an event on the bus.

        After an error it may or may not be there. Publishing the same event again is safe: it keeps its id, and a reply
        is matched by its ``correlation_id``.

        Returns:
            The entry's id, a cursor for `read` and `subscribe`.

        Raises:
            EventBusError: when the bus cannot be reached, or the event cannot be written as JSON.
        """
        entry_id = self.append(event.transaction_id, encode(event))
        monitor = self.event_monitor
        if monitor is not None:
            guard(self.logger, lambda: monitor.published(event))
        return entry_id

    def subscribe(
        self,
        handler: Callable[[Event], object],
        *,
        group: str | None = None,
        consumer: str | None = None,
        start: str | None = None,
        types: Collection[type[Event]] | None = None,
        transaction_id: str | None = None,
        redeliver_after: float = REDELIVER_AFTER,
        max_deliveries: int = MAX_DELIVERIES,
    ) -> Subscription:
        """Give each event to a handler, in a thread of the subscription's own.

        A handler that raises is logged. With a group its event is not acknowledged: it comes again after
        ``redeliver_after`` and is given up after ``max_deliveries``; without a group the subscription goes on to the
        next. A lost connection is made again, and reading goes on after the last event.

        Args:
            handler: called with one event at a time. In a group it must return within ``redeliver_after``, or another
                consumer gets the event too; and it must bear to see an event twice.
            group: share the events with the other consumers of this group.
            consumer: this consumer's name in the group; made up if not given.
            start: where to begin: ``"0"`` is the oldest entry, ``"$"`` what is published from now on, else after an
                id. Default: ``"$"`` without a group. For a group it says where a *new* one begins, by default at
                ``"0"``, so that it misses nothing; a group that exists goes on where it is.
            types: only these kinds of event, e.g. ``[ResultEvent, ErrorEvent]``; a group acknowledges others unseen.
            transaction_id: only this run's events; a group acknowledges others unseen.
            redeliver_after: seconds without acknowledgement after which the event is handed out again.
            max_deliveries: how often it is handed out before it goes to the dead letters.

        Raises:
            EventBusError: when the bus cannot be reached now.
        """
        if group is None:
            cursor = self.last_id() if start is None or start == "$" else start
            feed: Following | Sharing = Following(self, cursor, transaction_id)
            name = f"bus:{cursor}"
        else:
            self.ensure_group(group, start or "0")
            feed = Sharing(self, group, consumer, redeliver_after, max_deliveries)
            name = f"bus:{group}/{feed.consumer}"
        return Subscription(
            feed,
            handler,
            name=name,
            types=types,
            transaction_id=transaction_id,
            monitor=self.event_monitor,
            logger=self.logger,
        )

    def read(self, after: str = "0", count: int = 100, transaction_id: str | None = None) -> list[tuple[str, Event]]:
        """Replay up to ``count`` events after an id, oldest first; fewer only at the end of the stream.

        Raises:
            EventBusError: when the bus cannot be reached.
        """
        found: list[tuple[str, Event]] = []
        while len(found) < count:
            entries = self.entries(after, max(BATCH, count), transaction_id, None)
            if not entries:
                break
            for entry_id, event in self._readable(entries, None):
                if transaction_id is None or event.transaction_id == transaction_id:
                    found.append((entry_id, event))
            after = entries[-1].id
        return found[:count]

    def read_group(
        self, group: str, consumer: str, count: int = 100, block: float | None = None
    ) -> list[tuple[str, Event]]:
        """Take up to ``count`` new events of each partition for a consumer of a group; acknowledge them with `ack`.

        A group that does not exist is made, and begins at the oldest entry.

        Args:
            group: the group's name.
            consumer: this consumer's name in it.
            count: how many events.
            block: seconds to wait for an event when there is none; None does not wait.

        Raises:
            EventBusError: when the bus cannot be reached.
        """
        until = time.monotonic() + (block or 0.0)
        while True:
            # Waiting in slices keeps every read far below the socket's own time limit.
            left = min(until - time.monotonic(), BLOCK)
            entries = self.group_entries(group, consumer, count, left if left > 0 else None)
            if entries or left <= 0:
                return list(self._readable(entries, group))

    def claim_stale(
        self, group: str, consumer: str, idle_ms: int, count: int = 100, max_deliveries: int = MAX_DELIVERIES
    ) -> list[tuple[str, Event]]:
        """Take over events that a consumer of the group got and has not acknowledged for ``idle_ms`` milliseconds.

        Those that were handed out ``max_deliveries`` times already go to the dead letters instead.

        Raises:
            EventBusError: when the bus cannot be reached.
        """
        return list(self._readable(self.claim_entries(group, consumer, idle_ms, count, max_deliveries), group))

    def claim_entries(self, group: str, consumer: str, idle_ms: int, count: int, max_deliveries: int) -> list[Entry]:
        """Do as `claim_stale` and return what it takes undecoded, with the number of deliveries."""
        claimed: list[Entry] = []
        for entry in self.stale_entries(group, consumer, idle_ms, count):
            if entry.deliveries > max_deliveries:
                tried = replace(entry, deliveries=entry.deliveries - 1)  # this hand-out is to no handler
                self.give_up(group, tried, f"handed out {tried.deliveries} times and never acknowledged")
            else:
                claimed.append(entry)
        return claimed

    def give_up(self, group: str, entry: Entry, error: str) -> None:
        """Set an entry aside as a dead letter of the group and acknowledge it, as one act."""
        letter = DeadLetter(entry.id.partition(",")[0], entry.raw, error, group, entry.deliveries)
        message = f"bus entry {entry.id} is a dead letter of group {group}: {error}"
        self.logger.error(message)
        self.bury(letter)

    def _readable(self, entries: Iterable[Entry], group: str | None) -> Iterator[tuple[str, Event]]:
        for entry in entries:
            try:
                yield entry.id, entry.decode()
            except DecodeError as error:
                self.reject(entry, group, error)

    def reject(self, entry: Entry, group: str | None, error: DecodeError) -> None:
        """Set aside what nobody can read: one dead letter for all readers; a group that met it acknowledges it."""
        letter = DeadLetter(entry.id.partition(",")[0], entry.raw, str(error))
        message = f"bus entry {letter.entry_id} cannot be read and is a dead letter: {error}"
        self.logger.error(message)
        self.bury(letter, acknowledged_by=group)

    # What an implementation brings.

    @abstractmethod
    def append(self, transaction_id: str, raw: bytes) -> str:
        """Put an event's JSON on the stream of the run's partition and return the entry's id."""

    @abstractmethod
    def last_id(self) -> str:
        """The cursor of the end of the stream: only later entries come after it."""

    @abstractmethod
    def entries(self, after: str, count: int, transaction_id: str | None, block: float | None) -> list[Entry]:
        """Up to ``count`` entries after a cursor, oldest first; with a run, only its partition's. Wait ``block`` s."""

    @abstractmethod
    def group_entries(self, group: str, consumer: str, count: int, block: float | None) -> list[Entry]:
        """Up to ``count`` entries of each partition that no consumer of the group has got yet."""

    @abstractmethod
    def stale_entries(self, group: str, consumer: str, idle_ms: int, count: int) -> list[Entry]:
        """Take over entries that lie with a consumer unacknowledged, and count the hand-out."""

    @abstractmethod
    def ensure_group(self, group: str, start: str = "0") -> None:
        """Make a group that begins after ``start`` (an id, ``"0"`` or ``"$"``), unless it exists."""

    @abstractmethod
    def remove_group(self, group: str) -> None:
        """Forget a group, so that it holds up trimming no longer. What it has not acknowledged is its no more."""

    @abstractmethod
    def remove_consumer(self, group: str, consumer: str) -> None:
        """Forget a consumer, unless entries lie with it."""

    @abstractmethod
    def remove_silent_consumers(self, group: str, idle_ms: int) -> None:
        """Forget the consumers of a group that have not asked for so long, unless entries lie with them."""

    @abstractmethod
    def ack(self, group: str, *ids: str) -> None:
        """Acknowledge entries: the group does not get them again. Acknowledging twice does nothing."""

    @abstractmethod
    def trim(self, maxlen: int | None = None) -> int:
        """Drop old entries as rule 4 says, about down to ``maxlen`` (default: the bus's), and return how many went."""

    @abstractmethod
    def bury(self, letter: DeadLetter, acknowledged_by: str | None = None) -> None:
        """Keep a dead letter and acknowledge its entry for its group (or ``acknowledged_by``), as one act."""

    @abstractmethod
    def dead_letters(self) -> list[DeadLetter]:
        """What was set aside, until somebody discards it, or ``multiagents_dead_letter_retention`` is over."""

    @abstractmethod
    def discard(self, *ids: str) -> None:
        """Delete dead letters by their `DeadLetter.id`."""

    @abstractmethod
    def close(self) -> None:
        """Close connections; subscriptions must have been stopped."""
