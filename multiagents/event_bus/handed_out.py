"""How long ago events were handed out that nobody has acknowledged, where the server's clock cannot tell.

A stream keeps the time at which an entry was handed out. When the clock goes back that is still to come, and the entry
of a reader that died would be taken over by nobody for as long. So whoever looks for such entries remembers when he saw
each first, by a clock that nobody sets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from multiagents.clock import steady_ms

#: By how much a time may be wrong, in ms.
NOBODYS_LOSS_MS = 1_000


class Pending(NamedTuple):
    """An entry that was handed out."""

    number: str
    consumer: str
    idle_ms: int
    deliveries: int


class HandedOut:
    """What one process has seen of them, in one stream and group."""

    def __init__(self) -> None:
        #: number of an entry, and how often it was handed out -> since when at least, and how long ago that was then
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def too_young(self, pending: Iterable[Pending]) -> list[tuple[Pending, int]]:
        """The entries that were handed out longer ago than the server says; and how long ago at least, in ms.

        Args:
            pending: all that are pending now, as the server says.
        """
        now, known = steady_ms(), self._seen
        self._seen = {}
        found = []
        for each in pending:
            since, idle = self._seen[each.number, each.deliveries] = known.get(
                (each.number, each.deliveries), (now, each.idle_ms)
            )
            age = round(idle + now - since)
            if each.idle_ms < age - NOBODYS_LOSS_MS:
                found.append((each, age))
        return found
