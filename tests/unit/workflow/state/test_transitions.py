"""The transition tables: every pair is walked, and the docs show what the tables say."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from typing import Any

import pytest

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
from multiagents.names import Correlation, Direction
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.decider import Fact, evolve
from multiagents.workflow.state import (
    ACTIVITY,
    RUN,
    Activity,
    ActivityStatus,
    Cause,
    RunState,
    RunStatus,
    StepState,
    Trigger,
)
from tests.support import ROOT

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DOCS = ROOT / "docs"
ORDER = WorkflowBuilder("order").add_step("charge", compensation="refund").build(register=False)
TOLERANT = WorkflowBuilder("tolerant").add_child("charge", ORDER, on_failure="continue").build(register=False)
ERROR = ErrorInfo(type="CardDeclined", message="no funds")
STARTED = {"workflow": "order", "version": "1", "definition": "h", "max_lost": 5}


def state_of(status: ActivityStatus, direction: Direction) -> RunState:
    """A run with one activity in a status, after one attempt (none, if it is idle)."""
    activity = Activity(status, attempt=0 if status is ActivityStatus.IDLE else 1)
    step = StepState().with_activity(direction, activity)
    return RunState("A-1", "order", status=RunStatus.RUNNING, steps={"charge": step})


def event_of(trigger: Trigger, direction: Direction, attempt: int) -> Event:
    """The event that pulls a trigger, about the next or the last attempt."""
    number = attempt + 1 if trigger is Trigger.COMMAND else max(attempt, 1)
    common: dict[str, Any] = {"transaction_id": "A-1", "step": "charge", "timestamp": NOON}
    about = {"correlation_id": str(Correlation("A-1", "charge", direction, number)), "attempt": number}
    match trigger:
        case Trigger.COMMAND:
            return (CommandEvent if direction is Direction.DO else CompensationEvent)(**common, **about)
        case Trigger.RESULT:
            return ResultEvent(**common, **about)
        case Trigger.FAILURE | Trigger.PASSED_OVER:
            return ErrorEvent(**common, **about, error=ERROR, retryable=False)
        case Trigger.DOUBT:
            return ErrorEvent(**common, **about, error=ERROR, kind=ErrorKind.UNKNOWN)
        case Trigger.SKIP:
            return StatusEvent(**common, status=Fact.SKIPPED)
        case Trigger.CHOICE:
            return StatusEvent(**common, status=Fact.CHOSEN, payload={"label": "paid"})
        case Trigger.PART:
            return StatusEvent(**common, status=Fact.GATHERED, payload={"count": 2, "in_part": True})
        case Trigger.RECALL:
            return StatusEvent(**common, status=Fact.REVOKED)
        case Trigger.TAKEOVER:
            return StatusEvent(**common, status=Fact.TAKEN_OVER, payload={"outcome": "succeeded", "origin": "A-0"})


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("status", ActivityStatus)
@pytest.mark.parametrize("direction", Direction)
def test_an_activity_moves_as_the_table_says_and_else_stays(
    direction: Direction, status: ActivityStatus, trigger: Trigger
) -> None:
    before = state_of(status, direction)
    activity = before.step("charge").activity(direction)

    definition = TOLERANT if trigger is Trigger.PASSED_OVER else ORDER
    after = evolve(definition, before, event_of(trigger, direction, activity.attempt))

    if trigger is Trigger.PASSED_OVER and (direction is Direction.UNDO or status is not ActivityStatus.IN_FLIGHT):
        trigger = Trigger.FAILURE  # only what was done, and failed, is passed over
    # Skipping, choosing, taking back or over, and failing unasked happen to the step, never to its undo.
    asked = (Trigger.SKIP, Trigger.CHOICE, Trigger.PART, Trigger.RECALL, Trigger.TAKEOVER)
    only_do = trigger in asked or (status, trigger) == (ActivityStatus.IDLE, Trigger.FAILURE)
    listed = ACTIVITY.get((status, trigger)) if direction is Direction.DO or not only_do else None
    assert after.step("charge").activity(direction).status is (listed or status)
    if listed is None:
        assert after.step("charge").activity(direction) == activity


@pytest.mark.parametrize("status", ActivityStatus)
def test_what_is_in_flight_can_be_abandoned_and_nothing_else(status: ActivityStatus) -> None:
    before = state_of(status, Direction.DO)
    abandoned = StatusEvent(transaction_id="A-1", step="charge", timestamp=NOON, status=Fact.ATTEMPT_ABANDONED)

    after = evolve(ORDER, before, abandoned)

    in_flight = status is ActivityStatus.IN_FLIGHT
    assert after.step("charge").do.status is (ActivityStatus.UNKNOWN if in_flight else status)
    assert (after is before) == (not in_flight)


@pytest.mark.parametrize("said", RunStatus)
@pytest.mark.parametrize("status", RunStatus)
def test_a_run_moves_as_the_table_says_and_else_stays(status: RunStatus, said: RunStatus) -> None:
    before = RunState("A-1", "order", status=status, finished_at=1 if status.is_end else None)
    event = StatusEvent(transaction_id="A-1", timestamp=NOON, status=said, payload=STARTED)

    after = evolve(ORDER, before, event)

    if said in RUN.get(status, ()):
        assert after.status is said
        assert (after.finished_at is not None) == said.is_end
        assert (after.cause is Cause.FAILURE) == (said is RunStatus.COMPENSATING)
    else:
        assert after is before


@pytest.mark.parametrize("status", RunStatus)
def test_S20_a_cancel_is_recorded_until_the_run_is_over(status: RunStatus) -> None:
    before = RunState("A-1", "order", status=status)
    event = StatusEvent(transaction_id="A-1", timestamp=NOON, status=Fact.CANCEL_REQUESTED)

    after = evolve(ORDER, before, event)

    assert after.status is status
    assert after.cancel_requested == (not status.is_end)


def test_S18_from_every_status_an_end_is_near() -> None:
    """No status leads only in circles; and what was terminated stays so."""
    for status in RunStatus:
        if not status.is_end:
            reached, frontier = {status}, {status}
            while frontier := {to for each in frontier for to in RUN.get(each, ())} - reached:
                reached |= frontier
            assert any(to.is_end for to in reached)
    assert RUN.get(RunStatus.TERMINATED) is None


def test_the_diagrams_in_the_docs_are_what_the_tables_say() -> None:
    drawn = runpy.run_path(str(DOCS / "make_state_diagrams.py"))["page"]()

    kept = (DOCS / "states.md").read_text()
    assert kept == drawn, "run .venv/bin/python docs/make_state_diagrams.py"
