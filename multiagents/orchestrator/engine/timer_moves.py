"""What a decision moves of the timers that are set: the one that somebody moves, or all, when a pause ends."""

from __future__ import annotations

from datetime import datetime

from multiagents.clock import to_ms
from multiagents.events import Event, StatusEvent
from multiagents.state_store.records import Delivery, Dispatch, InFlight, Snapshot
from multiagents.workflow.decider.timers import TIMER_UPDATED, later, moved_to
from multiagents.workflow.state.run_state import RunState

__all__ = ["deadline_set", "moved_timers"]


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
    if event.status == TIMER_UPDATED:
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
        found.step, found.attempt_key, found.delivery, first_ms=found.first_ms, close_ms=found.close_ms, due_ms=at_ms
    )
