"""Programs that agents have learned, as a store keeps them, and which of them an attempt asks with.

A worker's programs are numbered from 1 in the order in which they were made; 0 is what its own code says, the built-in
one. Nothing here knows what a program is.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

#: The program that a worker's own code is.
BUILT_IN = 0
#: How many programs are kept of a worker: the newest, and those that are in place or may come back.
MAX_PROGRAMS = 50
#: How many programs that were in place before may come back, and how many changes are remembered.
MAX_FORMER, MAX_PROGRAM_CHANGES = 10, 100


#: What the target of an attempt begins with that waits for runs with a canary to end.
_WAITS = "canary|"


class Placement(NamedTuple):
    """Which programs of a worker are in place.

    Attributes:
        revision: raised by every change: fences the next one.
        current: the program that is asked with.
        canary: another one that a share of the steps is asked with; 0 for none.
        share: what share, between 0 and 1.
        former: what was current before, the last one last.
    """

    revision: int = 0
    current: int = BUILT_IN
    canary: int = BUILT_IN
    share: float = 0.0
    former: tuple[int, ...] = ()

    def chosen(self, step: str) -> int:
        """The program that a step is asked with: always the same for a step and a placement.

        Args:
            step: its idempotency key.

        >>> Placement(current=1, canary=2, share=0.5).chosen("order-1/ask"), Placement(current=1).chosen("order-1/ask")
        (2, 1)
        """
        return self.canary if self.canary and _draw(f"{self.canary}/{step}") < self.share else self.current

    def promoted(self, version: int, share: float = 1.0) -> Placement:
        """A program in place, for all steps or for a share of them; what is in place like that already changes nothing.

        >>> Placement().promoted(1).promoted(2, 0.1)
        Placement(revision=0, current=1, canary=2, share=0.1, former=(0,))
        """
        if share < 1:
            return self if version == self.current else self._replace(canary=version, share=share)
        if version == self.current:
            return self._replace(canary=BUILT_IN, share=0.0)
        former = (*(one for one in self.former if one != version), self.current)[-MAX_FORMER:]
        return Placement(self.revision, version, former=former)

    def without(self, version: int) -> Placement:
        """A program taken out of place, and what was there before it back; one that is not in place changes nothing.

        >>> Placement().promoted(1).promoted(2).without(2).current
        1
        """
        if version == BUILT_IN:
            return self
        former = tuple(one for one in self.former if one != version)
        if version == self.canary:
            return self._replace(canary=BUILT_IN, share=0.0)
        if version == self.current:
            return Placement(
                self.revision, former[-1] if former else BUILT_IN, self.canary, self.share, former=former[:-1]
            )
        return self._replace(former=former)

    def back(self) -> Placement:
        """What was in place before the last promotion; the built-in program alone stays as it is."""
        if self.canary:
            return self.without(self.canary)
        if not self.former:
            return self.without(self.current)
        return self._replace(current=self.former[-1], former=self.former[:-1])

    def is_as(self, other: Placement) -> bool:
        """Whether the same is in place, after whichever change."""
        return self[1:] == other[1:]


class ProgramRecord(NamedTuple):
    """What is known of a program, but for the program itself.

    Attributes:
        version: its number.
        made_ms: when it was put into the store.
        about: what whoever made it has to say: plain JSON.
    """

    version: int
    made_ms: int
    about: Mapping[str, Any]


class ProgramChange(NamedTuple):
    """A change of what is in place.

    Attributes:
        revision: the placement's after it.
        at_ms: when.
        about: what was done, by whom and why: plain JSON.
    """

    revision: int
    at_ms: int
    about: Mapping[str, Any]


def canary_target(text: str) -> str:
    """What an attempt waits for that is to judge a canary, in its record.

    Args:
        text: in words.
    """
    return f"{_WAITS}{text}"


def awaited_canary(target: str) -> str | None:
    """The inverse of `canary_target`; None of what is none.

    >>> awaited_canary(canary_target("3 of 50 runs with canary 2")), awaited_canary("bank")
    ('3 of 50 runs with canary 2', None)
    """
    return target.removeprefix(_WAITS) if target.startswith(_WAITS) else None


def _draw(text: str) -> float:
    """A number from 0 to below 1 that a text always has, evenly spread over texts."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") / 2**64
