"""What people say of a run's time: a deadline that is moved, timers that stand still while it is paused.

The rules:

1. A paused run's timers run on, or stand still, as whoever pauses it declares (rule S22): the sleeps, the time limits
   of waits, the pauses before retries, and the run's deadline. What stands still has, when the run is resumed, as long
   left as it had.
2. A deadline is that of the definition until somebody moves it, or time stood still. A deadline that is found to have
   passed, and has been moved meanwhile, turns nothing round.

Where the timers themselves are is the store's: it looks here for how far they are to be moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from multiagents.clock import to_ms
from multiagents.events import StatusEvent
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import Cause, RunState, RunStatus

__all__ = [
    "deadline_of",
    "is_early",
    "later",
    "moved_to",
    "paused",
    "resumed",
    "stops_timers",
    "with_deadline",
]


def deadline_of(definition: Definition, state: RunState) -> int | None:
    """When the run is to be over (ms of the store's clock); None is without limit."""
    if state.deadline_at is not None or definition.deadline is None or state.started_at is None:
        return state.deadline_at
    return state.started_at + round(definition.deadline * 1000)


def stops_timers(event: StatusEvent) -> bool:
    """Whether a pause says that timers stand still."""
    facts: Mapping[str, Any] = event.payload if isinstance(event.payload, Mapping) else {}
    return facts.get("timers") == "stop"


def paused(state: RunState, event: StatusEvent) -> RunState:
    """The run when somebody has paused it."""
    stopped_at = state.stopped_at
    if stopped_at is None and stops_timers(event):
        stopped_at = to_ms(event.at)
    return state._replace(paused=True, stopped_at=stopped_at)


def resumed(definition: Definition, state: RunState, at: datetime) -> RunState:
    """The run when nobody holds it any more: its deadline has as long left as it had when it stood still."""
    deadline = deadline_of(definition, state)
    if state.stopped_at is None or deadline is None:
        return state._replace(paused=False, stopped_at=None)
    return state._replace(paused=False, stopped_at=None, deadline_at=later(deadline, state.stopped_at, to_ms(at)))


def later(due: int, stopped_at: int, now: int) -> int:
    """When a timer is due that stood still until now; all in ms.

    >>> later(due=5_000, stopped_at=2_000, now=60_000)
    63000
    """
    return now + max(0, due - stopped_at)


def with_deadline(state: RunState, event: StatusEvent) -> RunState:
    """The run with its deadline moved."""
    if state.status not in (RunStatus.RUNNING, RunStatus.PAUSED):
        return state
    return state._replace(deadline_at=moved_to(event))


def moved_to(event: StatusEvent) -> int:
    """The new time (ms) of what somebody has moved."""
    return to_ms(datetime.fromisoformat(event.payload["at"]))


def is_early(state: RunState, event: StatusEvent) -> bool:
    """Whether this says that the deadline has passed, while it stands still or was moved to a later time."""
    facts: Mapping[str, Any] = event.payload if isinstance(event.payload, Mapping) else {}
    if event.status != RunStatus.COMPENSATING or facts.get("cause") != Cause.DEADLINE:
        return False
    return state.stopped_at is not None or (state.deadline_at is not None and to_ms(event.at) < state.deadline_at)
