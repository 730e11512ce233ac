"""Runs that are steps of other runs: what passes between a parent and its child (rules S10, S11).

The rules:

1. A child that completes is the success of its step. One that has undone what it did has failed for certain, and so has
   one that never did anything; of any other end nobody knows what it left.
2. A child is undone as a unit, by its own journal. If nothing of it is live at its end, it is undone.
3. A parent that compensates begins no child any more, and has those stop that it is told to stop (rule S7): they are
   cancelled, and the parent waits for them. Leaves come first: a child that is cancelled does the same to its own.
4. What a person settles of a child whose own undo had failed settles its parent, which had to park the undo of its step
   for it: undone, if nothing of the child is live any more; skipped, if the person has let something stay.
5. A parent that is terminated has its children terminated. A detached child is never told anything.
"""

from __future__ import annotations

from multiagents.events import ErrorInfo, ErrorKind
from multiagents.workflow.decider.compensation import is_told_to_stop
from multiagents.workflow.decider.facts import Fact
from multiagents.workflow.decider.savepoints import undone_by
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState, RunStatus

__all__ = ["concerns_others", "failure_of_child", "is_to_stop", "is_undone", "running_children", "settled_with_child"]

#: Ends of a child after which nothing that it did is live: its step has failed for certain, or is undone.
_NOTHING_LEFT = frozenset({RunStatus.COMPENSATED, RunStatus.CANCELLED, RunStatus.TIMED_OUT, RunStatus.FAILED})


def concerns_others(definition: Definition, before: RunState, after: RunState) -> bool:
    """Whether others have to be told of a decision: of the end of a run, or its children that they are to stop."""
    if before.status is after.status:
        return False
    if after.status.is_end and (after.parent is not None or definition.on_end is not None):
        return True
    if after.status not in (RunStatus.COMPENSATING, RunStatus.TERMINATED) or not definition.has_children:
        return False
    return any(step.do.in_flight and definition.own(name).workflow is not None for name, step in after.steps.items())


def running_children(definition: Definition, state: RunState) -> list[str]:
    """The steps in flight that are runs of their own, and not detached."""
    found = []
    for name, step in state.steps.items():
        own = definition.own(name)
        if step.do.in_flight and own.workflow is not None and not own.detached:
            found.append(name)
    return found


def is_undone(definition: Definition, state: RunState, step: str) -> bool:
    """Whether a run compensates, and undoes this step."""
    return state.status is RunStatus.COMPENSATING and step in undone_by(definition, state)


def is_to_stop(definition: Definition, state: RunState, step: str) -> bool:
    """Whether a run compensates, and this step in flight is to stop."""
    return state.status is RunStatus.COMPENSATING and is_told_to_stop(definition, state, step)


def settled_with_child(definition: Definition, parent: RunState, step: str, child: RunState) -> Fact | None:
    """What the end of a child settles of the undo that its parent has parked; None where that has nothing to settle.

    Args:
        definition: what the parent follows.
        parent: the parent.
        step: its step that the child is.
        child: the child, which is over.
    """
    is_same = child.parent is not None and child.parent.is_run(parent)
    own = parent.step(step)
    if not is_same or not own.undo.is_over or own.abandoned or not definition.own(step).is_undone_as_child:
        return None
    if child.status is RunStatus.COMPENSATED_PARTIALLY:
        return Fact.SKIP_REQUESTED
    return Fact.RESULT_SUPPLIED if child.status in _NOTHING_LEFT else None


def failure_of_child(child: RunState, *, undo: bool, attempt: int) -> tuple[ErrorInfo, ErrorKind] | None:
    """What the end of a child is to its step, or to the undo of its step; None if it is a success.

    Args:
        child: the child, which is over.
        undo: it is asked about because its step is undone.
        attempt: of the step.
    """
    nothing_left = child.status in _NOTHING_LEFT
    if nothing_left if undo else child.status is RunStatus.COMPLETED:
        return None
    causes = () if child.error is None else (child.error,)
    why = f": {child.error.message}" if child.error else ""
    message = f"child run {child.transaction_id!r} is {child.status}{why}"
    if child.status is RunStatus.COMPENSATION_FAILED:
        message += f"; settle what waits in run {child.transaction_id!r}, and this is settled with it"
    error = ErrorInfo(type="ChildFailed", message=message, attempt=attempt, causes=causes)
    return error, ErrorKind.FAILED if nothing_left else ErrorKind.UNKNOWN
