"""Signals: what they say to an approval.

The rules:

1. An approval is given by a clear yes, and by nothing else: data whose ``approved`` is the literal ``True`` (rule S31).
   A clear no is the literal ``False``. What is neither is no answer: it is refused where it is sent.
2. An approval that gets something else all the same, by whatever way, fails: it fails closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from multiagents.events import ErrorInfo

__all__ = ["Answer", "answer_of", "rejected", "why_unclear"]


class Answer(StrEnum):
    """What a signal's data says to an approval."""

    YES = "yes"
    NO = "no"
    #: it says neither
    NONE = ""


def answer_of(data: Any) -> Answer:
    """What data says to an approval.

    >>> answer_of({"approved": True, "limit": 7})
    <Answer.YES: 'yes'>
    >>> answer_of({"approved": "yes"}), answer_of(True), answer_of({"aproved": False})
    (<Answer.NONE: ''>, <Answer.NONE: ''>, <Answer.NONE: ''>)
    """
    said = _approved(data)
    return Answer.YES if said is True else Answer.NO if said is False else Answer.NONE


def why_unclear(data: Any) -> str:
    """Why data is neither a clear yes nor a clear no, in words; of the data it shows ``approved`` alone."""
    said = _approved(data)
    if said is not None:
        found = f"approved is {said!r:.40} in it, of type {type(said).__name__}"
    elif data is None:
        found = "it has no data"
    else:
        found = "there is no approved in it" if isinstance(data, Mapping) else f"it is a {type(data).__name__}"
    return f'{found}; expected a clear yes, {{"approved": True}}, or a clear no, {{"approved": False}}'


def rejected(step: str) -> ErrorInfo:
    """The error of an approval that got no clear yes."""
    return ErrorInfo(type="ApprovalRejected", message=f"step {step!r} was not approved")


def _approved(data: Any) -> Any:
    return data.get("approved") if isinstance(data, Mapping) else getattr(data, "approved", None)
