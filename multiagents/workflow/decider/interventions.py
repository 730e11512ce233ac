"""What a person may tell a run, and what it makes of that.

Each verb is a fact (`StatusEvent`) with ``reason`` and ``actor``; what follows is due like anything else. The rules:

1. *Pause* holds both directions: nothing new is sent out. What is in flight comes to its end, and is recorded. A cancel
   lifts it. What becomes of timers is in `multiagents.workflow.decider.timers`.
2. A step whose outcome a person has to settle (its own, or that of its undo, rules S3 and S17) is *retried*, *skipped*
   (it has, or leaves, no effect: the person says so) or *supplied* with a result. Then the run goes on. In a run that
   goes back only undos and probes are retried.
3. An undo that was given up may be *abandoned*: nobody comes back to it. Its effect stays as it is, and the run stays
   `compensation_failed`; one that is skipped counts as settled (rule S18).
4. *Terminate* ends a run as it stands, *compensate* takes back one that was completed (rules S20, S24).

A verb that does not fit changes nothing; `why_not` says so beforehand, in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from multiagents.events import StatusEvent
from multiagents.names import Direction
from multiagents.workflow.decider.facts import Fact
from multiagents.workflow.decider.signals import Answer, answer_of, why_unclear
from multiagents.workflow.decider.timers import paused, resumed, stops_timers, with_deadline
from multiagents.workflow.decider.unknown_outcomes import is_parked, past_pivot
from multiagents.workflow.definition import Definition, StepKind
from multiagents.workflow.state import RUN, Activity, ActivityStatus, Cause, RunState, RunStatus, StepState

__all__ = [
    "is_so_already",
    "operated",
    "settleable",
    "why_not",
]

#: The verbs that are about what waits for a person.
_ON_STEPS = frozenset({Fact.RETRY_REQUESTED, Fact.SKIP_REQUESTED, Fact.RESULT_SUPPLIED, Fact.ABANDON_REQUESTED})


def settleable(definition: Definition, state: RunState) -> Iterator[tuple[str, Direction]]:
    """The steps, and which activity of each, that wait for a person."""
    for name, step in state.steps.items():
        if step.undo.is_over and not step.abandoned:
            yield name, Direction.UNDO
        elif is_parked(definition, state, name):
            yield name, Direction.DO


def operated(definition: Definition, state: RunState, event: StatusEvent) -> RunState:
    """The run after a verb; one that does not fit returns the very same state."""
    if event.status == Fact.PAUSE_REQUESTED:
        fits = not is_so_already(state, event) and _why_not_pausable(state, event.status) is None
        return paused(state, event) if fits else state
    if event.status == Fact.RESUME_REQUESTED:
        return resumed(definition, state, event.at) if state.paused else state
    if event.status == Fact.DEADLINE_UPDATED:
        return with_deadline(state, event)
    if event.status in (Fact.TIMER_UPDATED, Fact.CALL_DECIDED):
        return state
    for name, direction in _meant(definition, state, event):
        step = state.step(name)
        if event.status == Fact.ABANDON_REQUESTED:
            state = state.with_step(name, step._replace(abandoned=True))
            continue
        activity = _SETTLED[event.status](step.activity(direction))
        state = state.with_step(name, step.with_activity(direction, activity))
    return state


def _meant(definition: Definition, state: RunState, event: StatusEvent) -> list[tuple[str, Direction]]:
    meant = [each for each in settleable(definition, state) if event.step in (None, each[0])]
    if event.status == Fact.ABANDON_REQUESTED:
        return [each for each in meant if each[1] is Direction.UNDO]
    if event.status == Fact.RETRY_REQUESTED and state.cause is not None and not past_pivot(definition, state):
        # What goes back does nothing again, but it may ask again.
        return [each for each in meant if each[1] is Direction.UNDO or definition.own(each[0]).resolve_with]
    return meant


def _retried(activity: Activity) -> Activity:
    # Of a step whose probe could not tell: the step itself, or in a run that goes back its probe, is asked anew.
    return activity._replace(retry_in=0.0, failures=0, losses=0, probing=False)


def _skipped(activity: Activity) -> Activity:
    return activity._replace(status=ActivityStatus.SKIPPED, in_doubt=False, retry_in=None)


def _supplied(activity: Activity) -> Activity:
    return activity._replace(status=ActivityStatus.SUCCEEDED, in_doubt=False, retry_in=None, error=None)


_SETTLED: Mapping[str, Callable[[Activity], Activity]] = {
    Fact.RETRY_REQUESTED: _retried,
    Fact.SKIP_REQUESTED: _skipped,
    Fact.RESULT_SUPPLIED: _supplied,
}


def is_so_already(state: RunState, event: StatusEvent) -> bool:
    """Whether the run is as the verb wants it: who got no answer may ask again."""
    if event.status == Fact.PAUSE_REQUESTED:
        return state.paused and (state.stopped_at is not None or not stops_timers(event))
    if event.status == Fact.RESUME_REQUESTED:
        return not state.paused and state.status in (RunStatus.RUNNING, RunStatus.COMPENSATING)
    if event.status == RunStatus.COMPENSATING:
        return state.cause is Cause.REQUEST
    if event.status == Fact.ABANDON_REQUESTED and event.step is not None:
        return state.step(event.step).abandoned
    return event.status == state.status


def why_not(definition: Definition, state: RunState, event: StatusEvent) -> str | None:
    """Why a verb does not fit the run, in words; None when it does."""
    if event.status in (Fact.PAUSE_REQUESTED, Fact.RESUME_REQUESTED):
        return _why_not_pausable(state, event.status)
    if event.status in _ON_STEPS:
        if not (meant := _meant(definition, state, event)):
            return _why_not_settled(definition, state, event)
        return _why_not_approved(definition, event, meant) if event.status == Fact.RESULT_SUPPLIED else None
    if event.status == RunStatus.COMPENSATING and state.status is not RunStatus.COMPLETED:
        return f"it is {state.status}; only a completed run can be taken back: cancel() one that goes on"
    if event.status not in RUN.get(state.status, ()):
        return f"it is {state.status}"
    if event.status == RunStatus.COMPENSATING and past_pivot(definition, state):
        return f"its pivot {', '.join(definition.pivots)} has succeeded, and nothing is undone behind that (rule S12)"
    return None


def _why_not_pausable(state: RunState, verb: str) -> str | None:
    if verb == Fact.RESUME_REQUESTED:
        return None if state.paused else f"it is {state.status}, and nobody has paused it"
    may_be_paused = state.paused or state.status in (RunStatus.RUNNING, RunStatus.COMPENSATING)
    return None if may_be_paused else f"it is {state.status}"


def _why_not_settled(definition: Definition, state: RunState, event: StatusEvent) -> str:
    waiting = ", ".join(name for name, _ in settleable(definition, state))
    found = f"it is {state.status}, and " + (
        f"what waits for a person is: {waiting}" if waiting else "nothing waits for a person"
    )
    if waiting and event.status == Fact.ABANDON_REQUESTED:
        found += "; only an undo can be abandoned"
    if event.status == Fact.RETRY_REQUESTED and waiting and event.step in (None, *dict(settleable(definition, state))):
        return (
            f"{found}, but the run goes back, and nothing is done again then: skip() the step if it took no effect, "
            f"supply() its result if it did, or cancel() the run to have it undone in any case"
        )
    if event.step is None:
        return found
    return f"step {event.step!r} is {_shown(state.step(event.step))}; {found}"


def _why_not_approved(definition: Definition, event: StatusEvent, meant: list[tuple[str, Direction]]) -> str | None:
    result = (event.payload or {}).get("result")
    for name, direction in meant:
        own = definition.own(name)
        if own.kind is StepKind.APPROVAL and direction is Direction.DO and answer_of(result) is not Answer.YES:
            return f"step {name!r} is an approval, which nothing but a clear yes gives: {why_unclear(result)}"
    return None


def _shown(step: StepState) -> str:
    return step.status.value
