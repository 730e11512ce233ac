"""Going back to a save-point, and forward again from there (rule S15).

The rules:

1. A failure behind a save-point undoes what stands behind it. What runs beside it goes on, but nothing new is begun.
2. Then all that was undone is gone through once more, as steps of a new pass; the save-point says so in its result.
3. Where it may not be gone back to any more, or an undo has failed for good, the save-point before it is gone back to,
   or the whole run is undone.
4. What succeeds late in a pass that was undone is undone while the run goes forward: it does not end before that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime

from multiagents.events import Event
from multiagents.workflow.decider.commands import compensation, status
from multiagents.workflow.decider.compensation import is_clear
from multiagents.workflow.decider.facts import Fact
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState, RunStatus

__all__ = ["left_behind", "reached", "savepoint_before", "turned_forward", "undone_by"]


def savepoint_before(definition: Definition, state: RunState, name: str) -> str | None:
    """The last save-point before a step that the run may still go back to (rule S15)."""
    for before in reversed(definition.ancestors(name)):
        retries = definition.steps[before].retries
        if retries is not None and _times(definition, state, before) < retries:
            return before
    return None


def _times(definition: Definition, state: RunState, savepoint: str) -> int:
    """How often a run has gone back to a save-point, in whatever pass that stood."""
    origin = definition.origins.get(savepoint, savepoint)
    return sum(definition.origins.get(name, name) == origin for name in state.rollbacks)


def reached(definition: Definition, state: RunState, name: str, at: datetime, *, again: bool = False) -> Event:
    """A save-point is reached (again), which its result tells: what comes behind may take another way."""
    attempt = _times(definition, state, name) + (2 if again else 1)
    error = state.error and {"type": state.error.type, "message": state.error.message}
    result = {definition.origins.get(name, name): {"attempt": attempt, "error": error if again else None}}
    return status(state, Fact.ROLLED_BACK if again else Fact.REACHED, at, step=name, payload={"result": result})


def undone_by(definition: Definition, state: RunState) -> Collection[str]:
    """The steps that a compensating run undoes, as far as they have been done."""
    return definition.behind(state.back_to) if state.back_to else definition.steps.keys()


def turned_forward(definition: Definition, state: RunState, at: datetime) -> Iterator[Event]:
    """All that stands behind the save-point is undone, or as far as it could be."""
    if any(state.step(name).undo.is_over for name in definition.behind(state.back_to)):
        reason = f"what stands behind {state.back_to} could not be undone"
        yield status(state, RunStatus.COMPENSATING, at, reason=reason, payload={"to": ""})
    else:
        yield reached(definition, state, state.back_to, at, again=True)
        yield status(state, RunStatus.RUNNING, at, reason=f"it goes on from {state.back_to}")


def left_behind(definition: Definition, state: RunState, at: datetime) -> Iterator[Event]:
    """What succeeded late in a pass that was undone is undone again; what is in hand already is said, too."""
    for name in definition.superseded & state.steps.keys():
        step = state.step(name)
        if not is_clear(definition.steps[name], step):
            yield compensation(definition, state, name, at, step.undo.retry_in or 0.0)
