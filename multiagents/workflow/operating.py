"""What a person may tell a run, and what it makes of that.

Each verb is a fact (`StatusEvent`) with ``reason`` and ``actor``; what follows is due like anything else. The rules:

1. *Pause* holds both directions: nothing new is sent out. What is in flight comes to its end, and is recorded. A cancel
   lifts it.
2. A step whose outcome a person has to settle (its own, or that of its undo, rules S3 and S17) is *retried*, *skipped*
   (it has, or leaves, no effect: the person says so) or *supplied* with a result. Then the run goes on.
3. *Terminate* ends a run as it stands, *compensate* takes back one that was completed (rules S20, S24).

A verb that does not fit changes nothing; `why_not` says so beforehand, in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from multiagents.events import StatusEvent
from multiagents.names import Direction
from multiagents.workflow.definition import Definition
from multiagents.workflow.parking import is_parked, past_pivot
from multiagents.workflow.state import RUN, Cause, Progress, RunState, RunStatus, StepState, Track

__all__ = [
    "PAUSE",
    "RESUME",
    "RETRY",
    "SKIP",
    "SUPPLY",
    "VERBS",
    "is_so_already",
    "operated",
    "settleable",
    "why_not",
]

PAUSE = "pause_requested"
RESUME = "resume_requested"
RETRY = "retry_requested"
SKIP = "skip_requested"
SUPPLY = "result_supplied"
#: The verbs that are facts of their own; the others are the status that they lead to.
VERBS = frozenset({PAUSE, RESUME, RETRY, SKIP, SUPPLY})
_ON_STEPS = frozenset({RETRY, SKIP, SUPPLY})


def settleable(definition: Definition, state: RunState) -> Iterator[tuple[str, Direction]]:
    """The steps, and which track of each, that wait for a person."""
    for name, step in state.steps.items():
        if step.undo.is_over:
            yield name, Direction.UNDO
        elif is_parked(definition, state, name):
            yield name, Direction.DO


def operated(definition: Definition, state: RunState, event: StatusEvent) -> RunState:
    """The run after a verb; one that does not fit returns the very same state."""
    if event.status == PAUSE:
        live = state.status in (RunStatus.RUNNING, RunStatus.COMPENSATING)
        return state._replace(held=True) if live else state
    if event.status == RESUME:
        return state._replace(held=False) if state.held else state
    for name, direction in _meant(definition, state, event):
        step = state.step(name)
        track = _SETTLED[event.status](step.track(direction))
        state = state.with_step(name, step.with_track(direction, track))
    return state


def _meant(definition: Definition, state: RunState, event: StatusEvent) -> list[tuple[str, Direction]]:
    return [each for each in settleable(definition, state) if event.step in (None, each[0])]


def _retried(track: Track) -> Track:
    return track._replace(retry_in=0.0, failures=0, losses=0)


def _skipped(track: Track) -> Track:
    return track._replace(progress=Progress.SKIPPED, in_doubt=False, retry_in=None)


def _supplied(track: Track) -> Track:
    return track._replace(progress=Progress.SUCCEEDED, in_doubt=False, retry_in=None, error=None)


_SETTLED: Mapping[str, Callable[[Track], Track]] = {RETRY: _retried, SKIP: _skipped, SUPPLY: _supplied}


def is_so_already(state: RunState, event: StatusEvent) -> bool:
    """Whether the run is as the verb wants it: who got no answer may ask again."""
    if event.status == PAUSE:
        return state.held
    if event.status == RESUME:
        return not state.held and state.status in (RunStatus.RUNNING, RunStatus.COMPENSATING)
    if event.status == RunStatus.COMPENSATING:
        return state.cause is Cause.REQUEST
    return event.status == state.status


def why_not(definition: Definition, state: RunState, event: StatusEvent) -> str | None:
    """Why a verb does not fit the run, in words; None when it does."""
    if event.status in (PAUSE, RESUME):
        return _why_not_held(state, event.status)
    if event.status in _ON_STEPS:
        return None if _meant(definition, state, event) else _why_not_settled(definition, state, event)
    if event.status == RunStatus.COMPENSATING and state.status is not RunStatus.COMPLETED:
        return f"it is {state.status}; only a completed run can be taken back: cancel() one that goes on"
    if event.status not in RUN.get(state.status, ()):
        return f"it is {state.status}"
    if event.status == RunStatus.COMPENSATING and past_pivot(definition, state):
        return f"its pivot {', '.join(definition.pivots)} has succeeded, and nothing is undone behind that (rule S12)"
    return None


def _why_not_held(state: RunState, verb: str) -> str | None:
    if verb == RESUME:
        return None if state.held else f"it is {state.status}, and nobody has paused it"
    return None if state.status in (RunStatus.RUNNING, RunStatus.COMPENSATING) else f"it is {state.status}"


def _why_not_settled(definition: Definition, state: RunState, event: StatusEvent) -> str:
    waiting = ", ".join(name for name, _ in settleable(definition, state))
    found = f"it is {state.status}, and " + (
        f"what waits for a person is: {waiting}" if waiting else "nothing waits for a person"
    )
    if event.step is None:
        return found
    return f"step {event.step!r} is {_shown(state.step(event.step))}; {found}"


def _shown(step: StepState) -> str:
    return step.status.value
