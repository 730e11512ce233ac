"""Timers that are set: what a decision moves of them, and what people ask for when they move one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from multiagents.clock import LONGEST, LONGEST_IN_WORDS, Duration, from_ms, in_seconds, is_duration, to_ms
from multiagents.events import Event, StatusEvent, new_id
from multiagents.exceptions import WorkflowError
from multiagents.names import Direction
from multiagents.state_store.records import Delivery, Dispatch, InFlight, Snapshot, awaited_call
from multiagents.workflow.decider import Fact, deadline_of, later, moved_to, said
from multiagents.workflow.state import RunState, RunStatus

__all__ = ["call_decided", "deadline_moved", "deadline_set", "moved_timers", "timer_moved", "wanted_time"]


def moved_timers(snapshot: Snapshot, after: RunState, event: Event | None) -> list[Dispatch]:
    """The timers that a decision sets anew; their records go.

    Args:
        snapshot: the run that was decided upon.
        after: the run after it.
        event: what it was decided upon.
    """
    if not isinstance(event, StatusEvent):
        return []
    waiting = [
        found
        for found in snapshot.in_flight.values()
        if found.timer_ms and after.step(found.step).activity(found.direction).in_flight
    ]
    if event.status in (Fact.TIMER_UPDATED, Fact.CALL_DECIDED):
        return [_moved(found, moved_to(event)) for found in waiting if found.step == event.step]
    stopped_at = snapshot.state.stopped_at
    if stopped_at is None or after.stopped_at is not None:
        return []
    return [_moved(found, later(found.timer_ms, stopped_at, to_ms(event.at))) for found in waiting]


def deadline_set(before: RunState, after: RunState, now: datetime) -> int | None:
    """In how many ms the run is to be over, if a decision has moved that; None where it has not."""
    if after.deadline_at is None or after.deadline_at == before.deadline_at or after.status.is_end:
        return None
    return max(1, after.deadline_at - to_ms(now))


def _moved(found: InFlight, at_ms: int) -> Dispatch:
    if found.delivery in (Delivery.EXTERNAL, Delivery.LOCK):
        return Dispatch(
            found.step, found.attempt_key, found.delivery, target=found.target, first_ms=found.first_ms, close_ms=at_ms
        )
    return Dispatch(
        found.step,
        found.attempt_key,
        found.delivery,
        target=found.target,
        first_ms=found.first_ms,
        close_ms=found.close_ms,
        due_ms=at_ms,
    )


def timer_moved(snapshot: Snapshot, step: str, at_ms: int) -> StatusEvent | None:
    """The fact that somebody moves what a step waits for; None when it is there already.

    Raises:
        UnknownStepError: when its workflow has no such step.
        WorkflowError: when the step has no timer.
    """
    snapshot.definition.step(step)
    found = snapshot.in_flight.get(step)
    if found is None or not found.timer_ms:
        raise WorkflowError(
            f"the timer of step {step!r} of run {snapshot.state.transaction_id!r} was not moved: "
            f"{_why_no_timer(snapshot, step)}; nothing was changed"
        )
    facts = {"attempt": found.attempt, "direction": found.direction.value}
    return None if found.timer_ms == at_ms else _moved_by_hand(Fact.TIMER_UPDATED, snapshot, at_ms, step=step, **facts)


def call_decided(snapshot: Snapshot, step: str, slot: str, approved: bool) -> StatusEvent | None:  # noqa: FBT001
    """The fact that somebody has decided upon a call; None where no attempt waits for that, or it comes already."""
    found = snapshot.in_flight.get(step)
    awaited = None if found is None or found.delivery is not Delivery.TIMER else awaited_call(found.target)
    now_ms = to_ms(snapshot.now) if snapshot.state.stopped_at is None else snapshot.state.stopped_at
    if found is None or awaited is None or awaited.slot != slot or found.timer_ms <= now_ms:
        return None
    facts = {"attempt": found.attempt, "direction": found.direction.value, "tool": awaited.tool, "approved": approved}
    return _moved_by_hand(Fact.CALL_DECIDED, snapshot, now_ms, step=step, **facts)


def deadline_moved(snapshot: Snapshot, at_ms: int) -> StatusEvent | None:
    """The fact that somebody moves a run's deadline, or gives it one; None when it is there already.

    Raises:
        WorkflowError: when the run goes back or is over.
    """
    state = snapshot.state
    if state.status not in (RunStatus.RUNNING, RunStatus.PAUSED) or state.cause is not None:
        raise WorkflowError(
            f"the deadline of run {state.transaction_id!r} was not moved: it is {state.status}, and a deadline is for "
            f"a run that goes forward; nothing was changed"
        )
    if deadline_of(snapshot.definition, state) == at_ms:
        return None
    return _moved_by_hand(Fact.DEADLINE_UPDATED, snapshot, at_ms)


def wanted_time(what: str, given: Duration | None, at: datetime | None, now: datetime) -> Callable[[Snapshot], int]:
    """When a timer is to be due (ms), for a run that may have its timers stand still: then so much is left of it."""
    seconds: float | None = in_seconds(given)
    if (seconds is None) == (at is None):
        raise WorkflowError(f"{what} was not moved: give seconds= from now or at=, one of them")
    if seconds is not None:
        if not is_duration(seconds, zero=True):
            raise WorkflowError(
                f"{what} was not moved: seconds={given!r:.80}; expected a number from 0 on, or a timedelta, "
                f"{LONGEST_IN_WORDS}"
            )
        left = seconds * 1000
    else:
        assert at is not None
        if not isinstance(at, datetime) or at.tzinfo is None:
            raise WorkflowError(
                f"{what} was not moved: at={at!r:.80}; expected a datetime with a time zone, such as "
                f"datetime(2026, 1, 31, 12, tzinfo=UTC)"
            )
        left = max(0.0, (at - now).total_seconds() * 1000)
        if left > LONGEST * 1000:
            raise WorkflowError(
                f"{what} was not moved: at={at.isoformat()}; expected a time {LONGEST_IN_WORDS} from now"
            )
    now_ms = to_ms(now)
    return lambda snapshot: round((now_ms if snapshot.state.stopped_at is None else snapshot.state.stopped_at) + left)


def _why_no_timer(snapshot: Snapshot, step: str) -> str:
    state, found = snapshot.state.step(step), snapshot.in_flight.get(step)
    if found is not None and snapshot.definition.steps[step].awaits_signal and found.direction is Direction.DO:
        return "it waits for its signal without a limit"
    waiting = ", ".join(name for name, entry in snapshot.in_flight.items() if entry.timer_ms)
    others = f"steps with one: {waiting}" if waiting else "no step of the run has one"
    return f"it is {state.status} and waits for no time ({others})"


def _moved_by_hand(
    status: Fact, snapshot: Snapshot, at_ms: int, *, step: str | None = None, **facts: Any
) -> StatusEvent:
    return said(
        snapshot.state,
        status,
        snapshot.now,
        event_id=new_id(),
        step=step,
        payload={"at": from_ms(at_ms).isoformat(timespec="milliseconds"), **facts},
    )
