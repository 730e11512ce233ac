"""The event bus in this process's memory: for tests and examples, with the behaviour of the Redis one.

Events are kept as JSON, so a test cannot pass with data that would not survive the wire.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from dataclasses import dataclass, field

from typing_extensions import override

from multiagents.event_bus.base import EventBus
from multiagents.event_bus.entry import DeadLetter, Entry
from multiagents.event_bus.subscription import BusLogger, BusMonitor
from multiagents.exceptions import EventBusError


@dataclass(slots=True)
class _Delivery:
    """An entry that lies with a consumer, unacknowledged."""

    consumer: str
    at: float
    times: int


@dataclass(slots=True)
class _Group:
    last: int
    pending: dict[int, _Delivery] = field(default_factory=dict)


class InMemoryEventBus(EventBus):
    """Publish and subscribe within one process; safe to use from many threads.

    Args:
        maxlen: how many of the newest entries are kept; more while a group has not acknowledged them.
        event_monitor: told of every event published, received and handled.
        logger: where the bus writes; default the logger ``multiagents.event_bus``.
    """

    def __init__(
        self, *, maxlen: int = 10_000, event_monitor: BusMonitor | None = None, logger: BusLogger | None = None
    ) -> None:
        super().__init__(event_monitor=event_monitor, logger=logger)
        self.maxlen = maxlen
        self._changed = threading.Condition()
        self._numbers: list[int] = []
        self._raw: dict[int, bytes] = {}
        self._last = 0
        self._groups: dict[str, _Group] = {}
        self._dead: dict[str, DeadLetter] = {}

    @override
    def append(self, transaction_id: str, raw: bytes) -> str:
        with self._changed:
            self._last += 1
            self._numbers.append(self._last)
            self._raw[self._last] = raw
            self._trim(self.maxlen)
            self._changed.notify_all()
            return _id(self._last)

    @override
    def last_id(self) -> str:
        with self._changed:
            return _id(self._last)

    @override
    def entries(self, after: str, count: int, transaction_id: str | None, block: float | None) -> list[Entry]:
        with self._changed:
            number = self._last if after == "$" else _number(after)
            self._changed.wait_for(lambda: self._last > number, block or 0)
            return [Entry(_id(each), self._raw[each]) for each in self._after(number, count)]

    @override
    def group_entries(self, group: str, consumer: str, count: int, block: float | None) -> list[Entry]:
        with self._changed:
            state = self._groups.setdefault(group, _Group(0))
            self._changed.wait_for(lambda: self._last > state.last, block or 0)
            numbers = self._after(state.last, count)
            for each in numbers:
                state.pending[each] = _Delivery(consumer, time.monotonic(), 1)
                state.last = each
            return [Entry(_id(each), self._raw[each]) for each in numbers]

    @override
    def stale_entries(self, group: str, consumer: str, idle_ms: int, count: int) -> list[Entry]:
        with self._changed:
            pending = self._groups.setdefault(group, _Group(0)).pending
            now = time.monotonic()
            stale = [each for each in sorted(pending) if (now - pending[each].at) * 1000 >= idle_ms][:count]
            for each in stale:
                pending[each] = _Delivery(consumer, now, pending[each].times + 1)
            return [Entry(_id(each), self._raw[each], pending[each].times) for each in stale]

    @override
    def ensure_group(self, group: str, start: str = "0") -> None:
        with self._changed:
            self._groups.setdefault(group, _Group(self._last if start == "$" else _number(start)))

    @override
    def remove_group(self, group: str) -> None:
        with self._changed:
            self._groups.pop(group, None)

    @override
    def remove_consumer(self, group: str, consumer: str) -> None:
        """Do nothing: a consumer is no more than a name on the entries that lie with it."""

    @override
    def remove_silent_consumers(self, group: str, idle_ms: int) -> None:
        """Do nothing, as above."""

    @override
    def ack(self, group: str, *ids: str) -> None:
        with self._changed:
            if group in self._groups:
                for each in ids:
                    self._groups[group].pending.pop(_number(each), None)
                self._trim(self.maxlen)

    @override
    def trim(self, maxlen: int | None = None) -> int:
        with self._changed:
            return self._trim(self.maxlen if maxlen is None else maxlen)

    @override
    def bury(self, letter: DeadLetter, acknowledged_by: str | None = None) -> None:
        with self._changed:
            self._dead.setdefault(letter.id, letter)
            group = letter.group or acknowledged_by
            if group is not None:
                self.ack(group, letter.entry_id)

    @override
    def dead_letters(self) -> list[DeadLetter]:
        with self._changed:
            return list(self._dead.values())

    @override
    def discard(self, *ids: str) -> None:
        with self._changed:
            for each in ids:
                self._dead.pop(each, None)

    @override
    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _after(self, number: int, count: int) -> list[int]:
        first = bisect_right(self._numbers, number)
        return self._numbers[first : first + count]

    def _trim(self, maxlen: int) -> int:
        needed = min((min(each.pending, default=each.last + 1) for each in self._groups.values()), default=None)
        excess = max(len(self._numbers) - maxlen, 0)
        if needed is not None:
            excess = min(excess, bisect_right(self._numbers, needed - 1))
        for each in self._numbers[:excess]:
            del self._raw[each]
        del self._numbers[:excess]
        return excess


def _id(number: int) -> str:
    return f"{number}-0"


def _number(entry_id: str) -> int:
    try:
        return int(entry_id.partition("-")[0])
    except ValueError:
        raise EventBusError(
            f"{entry_id!r} is not a place on the bus; expected '0', '$' or an id that publish() or read() returned"
        ) from None
