"""Timers that people move: of a step that waits for its time, and of the run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from multiagents.clock import from_ms, to_ms
from multiagents.events import Event, StatusEvent
from multiagents.exceptions import WorkflowError
from multiagents.failpoints import WriteSite
from multiagents.names import Direction
from multiagents.orchestrator.engine.advance import WholeRuns
from multiagents.state_store import StateStore
from multiagents.state_store.records import Snapshot
from multiagents.workflow.decider.timers import DEADLINE_UPDATED, TIMER_UPDATED, deadline_of
from multiagents.workflow.state.run_state import RunStatus


class Timers:
    """The part of the engine that moves timers.

    Args:
        store: where runs live.
        whole: decides upon whole runs.
    """

    def __init__(self, store: StateStore, whole: WholeRuns) -> None:
        self.store = store
        self._whole = whole

    def update_timer(
        self,
        transaction_id: str,
        step: str,
        seconds: float | None,
        at: datetime | None,
        *,
        reason: str | None = None,
        actor: str | None = None,
    ) -> datetime:
        """Move what a step waits for; durable when this returns.

        Returns:
            when it is due now.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            UnknownStepError: when its workflow has no such step.
            WorkflowError: when the step has no timer, or the time cannot be used; nothing was changed.
        """
        wanted = _wanted(f"the timer of step {step!r}", seconds, at, self.store.load(transaction_id).now)

        def moved(snapshot: Snapshot) -> StatusEvent | None:
            snapshot.definition.step(step)
            found, at_ms = snapshot.in_flight.get(step), wanted(snapshot)
            if found is None or not found.timer_ms:
                raise WorkflowError(
                    f"the timer of step {step!r} of run {transaction_id!r} was not moved: "
                    f"{_why_no_timer(snapshot, step)}; nothing was changed"
                )
            facts = {"attempt": found.attempt, "direction": found.direction.value}
            return None if found.timer_ms == at_ms else _said(TIMER_UPDATED, snapshot, at_ms, step=step, **facts)

        return self._tell(transaction_id, moved, wanted, reason, actor)

    def update_deadline(
        self,
        transaction_id: str,
        seconds: float | None,
        at: datetime | None,
        *,
        reason: str | None = None,
        actor: str | None = None,
    ) -> datetime:
        """Move the deadline of a run, or give it one; durable when this returns.

        Returns:
            when the run is to be over now.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when the run goes back or is over, or the time cannot be used; nothing was changed.
        """
        wanted = _wanted("the deadline", seconds, at, self.store.load(transaction_id).now)

        def moved(snapshot: Snapshot) -> StatusEvent | None:
            state = snapshot.state
            if state.status not in (RunStatus.RUNNING, RunStatus.PAUSED) or state.cause is not None:
                raise WorkflowError(
                    f"the deadline of run {transaction_id!r} was not moved: it is {state.status}, and a deadline is "
                    f"for a run that goes forward; nothing was changed"
                )
            at_ms = wanted(snapshot)
            if deadline_of(snapshot.definition, state) == at_ms:
                return None
            return _said(DEADLINE_UPDATED, snapshot, at_ms)

        return self._tell(transaction_id, moved, wanted, reason, actor)

    def _tell(
        self,
        transaction_id: str,
        moved: Callable[[Snapshot], StatusEvent | None],
        wanted: Callable[[Snapshot], int],
        reason: str | None,
        actor: str | None,
    ) -> datetime:
        """Have a run decide upon what is asked for; who asks twice gets the same answer, and one fact is written."""
        snapshots: list[Snapshot] = []

        def event(snapshot: Snapshot) -> Event:
            snapshots.append(snapshot)
            said = moved(snapshot)
            if said is None:
                raise _IsSoAlready
            return said.model_copy(update={"reason": reason, "actor": actor})

        try:
            self._whole.decide(transaction_id, event, site=WriteSite.UPDATE_TIMER)
        except _IsSoAlready:
            pass
        return from_ms(wanted(snapshots[-1]))


class _IsSoAlready(Exception):  # noqa: N818 - no error: there is nothing to do
    """The timer is where it is to be."""


def _wanted(what: str, seconds: float | None, at: datetime | None, now: datetime) -> Callable[[Snapshot], int]:
    """When a timer is to be due (ms), for a run that may have its timers stand still: then so much is left of it."""
    if (seconds is None) == (at is None):
        raise WorkflowError(f"{what} was not moved: give seconds= from now or at=, one of them")
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not isfinite(seconds) or seconds < 0:
            raise WorkflowError(f"{what} was not moved: seconds={seconds!r:.80}; expected a number from 0 on")
        left = seconds * 1000
    else:
        assert at is not None
        if not isinstance(at, datetime) or at.tzinfo is None:
            raise WorkflowError(
                f"{what} was not moved: at={at!r:.80}; expected a datetime with a time zone, such as "
                f"datetime(2026, 1, 31, 12, tzinfo=UTC)"
            )
        left = max(0.0, (at.astimezone(UTC) - now).total_seconds() * 1000)
    now_ms = to_ms(now)
    return lambda snapshot: round((now_ms if snapshot.state.stopped_at is None else snapshot.state.stopped_at) + left)


def _why_no_timer(snapshot: Snapshot, step: str) -> str:
    state, found = snapshot.state.step(step), snapshot.in_flight.get(step)
    if found is not None and snapshot.definition.steps[step].awaits_signal and found.direction is Direction.DO:
        return "it waits for its signal without a limit"
    waiting = ", ".join(name for name, entry in snapshot.in_flight.items() if entry.timer_ms)
    others = f"steps with one: {waiting}" if waiting else "no step of the run has one"
    return f"it is {state.status} and waits for no time ({others})"


def _said(status: str, snapshot: Snapshot, at_ms: int, *, step: str | None = None, **facts: Any) -> StatusEvent:
    return StatusEvent(
        transaction_id=snapshot.state.transaction_id,
        timestamp=snapshot.now,
        occurred_at=snapshot.now,
        step=step,
        status=status,
        payload={"at": from_ms(at_ms).isoformat(timespec="milliseconds"), **facts},
    )
