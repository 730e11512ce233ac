"""Signals: what they say to an approval, and when they come too late.

The rules:

1. An approval is given by a clear yes, and by nothing else: data whose ``approved`` is the literal ``True`` (rule S31).
   A clear no is the literal ``False``. What is neither is no answer: it is refused where it is sent.
2. An approval that gets something else all the same, by whatever way, fails: it fails closed.
3. A signal is for the steps that wait for one of its name, or will; the first of them takes it. One that comes when no
   step can take it any more is on record, with its data, and changes nothing (rule S23): the run goes back or is over,
   or each of them has what it waited for. What a person has decided nobody decides again.
4. A wait in front of which the run may still go back to a save-point will wait again, so signals are kept for it. A
   decision is not: a yes to the first pass says nothing about the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from multiagents.events import ErrorInfo
from multiagents.workflow.decider.savepoints import savepoint_before
from multiagents.workflow.decider.unknown_outcomes import is_parked
from multiagents.workflow.definition import Definition, StepKind
from multiagents.workflow.state import ActivityStatus, RunState, RunStatus

__all__ = ["Answer", "Lateness", "answer_of", "lateness", "rejected", "signal_id", "why_unclear"]


#: Characters that the message of an error has of what a person has written.
MAX_SAID = 500
#: Characters of data up to which the details of an error have all of it.
MAX_DETAILS = 8_000
_DECIDED = (ActivityStatus.SUCCEEDED, ActivityStatus.FAILED)


class Answer(StrEnum):
    """What a signal's data says to an approval."""

    YES = "yes"
    NO = "no"
    #: it says neither
    NONE = ""


class Lateness(NamedTuple):
    """Why no step can take a signal any more.

    Attributes:
        decided: a person has decided already: the step is an approval.
        why: in words.
    """

    decided: bool
    why: str


def signal_id(name: str, key: str) -> str:
    """What names a signal in its run: a key counts for each name by itself.

    >>> signal_id("payment", "webhook-7")
    '7:payment:webhook-7'
    """
    return f"{len(name)}:{name}:{key}"


def lateness(definition: Definition, state: RunState, signal: str) -> Lateness | None:
    """Why no step can take a signal of this name any more; None while one can, or will be able to."""
    steps = [
        step for name, step in definition.steps.items() if step.signal == signal and name not in definition.superseded
    ]
    going = state.status in (RunStatus.RUNNING, RunStatus.PAUSED)
    if going and any(_may_take(definition, state, step.name) for step in steps):
        return None
    for step in steps:
        if step.kind is StepKind.APPROVAL and state.step(step.name).do.status in _DECIDED:
            said = "was approved" if state.step(step.name).is_done else "was not approved"
            return Lateness(True, f"step {step.name} {said} before")
    if not going:
        return Lateness(False, f"the run is {state.status}")
    return Lateness(False, f"step {', '.join(step.name for step in steps)} waits for it no more")


def _may_take(definition: Definition, state: RunState, name: str) -> bool:
    activity = state.step(name).do
    if activity.status in (ActivityStatus.IDLE, ActivityStatus.IN_FLIGHT) or activity.will_retry:
        return True
    if is_parked(definition, state, name):
        return True  # A person may have it wait again.
    is_wait = definition.steps[name].kind is StepKind.WAIT
    return is_wait and savepoint_before(definition, state, name) is not None


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
        found = "there is no approved in it" if isinstance(data, Mapping) else f"it is of type {type(data).__name__}"
    return f'{found}; expected a clear yes, {{"approved": True}}, or a clear no, {{"approved": False}}'


#: What the data of a no calls who said it, and why, where the signal itself does not say.
_WHO, _WHY = ("by", "actor"), ("reason", "comment", "why", "note")


def rejected(
    step: str, data: Any = None, *, actor: str | None = None, reason: str | None = None, shown: Any = None
) -> ErrorInfo:
    """The error of an approval that got no clear yes: who said so, and why.

    Args:
        step: the approval.
        data: what was said; it is in the details of the error, with `by` and `reason` put in where it lacks them.
        actor: who has given the signal.
        reason: why, as the signal says it.
        shown: the data as it may be shown to everybody: words for the message are taken from it.

    >>> rejected("ok", {"approved": False, "comment": "too dear"}, actor="ann").message
    "step 'ok' was not approved by ann: too dear"
    """
    shown = data if shown is None else shown
    who, why = actor or _text(shown, _WHO), reason or _text(shown, _WHY)
    message = f"step {step!r} was not approved{f' by {who}' if who else ''}{f': {why}' if why else ''}"
    given: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    if len(repr(given)) > MAX_DETAILS:
        given = {
            name: given[name] for name in ("approved", *_WHO, *_WHY) if len(repr(given.get(name, given))) <= MAX_SAID
        }
    details = {"by": actor, "reason": reason, **given}
    details = {name: value for name, value in details.items() if value is not None or name in given}
    return ErrorInfo(type="ApprovalRejected", message=message, details=details or None)


def _text(data: Any, names: tuple[str, ...]) -> str:
    """What data has under the first of these names that it has as text; its beginning, if it is long."""
    known = data if isinstance(data, Mapping) else {}
    said = next((known[name] for name in names if isinstance(known.get(name), str) and known[name]), "")
    return said if len(said) <= MAX_SAID else f"{said[:MAX_SAID]} ..."


def _approved(data: Any) -> Any:
    return data.get("approved") if isinstance(data, Mapping) else getattr(data, "approved", None)
