"""A call of a tool that a person has to approve: how the attempt that waits for it says so, and what was decided."""

from __future__ import annotations

from typing import Any, NamedTuple

#: What the target of an attempt begins with that waits for a person to approve a call of a tool.
_WAITS = "approval|"


class AwaitedCall(NamedTuple):
    """A call that waits for a decision, as the record of its attempt tells of it."""

    slot: str
    tool: str


def approval_target(tool: str, slot: str) -> str:
    """What an attempt waits for, in its record."""
    return f"{_WAITS}{slot}|{tool}"


def awaited_call(target: str) -> AwaitedCall | None:
    """The inverse of `approval_target`; None of what is none.

    >>> awaited_call(approval_target("book_flight", "7"))
    AwaitedCall(slot='7', tool='book_flight')
    """
    if not target.startswith(_WAITS):
        return None
    slot, _, tool = target.removeprefix(_WAITS).partition("|")
    return AwaitedCall(slot, tool)


def decided(
    *, approved: bool, actor: str | None, reason: str | None, arguments: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A decision as the journal keeps it.

    Args:
        approved: whether the call may be made.
        actor: who says so.
        reason: why.
        arguments: what it is to be called with; None is what the model has asked for.
    """
    return {"approved": approved, "actor": actor, "reason": reason, "arguments": arguments}


def timed_out(seconds: float) -> dict[str, Any]:
    """The decision where nobody has made one in time."""
    return decided(approved=False, actor=None, reason=f"nobody approved it within {seconds:g} s")
