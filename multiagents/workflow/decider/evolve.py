"""What is: record a fact about a run.

The rules:

1. Replies are matched by ``correlation_id`` and nothing else. A duplicate, or a reply nobody waits for any more,
   returns the very same state. A late success is remembered, for its effect may have come after the undo (rule S5).
2. What the tables `ACTIVITY` and `RUN` do not list changes nothing.
3. An event that cannot be about this run raises, and the state is untouched.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, cast

from multiagents.clock import to_ms
from multiagents.events import (
    CommandEvent,
    CompensationEvent,
    ErrorEvent,
    ErrorKind,
    Event,
    ResultEvent,
    StatusEvent,
)
from multiagents.exceptions import UnexpectedEventError, UnknownStepError
from multiagents.names import DEFAULT_QUEUE, Correlation, Direction
from multiagents.workflow.decider.compensation import undone_in_bulk
from multiagents.workflow.decider.facts import FACTS, Fact, Source
from multiagents.workflow.decider.interventions import operated
from multiagents.workflow.decider.retries import attach, failed
from multiagents.workflow.decider.signals import Answer
from multiagents.workflow.decider.timers import is_early
from multiagents.workflow.decider.tool_calls import is_new_call, with_call
from multiagents.workflow.decider.unknown_outcomes import is_parked, past_pivot
from multiagents.workflow.definition import Definition, StepDefinition
from multiagents.workflow.state import (
    ACTIVITY,
    RUN,
    Activity,
    ActivityStatus,
    Cause,
    Parent,
    RunState,
    RunStatus,
    Signal,
    StepState,
    StepStatus,
    Trigger,
)

__all__ = ["call_after", "evolve", "fold", "why_late"]

_FORWARD = (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.COMPLETED)
_NOWHERE: frozenset[RunStatus] = frozenset()


def fold(definition: Definition, transaction_id: str, history: Iterable[Event]) -> RunState:
    """The state that a history amounts to."""
    state = RunState(transaction_id, definition.name)
    for event in history:
        state = evolve(definition, state, event)
    return state


def evolve(definition: Definition, state: RunState, event: Event) -> RunState:
    """Record a fact; what does not fit (a duplicate, a late reply) returns the very same state.

    Raises:
        UnknownStepError: when the definition has no such step.
        UnexpectedEventError: when the event is of another run, or answers an attempt of another step than it names.
        DecodeError: when the correlation id of a reply is none.
    """
    if event.transaction_id != state.transaction_id:
        raise UnexpectedEventError(
            f"an event of run {event.transaction_id!r} was given to run {state.transaction_id!r}; "
            f"load the run that the event names"
        )
    definition = definition.expanded(state.sizes, state.rollbacks, state.called)
    if event.step is not None and event.step not in definition.steps:
        if is_new_call(definition, event):
            return with_call(state, cast("StatusEvent", event))
        raise UnknownStepError(definition.name, event.step, definition.steps)
    if isinstance(event, StatusEvent):
        kind = FACTS.get(event.status)
        if kind is not None and kind.source is Source.OPERATOR:
            return operated(definition, state, event)
        if event.step is None:
            return _run_status(definition, state, event)
        if event.status == Fact.TAKEN_OVER:
            return _taken_over(state, event, event.step)
        return _step_status(definition, state, event, event.step)
    if event.step is not None:
        if isinstance(event, CommandEvent | CompensationEvent):
            return _dispatched(state, event, event.step)
        if isinstance(event, ResultEvent | ErrorEvent):
            return _replied(definition, state, event, event.step)
    return state


def call_after(definition: Definition, call: StepState, event: ResultEvent | ErrorEvent) -> StepState:
    """The call of a tool after its outcome: the same as in a run of which more is known.

    Args:
        definition: what the run follows.
        call: its state before.
        event: its outcome.
    """
    name = event.step or ""
    assert call.called is not None
    run = RunState(
        event.transaction_id,
        definition.name,
        status=RunStatus.RUNNING,
        steps={name: call},
        sizes=definition.sizes,
        rollbacks=definition.rollbacks,
        called={name: call.called},
    )
    return evolve(definition, run, event).step(name)


def why_late(state: RunState, event: ResultEvent | ErrorEvent) -> str:
    """Why an outcome is one that nobody waits for any more, in words (rule S23)."""
    activity = state.step(event.step or "").activity(event.direction)
    what = "undo" if event.direction is Direction.UNDO else "step"
    if event.attempt < activity.attempt:
        why = f"attempt {event.attempt} was given up, and attempt {activity.attempt} made in its place"
    elif activity.status is ActivityStatus.SUCCEEDED:
        why = f"the {what} had succeeded already"
    else:
        why = f"attempt {event.attempt} of the {what} was over already"
    return f"{why}; the run is {state.status}"


def _facts(event: StatusEvent) -> Mapping[str, Any]:
    return event.payload if isinstance(event.payload, Mapping) else {}


# --- status events --------------------------------------------------------------------------------------------------


def _run_status(definition: Definition, state: RunState, event: StatusEvent) -> RunState:
    facts = _facts(event)
    if event.status == Fact.CANCEL_REQUESTED:
        return _cancel_requested(definition, state)
    if event.status == Fact.SIGNALLED:
        if event.late is not None or state.status not in (RunStatus.RUNNING, RunStatus.PAUSED):
            return state  # Too late: it is on record, and changes nothing (rule S23).
        signal = Signal(facts["signal"], facts["key"], facts.get("answer", ""))
        if signal.answer == Answer.NO:
            signal = signal._replace(actor=event.actor, reason=event.reason)
        return state._replace(signals=(*state.signals, signal))
    if event.status == state.status == RunStatus.COMPENSATING and state.back_to and facts.get("to") == "":
        return state._replace(back_to="", steps=_settled(state.steps, state.steps))  # It goes back all the way.
    if event.status not in RUN.get(state.status, _NOWHERE) or is_early(state, event):
        return state
    status = RunStatus(event.status)
    if status is RunStatus.RUNNING and state.cause is not None:  # it went back, even if somebody holds it now
        cancel = bool(state.back_to) and state.cancel_requested and not past_pivot(definition, state)
        return state._replace(status=status, cause=None, cancel_requested=cancel, error=None, back_to="")
    if status is RunStatus.RUNNING and state.status is RunStatus.PENDING:
        return state._replace(
            status=status,
            workflow=facts["workflow"],
            version=facts["version"],
            definition_hash=facts["definition"],
            max_lost=facts["max_lost"],
            parent=_parent(facts),
            forked_from=facts["forked"]["transaction_id"] if "forked" in facts else "",
            started_at=to_ms(event.at),
            nonce=facts.get("nonce", ""),
            home=facts.get("home", DEFAULT_QUEUE),
        )
    if status is RunStatus.COMPENSATING:
        return _turned_back(definition, state, event)
    return state._replace(status=status, finished_at=to_ms(event.at) if status.is_end else None)


def _cancel_requested(definition: Definition, state: RunState) -> RunState:
    if past_pivot(definition, state):
        return state  # It is on record; there is no way back (rule S12).
    if state.status is RunStatus.PAUSED:
        # Somebody has looked at what nobody knows, and says that it is to be undone (rule S3).
        decided = {
            name: step._replace(undo_again=True)
            for name, step in state.steps.items()
            if is_parked(definition, state, name)
        }
        state = state._replace(steps={**state.steps, **decided}) if decided else state
    if state.status.is_end or (state.cancel_requested and not state.paused):
        return state
    return state._replace(cancel_requested=True, paused=False, stopped_at=None)


def _turned_back(definition: Definition, state: RunState, event: StatusEvent) -> RunState:
    if state.status in _FORWARD and past_pivot(definition, state):
        return state
    facts = _facts(event)
    back_to = facts.get("to", state.back_to)
    return state._replace(
        status=RunStatus.COMPENSATING,
        steps=_settled(state.steps, definition.behind(back_to) if back_to else state.steps),
        cause=state.cause or Cause(facts.get("cause", Cause.FAILURE)),
        error=state.error or event.error,
        parent=_parent(facts) or state.parent,
        back_to=back_to,
        finished_at=None,
    )


def _settled(steps: Mapping[str, StepState], undone: Container[str]) -> Mapping[str, StepState]:
    """No step that is undone is tried again: what failed, failed for good. A probe has to tell all the same."""
    over = {name for name, step in steps.items() if name in undone and step.do.will_retry and not step.do.probing}
    return {
        name: step._replace(do=step.do._replace(retry_in=None)) if name in over else step
        for name, step in steps.items()
    }


def _parent(facts: Mapping[str, Any]) -> Parent | None:
    return Parent(*facts["parent"]) if facts.get("parent") else None


def _step_status(definition: Definition, state: RunState, event: StatusEvent, name: str) -> RunState:
    if event.status in (Fact.CHOSEN, Fact.SKIPPED):
        state = _branches_skipped(definition.steps[name], state, event)
    step = state.step(name)
    activity = step.do
    if event.status == Fact.RECEIVED:
        return _received(definition.steps[name], state, event, name)
    if event.status == Fact.ROLLED_BACK:
        return state._replace(rollbacks=(*state.rollbacks, name)) if state.back_to == name else state
    if event.status == Fact.EXPANDED:
        known = name in state.sizes or activity.status is not ActivityStatus.IDLE
        return state if known else state._replace(sizes={**state.sizes, name: _facts(event)["count"]})
    kind = FACTS.get(event.status)
    trigger = None if kind is None else kind.trigger
    if event.status == Fact.REVOKED and activity.in_flight:
        trigger = activity.revoked
    elif event.status == Fact.GATHERED and _facts(event).get("in_part"):
        trigger = Trigger.PART
    if trigger is None:
        return state
    status = ACTIVITY.get((activity.status, trigger))
    if status is None:
        return state
    if event.status == Fact.REVOKED:
        activity = activity._replace(status=status)
    else:
        activity = activity._replace(
            status=status, in_doubt=trigger in (Trigger.DOUBT, Trigger.PART), finished_at=to_ms(event.at)
        )
    return state.with_step(name, step._replace(do=activity))


def _taken_over(state: RunState, event: StatusEvent, name: str) -> RunState:
    """A fork counts as done what the run that it was forked from had done; it undoes that as what it did itself."""
    facts, step = _facts(event), state.step(name)
    trigger = Trigger.SKIP if facts["outcome"] == StepStatus.SKIPPED else Trigger.TAKEOVER
    status = ACTIVITY.get((step.do.status, trigger))
    if status is None:
        return state
    activity = step.do._replace(status=status, finished_at=to_ms(event.at))
    return state.with_step(name, step._replace(do=activity, origin=facts.get("origin", "")))


def _branches_skipped(step: StepDefinition, state: RunState, event: StatusEvent) -> RunState:
    """Of a choice, every step of the branches that were not chosen is skipped; of one that is skipped, all of them."""
    if not step.branches or state.step(step.name).do.status is not ActivityStatus.IDLE:
        return state
    facts = _facts(event)
    chosen = facts.get("label") if event.status == Fact.CHOSEN else None
    skipped = StepState(Activity(ActivityStatus.SKIPPED, finished_at=to_ms(event.at)))
    others = {name: skipped for label, names in step.branches.items() if label != chosen for name in names}
    return state._replace(steps={**state.steps, **others})


def _received(own: StepDefinition, state: RunState, event: StatusEvent, name: str) -> RunState:
    """A step takes its signal; an approval that got no clear yes has failed."""
    step = state.step(name)
    facts = _facts(event)
    status = ACTIVITY.get((step.do.status, Trigger.RESULT if event.error is None else Trigger.FAILURE))
    taken = (own.signal, facts.get("key"))
    left = tuple(signal for signal in state.signals if (signal.name, signal.key) != taken)
    if status is None or left == state.signals:
        return state
    activity = step.do._replace(status=status, retry_in=None, finished_at=to_ms(event.at), error=event.error)
    return state.with_step(name, step._replace(do=activity))._replace(signals=left)


# --- commands -------------------------------------------------------------------------------------------------------


def _dispatched(state: RunState, event: CommandEvent | CompensationEvent, name: str) -> RunState:
    direction = Direction.UNDO if isinstance(event, CompensationEvent) else Direction.DO
    step = state.step(name)
    activity = step.activity(direction)
    status = ACTIVITY.get((activity.status, Trigger.COMMAND))
    if status is None or event.attempt != activity.attempt + 1:
        return state
    probing = isinstance(event, CommandEvent) and event.probe
    again = activity.status is ActivityStatus.SUCCEEDED or (probing and not activity.probing)
    activity = activity._replace(
        status=status,
        attempt=event.attempt,
        # Undoing once more, and asking a probe, are tasks of their own: what was before does not count against them.
        failures=0 if again else activity.failures,
        losses=0 if again else activity.losses,
        probing=probing,
        retry_in=None,
        scheduled_at=activity.scheduled_at if activity.scheduled_at is not None else to_ms(event.at),
        finished_at=None,
    )
    if direction is Direction.UNDO:
        step = step._replace(undo_again=False)
    return state.with_step(name, step.with_activity(direction, activity))


# --- replies --------------------------------------------------------------------------------------------------------


def _replied(definition: Definition, state: RunState, event: ResultEvent | ErrorEvent, name: str) -> RunState:
    direction = event.direction
    step = state.step(name)
    activity = step.activity(direction)
    if not activity.in_flight or event.correlation_id != str(
        Correlation(state.transaction_id, name, direction, activity.attempt)
    ):
        return _unawaited(definition, state, event, name)
    if isinstance(event, ResultEvent):
        activity = activity._replace(
            status=ACTIVITY[activity.status, Trigger.RESULT],
            in_doubt=False,
            retry_in=None,
            started_at=None if event.started_at is None else to_ms(event.started_at),
            finished_at=to_ms(event.at),
            worker=event.worker,
            error=None,
        )
    else:
        activity = failed(definition, state, activity, event)
    after = state.with_step(name, step.with_activity(direction, activity))
    if direction is Direction.UNDO and activity.is_over and activity.error is not None:
        after = after._replace(error=attach(state.error, activity.error, f"undo of {name}"))
    return after


def _unawaited(definition: Definition, state: RunState, event: ResultEvent | ErrorEvent, name: str) -> RunState:
    """A reply nobody waits for: a failure before anybody was asked, a late success (rule S5), or nothing new."""
    transaction_id, about, direction, attempt, _ = Correlation.parse(event.correlation_id)
    if (transaction_id, about) != (state.transaction_id, name):
        raise UnexpectedEventError(
            f"an event of run {state.transaction_id!r} step {name!r} carries the correlation id "
            f"{event.correlation_id!r} of another step or run; send back the id that came with the command"
        )
    step = state.step(name)
    if direction is Direction.UNDO:
        return state
    if isinstance(event, ErrorEvent):
        nobody_asked = step.do.status is ActivityStatus.IDLE and not step.do.attempt and attempt == 1
        if nobody_asked and state.status is RunStatus.RUNNING and event.kind is ErrorKind.FAILED:
            return state.with_step(name, step._replace(do=failed(definition, state, step.do, event)))
        return state
    counted = step.do.status is ActivityStatus.SUCCEEDED and attempt == step.do.attempt
    if counted or attempt in step.late or not 0 < attempt <= step.do.attempt:
        return state
    undone = step.undo.status is not ActivityStatus.IDLE
    after = state.with_step(name, step._replace(late=(*step.late, attempt), undo_again=step.undo_again or undone))
    return undone_in_bulk(definition, after, name)
