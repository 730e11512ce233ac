"""What follows from an event: the heart of the engine, as three pure functions.

The literature's *Decider* turns a command into events. Ours is its mirror, the *process manager*: events come in, and
commands go out.

- `evolve` records a fact: state and event in, state out. ``fold(evolve, history) == state`` for every run.
- `react` says what is due: it looks at the state alone. Recovery after a crash is therefore ``react(load())``, and there
  is no second path to get wrong.
- `decide` is evolve, then react until nothing more is due.

The rules:

1. Replies are matched by ``correlation_id`` and nothing else. A duplicate, or a reply nobody waits for any more, leaves
   the state as it is; a late success is remembered, because its effect may have come after the undo (rule S5).
2. A step is due when every step before it succeeded or was skipped.
3. When a step is over without success, no further step starts. What is in flight settles first; then every step whose
   effect is, or may be, live is undone, each as soon as all that depends on it is clear (rules S3, S6, S7).
4. Nothing is dispatched after the end, with one exception: a late success reopens a run whose undo may have come too
   early.

No clock, no ids, no randomness: an event's time is "now", ids follow from what they name, jitter is drawn from the
correlation id. What only user code can answer (``when``, ``inputs``) is asked of the shell through ``ask`` and recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from multiagents.events import (
    CommandEvent,
    CompensationEvent,
    ErrorEvent,
    ErrorInfo,
    ErrorKind,
    Event,
    ResultEvent,
    StatusEvent,
)
from multiagents.exceptions import UnexpectedEventError, UnknownStepError
from multiagents.names import Correlation, Direction
from multiagents.retry import UNDO_RETRY, RetryPolicy
from multiagents.workflow.definition import Definition, StepDefinition
from multiagents.workflow.state import (
    TRACK,
    Cause,
    Progress,
    RunState,
    RunStatus,
    StepState,
    Track,
    Trigger,
)

__all__ = ["RUN", "Ask", "advance", "decide", "evolve", "fold", "needs_undo", "react", "start_event"]

#: What a status event says of a step rather than of the run.
SKIPPED = "skipped"
RECALLED = "recalled"
ABANDONED = "abandoned"
#: What a person says to the run; it is a fact before anything follows from it.
CANCEL_REQUESTED = "cancel_requested"

#: From which status a run may go to which. A status event that is not here leaves the run as it is.
RUN: Mapping[RunStatus, frozenset[RunStatus]] = MappingProxyType(
    {
        RunStatus.PENDING: frozenset({RunStatus.RUNNING}),
        RunStatus.RUNNING: frozenset({RunStatus.COMPLETED, RunStatus.COMPENSATING, RunStatus.PAUSED}),
        RunStatus.PAUSED: frozenset({RunStatus.COMPENSATING}),
        RunStatus.COMPENSATING: frozenset(
            {
                RunStatus.PAUSED,
                RunStatus.COMPENSATED,
                RunStatus.COMPENSATION_FAILED,
                RunStatus.CANCELLED,
                RunStatus.TIMED_OUT,
                RunStatus.FAILED,
            }
        ),
        # Rule S5: a late success reopens a run whose undo may have come before it.
        RunStatus.COMPENSATED: frozenset({RunStatus.COMPENSATING}),
        RunStatus.COMPENSATION_FAILED: frozenset({RunStatus.COMPENSATING}),
        RunStatus.CANCELLED: frozenset({RunStatus.COMPENSATING}),
        RunStatus.TIMED_OUT: frozenset({RunStatus.COMPENSATING}),
    }
)

#: Asked of the shell for each command before it is recorded: the same command (with the answer of ``inputs`` as its
#: payload), a status event when ``when`` is false, or an error event when the callable raised.
Ask = Callable[[StepDefinition, CommandEvent], Event]


def _as_it_is(_step: StepDefinition, command: CommandEvent) -> Event:
    return command


def start_event(definition: Definition, transaction_id: str, *, now: datetime, max_lost: int = 5) -> StatusEvent:
    """The first fact of a run: which definition it follows, and the settings it is pinned to."""
    return StatusEvent(
        id=f"{transaction_id}/running",
        transaction_id=transaction_id,
        timestamp=now,
        occurred_at=now,
        status=RunStatus.RUNNING,
        payload={
            "workflow": definition.name,
            "version": definition.version,
            "definition": definition.content_hash,
            "max_lost": max_lost,
        },
    )


def fold(definition: Definition, transaction_id: str, history: Iterable[Event]) -> RunState:
    """The state that a history amounts to."""
    state = RunState(transaction_id, definition.name)
    for event in history:
        state = evolve(definition, state, event)
    return state


def decide(
    definition: Definition, state: RunState, event: Event, ask: Ask = _as_it_is
) -> tuple[RunState, tuple[Event, ...]]:
    """Record an event and say what follows from it; calling it again with the same event gives no commands.

    Nothing is sent: whoever calls it commits the state, the event and the commands in one step.

    Args:
        definition: what the run follows.
        state: the run, or a projection of it that holds at least the step the event is about.
        event: a result, an error or a status.
        ask: answers for user code; the default takes every command as it is.

    Returns:
        The new state, and the commands in the order in which they are to be recorded.

    Raises:
        UnknownStepError: when the definition has no such step; the state is untouched.
        UnexpectedEventError: when the event is of another run.
    """
    after = evolve(definition, state, event)
    if after is state:
        return state, ()
    near = None if event.step is None else (event.step, *definition.successors[event.step])
    return advance(definition, after, now=event.at, ask=ask, near=near)


def advance(
    definition: Definition,
    state: RunState,
    *,
    now: datetime,
    ask: Ask = _as_it_is,
    near: Iterable[str] | None = None,
) -> tuple[RunState, tuple[Event, ...]]:
    """React, record what was said, and react again, until nothing more is due.

    Args:
        definition: what the run follows.
        state: the run or a projection of it.
        now: the time that the commands are stamped with.
        ask: answers for user code.
        near: look at these steps only; None is all of them.
    """
    said: list[Event] = []
    steps = None if near is None else list(near)
    while commands := react(definition, state, steps):
        for command in commands:
            event: Event = command.model_copy(update={"timestamp": now, "occurred_at": now})
            if isinstance(event, CommandEvent) and event.attempt == 1:
                event = ask(definition.steps[event.step or ""], event)
            state = evolve(definition, state, event)
            said.append(event)
            if steps is not None and event.step is not None and not isinstance(event, CommandEvent):
                steps += [name for name in definition.successors[event.step] if name not in steps]
    return state, tuple(said)


# --- evolve: what is ---------------------------------------------------------------------------------------------


def evolve(definition: Definition, state: RunState, event: Event) -> RunState:
    """Record a fact; what does not fit (a duplicate, a late reply) returns the very same state.

    Raises:
        UnknownStepError: when the definition has no such step.
        UnexpectedEventError: when the event is of another run.
    """
    if event.transaction_id != state.transaction_id:
        raise UnexpectedEventError(
            f"an event of run {event.transaction_id!r} was given to run {state.transaction_id!r}; "
            f"load the run that the event names"
        )
    if event.step is not None and event.step not in definition.steps:
        raise UnknownStepError(definition.name, event.step, definition.steps)
    if isinstance(event, StatusEvent):
        return _run_status(definition, state, event) if event.step is None else _step_status(state, event)
    if isinstance(event, CommandEvent | CompensationEvent):
        return _dispatched(state, event)
    if isinstance(event, ResultEvent | ErrorEvent):
        return _replied(definition, state, event)
    return state


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _run_status(definition: Definition, state: RunState, event: StatusEvent) -> RunState:
    if event.status == CANCEL_REQUESTED:
        if state.cancel_requested or state.status.is_end:
            return state
        return replace(state, cancel_requested=True)
    status = RunStatus(event.status)
    if status not in RUN.get(state.status, ()):
        return state
    facts = event.payload if isinstance(event.payload, Mapping) else {}
    if status is RunStatus.RUNNING:
        return replace(
            state,
            status=status,
            workflow=facts["workflow"],
            version=facts["version"],
            definition_hash=facts["definition"],
            max_lost=facts["max_lost"],
            started_at=_ms(event.at),
        )
    if status is RunStatus.COMPENSATING:
        # From here on no step is tried again: what failed, failed for good.
        steps = {
            name: replace(step, do=replace(step.do, retry_in=None)) if step.do.will_retry else step
            for name, step in state.steps.items()
        }
        cause = state.cause or Cause(facts.get("cause", Cause.FAILURE))
        return replace(
            state, status=status, steps=steps, cause=cause, error=state.error or event.error, finished_at=None
        )
    return replace(state, status=status, finished_at=_ms(event.at) if status.is_end else None)


def _step_status(state: RunState, event: StatusEvent) -> RunState:
    assert event.step is not None
    step = state.step(event.step)
    track = step.do
    if event.status == SKIPPED and (progress := TRACK.get((track.progress, Trigger.SKIP))):
        track = replace(track, progress=progress, finished_at=_ms(event.at))
    elif event.status == RECALLED and (track.progress, Trigger.RECALL) in TRACK:
        track = replace(track, progress=track.settled)
    elif event.status == ABANDONED and (progress := TRACK.get((track.progress, Trigger.DOUBT))):
        track = replace(track, progress=progress, in_doubt=True, finished_at=_ms(event.at))
    else:
        return state
    return state.with_step(event.step, replace(step, do=track))


def _dispatched(state: RunState, event: CommandEvent | CompensationEvent) -> RunState:
    assert event.step is not None
    direction = Direction.UNDO if isinstance(event, CompensationEvent) else Direction.DO
    step = state.step(event.step)
    track = step.track(direction)
    progress = TRACK.get((track.progress, Trigger.COMMAND))
    if progress is None or event.attempt != track.attempt + 1:
        return state
    track = replace(
        track,
        progress=progress,
        attempt=event.attempt,
        retry_in=None,
        scheduled_at=track.scheduled_at if track.scheduled_at is not None else _ms(event.at),
        finished_at=None,
    )
    if direction is Direction.UNDO:
        step = replace(step, undo_again=False)
    return state.with_step(event.step, step.with_track(direction, track))


def _replied(definition: Definition, state: RunState, event: ResultEvent | ErrorEvent) -> RunState:
    assert event.step is not None
    direction = event.direction
    step = state.step(event.step)
    track = step.track(direction)
    expected = str(Correlation(state.transaction_id, event.step, direction, track.attempt))
    if event.correlation_id != expected or not track.in_flight:
        if isinstance(event, ErrorEvent) and event.attempt == 1 and track.progress is Progress.IDLE:
            # Its ``when`` or ``inputs`` raised: it failed before anybody was asked to do it.
            return state.with_step(event.step, step.with_track(direction, _failed(definition, state, track, event)))
        return _late(state, event, step)
    if isinstance(event, ResultEvent):
        track = replace(
            track,
            progress=TRACK[track.progress, Trigger.RESULT],
            in_doubt=False,
            retry_in=None,
            started_at=_ms(event.started_at),
            finished_at=_ms(event.at),
            worker=event.worker,
            error=None,
        )
    else:
        track = _failed(definition, state, track, event)
    after = state.with_step(event.step, step.with_track(direction, track))
    if direction is Direction.UNDO and track.is_over and track.error is not None:
        after = replace(after, error=_attach(state.error, track.error, event.step))
    return after


def _late(state: RunState, event: ResultEvent | ErrorEvent, step: StepState) -> RunState:
    """A reply nobody waits for: only a success that may have come after the undo changes anything (rule S5)."""
    assert event.step is not None
    correlation = Correlation.parse(event.correlation_id)
    known = (
        not isinstance(event, ResultEvent)
        or correlation.direction is Direction.UNDO
        or not 0 < correlation.attempt <= step.do.attempt
        or correlation.attempt in step.late
        or (step.do.progress is Progress.SUCCEEDED and correlation.attempt == step.do.attempt)
    )
    if known:
        return state
    undone = step.undo.progress is not Progress.IDLE
    return state.with_step(
        event.step, replace(step, late=(*step.late, correlation.attempt), undo_again=step.undo_again or undone)
    )


def _failed(definition: Definition, state: RunState, track: Track, event: ErrorEvent) -> Track:
    """The track after an attempt that did not succeed, with the delay of the next one if there is to be one."""
    assert event.step is not None
    lost = event.kind is ErrorKind.LOST
    in_doubt = track.in_doubt or event.kind is not ErrorKind.FAILED
    losses = track.losses + lost
    failures = track.failures + (not lost)
    undo = event.direction is Direction.UNDO
    retry_in: float | None = None
    if lost:
        retry_in = 0.0 if losses < state.max_lost else None
    elif event.retryable and event.kind is not ErrorKind.UNKNOWN:
        policy = _policy(definition.steps[event.step], event, undo)
        retry_in = policy.delay(failures, seed=event.correlation_id)
    if not undo and state.status is not RunStatus.RUNNING:
        retry_in = None
    return replace(
        track,
        progress=Progress.UNKNOWN if in_doubt else Progress.FAILED,
        failures=failures,
        losses=losses,
        in_doubt=in_doubt,
        retry_in=retry_in,
        started_at=_ms(event.started_at),
        finished_at=_ms(event.at),
        worker=event.worker,
        error=event.error,
    )


def _policy(step: StepDefinition, event: ErrorEvent, undo: bool) -> RetryPolicy:
    """The step's, else the worker's, else the default."""
    if undo:
        return step.undo_retry or event.retry_policy or UNDO_RETRY
    return step.retry or event.retry_policy or RetryPolicy()


def _attach(original: ErrorInfo | None, undo_error: ErrorInfo, step: str) -> ErrorInfo:
    """Rule S19: an undo's error is attached to the original, and never replaces it."""
    attached = undo_error.model_copy(update={"message": f"undo of {step}: {undo_error.message}"})
    if original is None:
        return attached
    return original.model_copy(update={"causes": (*original.causes, attached)})


# --- react: what is due ------------------------------------------------------------------------------------------


def react(definition: Definition, state: RunState, near: Iterable[str] | None = None) -> tuple[Event, ...]:
    """Say what is due now; it depends on the state alone, and asking twice gives the same.

    Args:
        definition: what the run follows.
        state: the run or a projection of it.
        near: look at these steps only (those an event can have made due); None is all of them.
    """
    names = tuple(definition.steps if near is None else near)
    match state.status:
        case RunStatus.RUNNING:
            return tuple(_forward(definition, state, names))
        case RunStatus.PAUSED:
            return tuple(_cancelled(state))
        case RunStatus.COMPENSATING:
            return tuple(_back(definition, state))
        case _:
            return tuple(_reopened(state))


def _forward(definition: Definition, state: RunState, names: tuple[str, ...]) -> Iterator[Event]:
    if state.cancel_requested:
        yield from _cancelled(state)
        return
    for name in names:
        do = state.step(name).do
        if not do.is_over:
            continue
        if do.progress is Progress.UNKNOWN and definition.steps[name].on_unknown == "park":
            yield _status(state, RunStatus.PAUSED, reason=f"nobody knows whether step {name} took effect")
        else:
            yield _status(state, RunStatus.COMPENSATING, error=do.error, payload={"cause": Cause.FAILURE.value})
        return
    for name in names:
        step = state.step(name)
        if step.do.will_retry:
            yield _command(definition, state, name, step.do.retry_in or 0.0)
        elif step.do.progress is Progress.IDLE and all(
            state.step(before).is_done for before in definition.steps[name].after
        ):
            yield _command(definition, state, name)
    if all(state.step(name).is_done for name in definition.exits):
        yield _status(state, RunStatus.COMPLETED)


def _cancelled(state: RunState) -> Iterator[Event]:
    if state.cancel_requested:
        error = state.error or ErrorInfo(type="Cancelled", message="the run was cancelled on request")
        yield _status(state, RunStatus.COMPENSATING, error=error, payload={"cause": Cause.CANCEL.value})


def needs_undo(definition: StepDefinition, step: StepState) -> bool:
    """Whether the step's effect is, or may be, live, and something is there to undo it (rule S3)."""
    if definition.compensation is None:
        return False
    if step.do.progress is Progress.FAILED:
        return definition.compensate_on_failure and step.do.attempt > 0
    return step.do.progress in (Progress.SUCCEEDED, Progress.UNKNOWN)


def _back(definition: Definition, state: RunState) -> Iterator[Event]:
    in_flight = [name for name, step in state.steps.items() if step.do.in_flight]
    if in_flight:
        # Rule S5: who is not cancel-safe is given until its time limit before anything is undone.
        for name in in_flight:
            if definition.steps[name].cancel_safe:
                yield _status(state, ABANDONED, step=name, reason="the run goes back, and the step is cancel-safe")
        return
    if not state.cancel_requested:
        for name, step in state.steps.items():
            if step.do.progress is Progress.UNKNOWN and definition.steps[name].on_unknown == "park":
                yield _status(state, RunStatus.PAUSED, reason=f"nobody knows whether step {name} took effect")
                return
    waiting = False
    for name in _undoable(definition, state):
        undo = state.step(name).undo
        waiting = waiting or undo.in_flight or not undo.is_over
        if not undo.in_flight and not undo.is_over:
            yield _compensation(definition, state, name, undo.retry_in or 0.0)
    if not waiting and all(_is_clear(definition, state, name) for name in state.steps):
        yield _status(state, _end(state))


def _is_clear(definition: Definition, state: RunState, name: str) -> bool:
    """Whether nothing (more) is to be done about this step's effect."""
    step = state.step(name)
    if not needs_undo(definition.steps[name], step):
        return True
    return (step.undo.progress is Progress.SUCCEEDED and not step.undo_again) or step.undo.is_over


def _undoable(definition: Definition, state: RunState) -> Iterator[str]:
    """The steps to undo whose turn has come: all that depends on them is clear (rule S6)."""
    if definition.compensate_in is not None:
        for name in definition.compensate_in:
            if not _is_clear(definition, state, name):
                yield name
                return
        return
    unwound: dict[str, bool] = {}
    for name in reversed(definition.order):
        free = all(unwound[after] for after in definition.successors[name])
        clear = _is_clear(definition, state, name)
        unwound[name] = free and clear
        if free and not clear:
            yield name


def _end(state: RunState) -> RunStatus:
    """Which end state a run that went back has reached (rule S18)."""
    undos = [step.undo for step in state.steps.values()]
    if any(undo.is_over for undo in undos):
        return RunStatus.COMPENSATION_FAILED
    if state.cause is Cause.CANCEL:
        return RunStatus.CANCELLED
    if state.cause is Cause.DEADLINE:
        return RunStatus.TIMED_OUT
    return RunStatus.COMPENSATED if any(undo.progress is Progress.SUCCEEDED for undo in undos) else RunStatus.FAILED


def _reopened(state: RunState) -> Iterator[Event]:
    if state.status.is_end and RunStatus.COMPENSATING in RUN.get(state.status, ()):
        late = [name for name, step in state.steps.items() if step.undo_again]
        if late:
            reason = f"step {', '.join(late)} succeeded late: its undo may have come too early"
            yield _status(state, RunStatus.COMPENSATING, reason=reason, payload={"reopened": True})


# --- commands: built without a clock; `advance` stamps them ---------------------------------------------------------


def _command(definition: Definition, state: RunState, name: str, delay: float = 0.0) -> CommandEvent:
    correlation = Correlation(state.transaction_id, name, Direction.DO, state.step(name).do.attempt + 1)
    return CommandEvent.model_construct(
        id=str(correlation),
        transaction_id=state.transaction_id,
        correlation_id=str(correlation),
        occurred_at=_NEVER,
        step=name,
        attempt=correlation.attempt,
        worker=definition.steps[name].worker,
        delay=delay,
    )


def _compensation(definition: Definition, state: RunState, name: str, delay: float) -> CompensationEvent:
    step = state.step(name)
    correlation = Correlation(state.transaction_id, name, Direction.UNDO, step.undo.attempt + 1)
    return CompensationEvent.model_construct(
        id=str(correlation),
        transaction_id=state.transaction_id,
        correlation_id=str(correlation),
        occurred_at=_NEVER,
        step=name,
        attempt=correlation.attempt,
        worker=definition.steps[name].compensation or "",
        delay=delay,
        outcome=_OUTCOME[step.do.progress],
    )


def _status(
    state: RunState,
    status: str,
    *,
    step: str | None = None,
    reason: str | None = None,
    error: ErrorInfo | None = None,
    payload: Mapping[str, object] | None = None,
) -> StatusEvent:
    return StatusEvent.model_construct(
        id=f"{state.transaction_id}/{status}" + (f"/{step}" if step else ""),
        transaction_id=state.transaction_id,
        occurred_at=_NEVER,
        step=step,
        status=str(status),
        reason=reason,
        error=error,
        payload=payload,
    )


_NEVER = datetime.min
_OUTCOME = {Progress.SUCCEEDED: "succeeded", Progress.UNKNOWN: "unknown", Progress.FAILED: "failed"}
