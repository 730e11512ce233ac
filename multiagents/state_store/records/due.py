"""What has to be looked at, and when: entries of the sorted set ``due``, which the sweep takes."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from multiagents.names import parse_identity


class DueKind(StrEnum):
    """What an entry is about; the values are what it begins with."""

    #: an attempt in flight: ``a|<run>|<step>|<attempt key>``; a run as `multiagents.names.identity_of` writes it
    ATTEMPT = "a"
    #: an attempt that had to be claimed by now: ``q|<run>|<step>|<attempt key>``
    UNCLAIMED = "q"
    #: a run with a pending decision: ``r|<run>``
    DECISION = "r"
    #: a run whose deadline has passed: ``t|<run>``
    DEADLINE = "t"
    #: a run to forget: ``x|<run>``
    EXPIRY = "x"
    #: a lock to look after: ``k|<business key>``, which may have any characters
    LOCK = "k"

    def entry(self, *about: str) -> str:
        """The entry.

        >>> DueKind.ATTEMPT.entry("order-1~5f0cR-2x", "charge", "d1"), DueKind.LOCK.entry("sku|7")
        ('a|order-1~5f0cR-2x|charge|d1', 'k|sku|7')
        """
        return "|".join((self.value, *about))


class Due(NamedTuple):
    """Something whose time has come. It is leased to the caller, who removes it by the commit that handles it."""

    #: one of `DueKind`, or of a newer release
    kind: str
    #: the run; of a lock, its business key
    transaction_id: str
    #: of an attempt
    step: str
    attempt_key: str
    #: the entry itself
    member: str
    #: the time it is leased until; whoever else touches the entry changes it
    seen_ms: int
    #: of the run: an entry that an earlier run with this id has left asks for nothing
    nonce: str = ""

    @classmethod
    def decode(cls, member: str, seen_ms: int = 0) -> Due:
        """Take an entry apart; what is none has what it lacks empty, and is about nothing that there is."""
        parts = member.split("|", 1 if member.startswith(DueKind.LOCK) else 3)
        kind, about, step, attempt_key = (*parts, "", "", "")[:4]
        transaction_id, nonce = (about, "") if kind == DueKind.LOCK else parse_identity(about)
        return cls(kind, transaction_id, step, attempt_key, member, seen_ms, nonce)
