"""What steps say while they run, and how far a reader has come with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Self

from multiagents.exceptions import WorkflowError
from multiagents.workflow.state import RunStatus

#: Bytes of JSON that an entry may have.
MAX_ENTRY = 64 * 1024
#: How many entries one look reads.
READ_AT_ONCE = 500

#: Digits of an entry's number in an offset, so that offsets are in order as texts, too.
_DIGITS = 10


class EntryKind(StrEnum):
    """What an entry of a stream is."""

    #: what a worker has said (``current_step().stream(item)``)
    ITEM = "item"
    #: a piece of what a model says, of the output field that ``field`` names
    TOKEN = "token"  # noqa: S105 - no secret
    #: a tool was called, or has answered
    STATUS = "status"
    #: the step begins again: what it has said before this is void
    ATTEMPT = "attempt"
    #: what an agent's step comes to
    FINAL = "final"
    #: entries that the reader has not seen are not kept any more
    GAP = "gap"


class Said(NamedTuple):
    """What a step says.

    Attributes:
        kind: what it is.
        data: plain JSON.
        field: of which output field.
        call: in which call, by its slot in the journal.
    """

    kind: EntryKind
    data: Any
    field: str = ""
    call: str = ""


class Offset(NamedTuple):
    """A place in a run's stream.

    Attributes:
        base: when the stream was begun, in µs: another run of the same id has another.
        number: of the entry, from 0.

    >>> str(Offset(1764532000000000, 42))
    '1764532000000000-0000000042'
    >>> Offset.parse("1764532000000000-0000000042")
    Offset(base=1764532000000000, number=42)
    """

    base: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an offset, as users or Redis write it.

        Raises:
            WorkflowError: when it is none.
        """
        base, _, number = str(text).partition("-")
        if not (base.isdecimal() and number.isdecimal()):
            raise WorkflowError(
                f"after={text!r:.80} is no offset of a stream: expected the .offset of one of its entries, such as "
                f"{cls(1764532000000000, 42)}"
            )
        return cls(int(base), int(number))

    @property
    def stored(self) -> str:
        """As Redis names the entry."""
        return f"{self.base}-{self.number}"

    def __str__(self) -> str:
        return f"{self.base}-{self.number:0>{_DIGITS}}"


@dataclass(frozen=True)
class StreamEntry:
    """What a step has said, as its readers get it.

    Attributes:
        offset: where it is in the run's stream: a later entry has a greater one, also as a text. A reader that comes
            back gives the last that it has seen as ``after=``.
        kind: ``item``, ``token``, ``status``, ``attempt`` (the step begins again: what it has said before is void),
            ``final``, or ``gap`` (entries that the reader has not seen are not kept any more).
        data: of an ``item`` what the worker has said; of a ``token`` a piece of text; of a ``status`` what is done; of
            an ``attempt`` its number; of a ``final`` the output fields, or None where they are too large for a stream;
            of a ``gap`` how many entries are lost, or None where nobody knows.
        field: of which output field of the agent a ``token`` is; None where it is of none.
        attempt: which attempt of the step has said it.
        step: the step; of a ``gap`` None.
        call: the call of the agent's, to its model or a tool, as `CallRecord.slot` has it: calls that are made at once
            say things by turns.
        direction: ``do``, or ``undo`` where the step's compensation has said it.
    """

    offset: str
    kind: str
    data: Any
    field: str | None = None
    attempt: int = 0
    step: str | None = None
    direction: str = "do"
    call: str | None = None


class StreamPage(NamedTuple):
    """What one look at a run's stream has found.

    Attributes:
        entries: what comes next.
        offset: where the reader is with them, as Redis names it; empty: at the beginning.
        status: what the run was just before.
        is_whole: whether there was no more at that moment.
    """

    entries: Sequence[StreamEntry]
    offset: str
    status: RunStatus
    is_whole: bool


def is_newer(entry: str, known: str) -> bool:
    """Whether an entry is none that a reader has seen.

    Args:
        entry: the last of a stream, as Redis names it; empty: there is none.
        known: the last that the reader has seen; empty: none.
    """
    if not entry or entry == known:
        return False
    if not known:
        return True
    (base, number), (seen_base, seen) = Offset.parse(entry), Offset.parse(known)
    return base != seen_base or number > seen
