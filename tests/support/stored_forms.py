"""How the store writes what its promises rest on: what the tests know of it, apart from the code that they test.

An attempt in flight has a *record* in its run, ``d1|c|owner-1|...``: what it is, how it goes, who has it. What somebody
has to look at has an *entry* in ``due``, ``a|order-1|reserve|d1``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Entry(StrEnum):
    """What an entry in ``due`` asks for.

    >>> Entry.ATTEMPT.of("order-1", "reserve", "d1")
    'a|order-1|reserve|d1'
    """

    #: an attempt: its time has come, or nothing was heard of it
    ATTEMPT = "a"
    #: an attempt that was to be claimed by now
    UNCLAIMED = "q"
    #: a run that a decision is owed to
    DECISION = "r"
    #: a run that was to be over by now
    DEADLINE = "t"
    #: a run that is over and was kept long enough
    KEPT = "x"
    #: a lock
    LOCK = "k"

    def of(self, *names: str) -> str:
        """The entry of a run, of an attempt (run, step, key), or of a lock."""
        return "|".join((self, *names))


def record_start(attempt_key: str, *rest: str) -> str:
    """How a record starts: the attempt, how it goes (`Delivery`), and, once it is claimed, its owner."""
    return "".join(f"{part}|" for part in (attempt_key, *rest))


def unfinished(entries: Iterable[str]) -> list[str]:
    """The entries that ask for more than to forget a run in due time."""
    return [entry for entry in entries if not entry.startswith(f"{Entry.KEPT}|")]
