"""The part of the port that keeps runs out of each other's way: locks on business keys, and limits by key.

They live in the partition of their *key*, because runs of all partitions share them. So they are no part of a run's
commit, and have to hold without one:

1. Asking again is safe: who has it is told so, and who waits keeps his place.
2. Who is gone takes nothing with him: a waiter who does not ask again is passed over, and a lock whose run is over is
   taken from it by whoever finds that out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from multiagents.names import Correlation

#: A lock is looked after this often, in case its run is over and nobody else wants it (ms).
LOCK_CHECK_MS = 3_600_000
#: Pauses of who waits for a lock or a slot: a quarter of what it has waited, within these bounds (ms).
SHORTEST_MS, LONGEST_MS = 1_000, 15_000
#: Nobody counts as waiting for a lock for longer than that after he has asked.
LINE_MS = 600_000
#: Who is turned away by a limit comes again this long after the one before, so that not all come at once (ms)
APART_MS = 20
#: and after this long at the latest.
AWAY_MS = 300_000


def pause_ms(waited_ms: int) -> int:
    """In how many ms to ask again, for who has waited so long."""
    return min(max(waited_ms // 4, SHORTEST_MS), LONGEST_MS)


class Lock(NamedTuple):
    """How it stands with a lock.

    Attributes:
        granted: whoever asked has it.
        token: the fencing token of who has it; 0 for nobody.
        holder: who has it; empty for nobody, or for somebody whose lease is over.
        place: how many wait before whoever asked.
        until_ms: when its lease is over, by the store's clock; 0 is never. Said by `lock_of`.
    """

    granted: bool
    token: int
    holder: str
    place: int = 0
    until_ms: int = 0


class Slot(NamedTuple):
    """Whether an attempt may run under a limit; if not, in how many ms to ask again."""

    granted: bool
    wait_ms: int = 0


class Isolation(ABC):
    """Locks and limits. Every method is safe to call again, and safe to call from any thread."""

    @abstractmethod
    def lock(self, key: str, holder: str, *, lease_ms: int = 0, asking_ms: int, over: int = 0) -> Lock:
        """Ask for the lock on a business key, or keep a place in its line: first come, first served.

        Args:
            key: what is locked.
            holder: a run, as `multiagents.names.identity_of` names it: one that replaces another is another one.
                One that has the lock already keeps it, under the same token, and at least for as long as it asks for.
            lease_ms: after how long others may have it; 0 is never.
            asking_ms: who has not asked again by then is passed over.
            over: the token of a grant that is known to be over, because its run is: it counts as given back.
        """

    @abstractmethod
    def unlock(self, key: str, token: int) -> bool:
        """Take a lock away from whoever holds it under this token, with what looks after it; whether it was so."""

    @abstractmethod
    def lock_of(self, key: str) -> Lock | None:
        """Who holds a lock, also after his lease; None for nobody."""

    @abstractmethod
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
        """Ask whether an attempt may run now; with a limited concurrency it has a slot then, for as long as a lease.

        Args:
            key: what is limited.
            correlation: the attempt; one that has its slot already is not counted again.
            call: of a call that it makes, its name within it: that has a slot of its own, whatever is limited.
            weight: for how many beginnings it counts; the next one waits for so many.
            concurrency: how many may run at once; 0 is without limit.
            every_us: microseconds between two beginnings; 0 is without limit.
            pause_ms: how long to wait at least where all slots are taken.
            keep: the attempt runs, whatever others have been told meanwhile: only keep its slot.
        """

    @abstractmethod
    def free_slot(self, key: str, correlation: Correlation, *, call: str = "", later_us: int = 0) -> None:
        """Give a slot back, if the attempt, or the call that it makes, has it.

        Args:
            key: what is limited.
            correlation: the attempt.
            call: of a call that it makes, its name within it.
            later_us: of a call: by how many microseconds more the next one waits, as this one was of another weight
                than it was thought to be; below 0 less.
        """
