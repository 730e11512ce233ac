"""What is due: look at the state alone, and say what is to be done now.

The rules:

1. A step is due when every step before it succeeded or was skipped. A probe is due as soon as its step's outcome is
   unknown for good, and its step counts as in flight until it has answered (rule S3).
2. When a step is over without success, no further step starts. What is in flight settles first; then every step whose
   effect is, or may be, live is undone, each as soon as all that depends on it is clear (rules S3, S6, S7).
3. An unknown outcome that is to be parked holds the run before anything is undone, also where it goes back for a
   cancel: who asked for that did not know of it. A cancel of the held run is the answer: undo it (rules S3, S20).
4. Once a pivot has succeeded there is no way back: a run that was turning round goes forward again (rule S12).
5. A failure behind a save-point undoes what stands behind it, and no more; then the run goes forward again (rule S15).
6. Nothing is dispatched after the end, with one exception: a late success reopens a run that went back, when its effect
   may have come after the undo (rule S5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from itertools import islice

from multiagents.events import ErrorInfo, Event
from multiagents.workflow.decider.commands import NOT_YET, command, compensation, status
from multiagents.workflow.decider.compensation import (
    end_of,
    is_clear,
    is_done_in_part,
    is_late_in_part,
    is_told_to_stop,
    turn_of,
)
from multiagents.workflow.decider.facts import Fact
from multiagents.workflow.decider.savepoints import left_behind, reached, savepoint_before, turned_forward, undone_by
from multiagents.workflow.decider.signals import Answer, rejected
from multiagents.workflow.decider.tool_calls import given_up
from multiagents.workflow.decider.unknown_outcomes import asks_probe, is_parked, needs_attention, past_pivot
from multiagents.workflow.definition import Definition, StepKind
from multiagents.workflow.state import RUN, ActivityStatus, Cause, RunState, RunStatus

__all__ = ["PAGE", "react"]

#: How much is said at once; what is due beyond that is said when this is so. A script that pushes 10,000 messages
#: would hold up the server for 60 to 90 ms.
PAGE = 500
_UNSUCCESSFUL = (ActivityStatus.FAILED, ActivityStatus.UNKNOWN)


def react(
    definition: Definition,
    state: RunState,
    near: Iterable[str] | None = None,
    unclaimed: Collection[str] = (),
    begun: Collection[str] = (),
    at: datetime = NOT_YET,
) -> tuple[Event, ...]:
    """Say what is due now; it depends on the state alone, and asking twice gives the same.

    Args:
        definition: what the run follows.
        state: the run; a projection of it will do while it goes forward.
        near: look at these steps only (those an event can have made due); None is all of them. A run that goes back is
            always looked at as a whole.
        unclaimed: steps in flight whose attempt no worker has taken, as the store knows. A run that goes back takes
            them back, for they had no effect; without this they are waited for.
        begun: those of them that a worker has had, and given back: nobody knows whether they had any (rule S1b).
        at: what time it is; it goes into what is said, and decides nothing.
    """
    definition = definition.expanded(state.sizes, state.rollbacks, state.called)
    if state.paused and state.status in (RunStatus.RUNNING, RunStatus.COMPENSATING):
        return (status(state, RunStatus.PAUSED, at, reason="somebody has paused it"),)
    match state.status:
        case RunStatus.RUNNING:
            due = _forward(definition, state, tuple(definition.steps if near is None else near), at)
        case RunStatus.PAUSED:
            due = _decided(definition, state, at)
        case RunStatus.COMPENSATING:
            due = _back(definition, state, unclaimed, begun, at)
        case _:
            due = _reopened(definition, state, at)
    return tuple(islice(due, PAGE))


def _forward(definition: Definition, state: RunState, names: tuple[str, ...], at: datetime) -> Iterator[Event]:
    if state.cancel_requested:
        yield from _cancelled(state, at)
        return
    late = list(left_behind(definition, state, at)) if definition.superseded else []
    if definition.superseded or definition.called:
        passed_over = definition.superseded.union(definition.called)
        names = tuple(name for name in names if name not in passed_over)
    doing = {name: state.step(name).do for name in names}
    for name, activity in doing.items():
        if activity.status in _UNSUCCESSFUL and activity.is_over and not _asks_probe(definition, state, name):
            yield _failed(definition, state, name, at)
            return
    for undo in late:
        if not state.step(undo.step or "").undo.in_flight:
            yield undo
    for name, activity in doing.items():
        if activity.status is ActivityStatus.IDLE:
            if _are_done(state, definition.steps[name].after):
                yield _due(definition, state, name, at)
        elif activity.status in _UNSUCCESSFUL:  # it is to be tried again, or its probe is to be asked
            yield command(definition, state, name, at, activity.retry_in or 0.0)
    if state.signals:
        yield from _signals_taken(definition, state, names, at)
    if not late and _are_done(state, definition.exits):
        yield status(state, RunStatus.COMPLETED, at)


def _are_done(state: RunState, names: Iterable[str]) -> bool:
    for name in names:  # noqa: SIM110 - this is asked at every step: a generator would double the time
        if not state.step(name).is_done:
            return False
    return True


def _failed(definition: Definition, state: RunState, name: str, at: datetime) -> Event:
    """A step is over without success: a person is asked, or the run starts to compensate."""
    if is_parked(definition, state, name):
        return _paused(definition, state, name, at)
    payload = {"cause": Cause.FAILURE.value}
    if savepoint := savepoint_before(definition, state, name):
        payload["to"] = savepoint
    return status(state, RunStatus.COMPENSATING, at, error=state.step(name).do.error, payload=payload)


def _due(definition: Definition, state: RunState, name: str, at: datetime) -> Event:
    """What is said of a step whose time has come."""
    if name in definition.sizes:
        return _gathered(definition, state, name, at)
    if definition.steps[name].kind is StepKind.SAVEPOINT:
        return reached(definition, state, name, at)
    return command(definition, state, name, at)


def _signals_taken(definition: Definition, state: RunState, names: tuple[str, ...], at: datetime) -> Iterator[Event]:
    """Each step that waits takes the oldest signal of its name; an approval that gets no clear yes fails with it."""
    left = list(state.signals)
    for name in names:
        step = definition.steps[name]
        if not (step.awaits_signal and state.step(name).do.in_flight):
            continue
        taken = next((signal for signal in left if signal.name == step.signal), None)
        if taken is not None:
            left.remove(taken)
            given = step.kind is not StepKind.APPROVAL or taken.answer == Answer.YES
            error = None if given else rejected(name)
            yield status(state, Fact.RECEIVED, at, step=name, error=error, payload={"key": taken.key})


def _gathered(definition: Definition, state: RunState, name: str, at: datetime, *, in_part: bool = False) -> Event:
    facts = {"count": definition.sizes[name]} | ({"in_part": True} if in_part else {})
    return status(state, Fact.GATHERED, at, step=name, payload=facts)


def _asks_probe(definition: Definition, state: RunState, name: str) -> bool:
    own = definition.steps[name]
    return own.resolve_with is not None and asks_probe(own, state.step(name), forward=state.cause is None)


def _cancelled(state: RunState, at: datetime) -> Iterator[Event]:
    if state.cancel_requested:
        error = state.error or ErrorInfo(type="Cancelled", message="the run was cancelled on request")
        yield status(state, RunStatus.COMPENSATING, at, error=error, payload={"cause": Cause.CANCEL.value})


def _decided(definition: Definition, state: RunState, at: datetime) -> Iterator[Event]:
    """A paused run goes on when nobody pauses it any more and a person has settled what nobody knew."""
    if state.paused or any(is_parked(definition, state, name) for name in state.steps):
        return
    if past_pivot(definition, state):
        # Also where the run was held on its way back, and its pivot has succeeded meanwhile (rule S12).
        yield status(state, RunStatus.RUNNING, at)
    elif state.cause is None and state.cancel_requested:
        yield from _cancelled(state, at)
    else:
        yield status(state, RunStatus.RUNNING if state.cause is None else RunStatus.COMPENSATING, at)


def _paused(definition: Definition, state: RunState, name: str, at: datetime) -> Event:
    step = state.step(name)
    if needs_attention(definition.steps[name], step) and step.do.error is not None:
        why = f"step {name} needs somebody's attention: {step.do.error.message}"
    elif step.do.status is ActivityStatus.FAILED:
        why = f"step {name} failed behind the pivot"
    else:
        why = f"nobody knows whether step {name} took effect"
    return status(state, RunStatus.PAUSED, at, reason=why)


# --- going back -----------------------------------------------------------------------------------------------------


def _back(
    definition: Definition, state: RunState, unclaimed: Collection[str], begun: Collection[str], at: datetime
) -> Iterator[Event]:
    undone = undone_by(definition, state)
    unsuccessful = [name for name, step in state.steps.items() if step.do.status in _UNSUCCESSFUL]
    probes = [name for name in unsuccessful if name in undone and _asks_probe(definition, state, name)]
    for name in probes:
        yield command(definition, state, name, at, state.step(name).do.retry_in or 0.0)
    in_flight = [
        name for name, step in state.steps.items() if step.do.status is ActivityStatus.IN_FLIGHT and name in undone
    ]
    yield from _settling(definition, state, in_flight, unclaimed, begun, at)
    if probes or in_flight:
        return
    if definition.pivots and past_pivot(definition, state):
        yield status(state, RunStatus.RUNNING, at, reason="its pivot has succeeded meanwhile: there is no way back")
        return
    parked = next((name for name in unsuccessful if is_parked(definition, state, name)), None)
    if parked is not None:
        yield _paused(definition, state, parked, at)
        return
    partly = [name for name in definition.sizes if name in undone and is_done_in_part(definition, state, name)]
    turn = [] if partly else [name for name in turn_of(definition, state) if name in undone]
    for name in partly:
        yield _gathered(definition, state, name, at, in_part=True)
    for name in turn:
        undo = state.step(name).undo
        if not undo.in_flight:
            yield compensation(definition, state, name, at, undo.retry_in or 0.0)
    if not partly and not turn and state.back_to:
        yield from turned_forward(definition, state, at)
    elif not partly and not turn:
        yield status(state, end_of(state), at)


def _settling(
    definition: Definition,
    state: RunState,
    in_flight: Iterable[str],
    unclaimed: Collection[str],
    begun: Collection[str],
    at: datetime,
) -> Iterator[Event]:
    """Rules S5 and S7: what is in flight settles first; who is cancel-safe and told to stop is not waited for.

    A probe always is: it has to tell what there is to undo.
    """
    over = set(given_up(definition, state)) if definition.called else ()
    for name in in_flight:
        if state.step(name).do.probing:
            continue
        if name in over:
            why = "the attempt that made this call is over, and nobody knows what became of the call"
            yield status(state, Fact.ATTEMPT_ABANDONED, at, step=name, reason=why)
        elif name in unclaimed and name in begun:
            yield status(
                state, Fact.ATTEMPT_ABANDONED, at, step=name, reason="the run goes back, and it had been begun"
            )
        elif name in unclaimed:
            yield status(state, Fact.REVOKED, at, step=name, reason="the run goes back, and nobody had claimed it")
        elif definition.steps[name].cancel_safe and is_told_to_stop(definition, state, name):
            yield status(
                state, Fact.ATTEMPT_ABANDONED, at, step=name, reason="the run goes back, and the step is cancel-safe"
            )


def _reopened(definition: Definition, state: RunState, at: datetime) -> Iterator[Event]:
    if state.status is RunStatus.COMPLETED or RunStatus.COMPENSATING not in RUN.get(state.status, ()):
        return
    undos = [step.undo for step in state.steps.values()]
    settled = state.status is RunStatus.COMPENSATION_FAILED and not any(undo.is_over for undo in undos)
    if settled or any(undo.will_retry for undo in undos):
        reason = "a person has settled what was left to undo"
        yield status(state, RunStatus.COMPENSATING, at, reason=reason, payload={"reopened": True})
    else:
        late = [n for n, step in state.steps.items() if step.late and not is_clear(definition.steps[n], step)]
        late += [name for name in definition.sizes if is_late_in_part(definition, state, name)]
        if late:
            reason = f"step {', '.join(late)} succeeded late: its undo may have come too early"
            yield status(state, RunStatus.COMPENSATING, at, reason=reason, payload={"reopened": True})
