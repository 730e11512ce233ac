"""The state of a run: what users see of it, and what the store keeps of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.events import ErrorInfo
from multiagents.names import Direction
from multiagents.workflow.state import (
    Activity,
    ActivityStatus,
    CalledTool,
    Cause,
    RunState,
    RunStatus,
    StepState,
    StepStatus,
    called_of,
)

LIVE = {RunStatus.PENDING, RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.COMPENSATING}

words = st.text("abc", min_size=1, max_size=3)
moments = st.none() | st.integers(0, 2_000_000_000_000)
errors = st.builds(
    ErrorInfo,
    type=words,
    message=words,
    traceback=st.none() | words,
    attempt=st.integers(1, 3),
    causes=st.lists(st.builds(ErrorInfo, type=words, message=words), max_size=2).map(tuple),
)
tracks = st.builds(
    Activity,
    status=st.sampled_from(ActivityStatus),
    attempt=st.integers(0, 3),
    failures=st.integers(0, 3),
    losses=st.integers(0, 3),
    in_doubt=st.booleans(),
    retry_in=st.none() | st.sampled_from([0.0, 1.5]),
    scheduled_at=moments,
    started_at=moments,
    finished_at=moments,
    worker=st.none() | words,
    error=st.none() | errors,
)
steps = st.builds(
    StepState,
    do=tracks,
    undo=tracks,
    late=st.lists(st.integers(1, 3)).map(tuple),
    undo_again=st.booleans(),
    called=st.none() | st.builds(CalledTool, words, st.integers(1, 9)),
)
runs = st.builds(
    RunState,
    transaction_id=st.just("A-1"),
    workflow=words,
    version=words,
    definition_hash=words,
    status=st.sampled_from(RunStatus),
    steps=st.dictionaries(words, steps, max_size=2),
    error=st.none() | errors,
    cause=st.none() | st.sampled_from(Cause),
    cancel_requested=st.booleans(),
    max_lost=st.integers(0, 9),
    started_at=moments,
    finished_at=moments,
    home=st.sampled_from(["celery", "shop"]),
    called=st.just({}),
).map(lambda run: run._replace(called=called_of(run.steps)))


@given(steps)
def test_a_step_survives_the_store(step: StepState) -> None:
    assert StepState.decode(step.encode()) == step


@given(runs)
def test_a_run_survives_the_store(run: RunState) -> None:
    assert RunState.decode("A-1", run.encode_header(), run.steps) == run


def test_what_the_store_keeps_of_a_step_is_short() -> None:
    in_flight = Activity(ActivityStatus.IN_FLIGHT, attempt=1, scheduled_at=5)

    assert StepState().encode() == '[["i"]]'
    assert StepState(in_flight).encode() == '[["f",1,0,0,0,null,5]]'
    assert StepState(in_flight, in_flight).encode() == '[["f",1,0,0,0,null,5],["f",1,0,0,0,null,5]]'
    assert StepState(in_flight, late=(1,)).encode() == '[["f",1,0,0,0,null,5],["i"],[1],0]'


def test_a_run_that_was_stored_without_a_number_of_losses_has_the_default() -> None:
    header = {"workflow": "order", "version": "1", "definition": "h", "status": "running"}

    assert RunState.decode("A-1", header, {}) == RunState("A-1", "order", "1", "h", RunStatus.RUNNING, max_lost=5)


@pytest.mark.parametrize("status", RunStatus)
def test_S18_the_end_states_are_those_that_are_not_on_the_way(status: RunStatus) -> None:
    assert status.is_end == (status not in LIVE)


def doing(status: ActivityStatus, retry_in: float | None = None) -> Activity:
    return Activity(status, attempt=1, retry_in=retry_in)


@pytest.mark.parametrize(
    ("step", "seen"),
    [
        (StepState(), StepStatus.NOT_STARTED),
        (StepState(doing(ActivityStatus.IN_FLIGHT)), StepStatus.SCHEDULED),
        (StepState(doing(ActivityStatus.SUCCEEDED)), StepStatus.SUCCEEDED),
        (StepState(doing(ActivityStatus.FAILED)), StepStatus.FAILED),
        (StepState(doing(ActivityStatus.FAILED, 1.0)), StepStatus.SCHEDULED),
        (StepState(doing(ActivityStatus.UNKNOWN)), StepStatus.UNKNOWN),
        (StepState(doing(ActivityStatus.UNKNOWN, 0.0)), StepStatus.SCHEDULED),
        (StepState(doing(ActivityStatus.SKIPPED)), StepStatus.SKIPPED),
        (StepState(doing(ActivityStatus.SUCCEEDED), doing(ActivityStatus.IN_FLIGHT)), StepStatus.COMPENSATING),
        (StepState(doing(ActivityStatus.SUCCEEDED), doing(ActivityStatus.FAILED, 1.0)), StepStatus.COMPENSATING),
        (StepState(doing(ActivityStatus.SUCCEEDED), doing(ActivityStatus.FAILED)), StepStatus.COMPENSATION_FAILED),
        (StepState(doing(ActivityStatus.SUCCEEDED), doing(ActivityStatus.UNKNOWN)), StepStatus.COMPENSATION_FAILED),
        (StepState(doing(ActivityStatus.SUCCEEDED), doing(ActivityStatus.SUCCEEDED)), StepStatus.COMPENSATED),
        (
            StepState(doing(ActivityStatus.UNKNOWN), doing(ActivityStatus.SUCCEEDED), (1,), True),
            StepStatus.COMPENSATING,
        ),
    ],
)
def test_S1_what_users_see_of_a_step_follows_from_its_two_tracks(step: StepState, seen: StepStatus) -> None:
    assert step.status is seen


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        (StepState(), None),
        (StepState(doing(ActivityStatus.IN_FLIGHT)), None),
        (StepState(doing(ActivityStatus.SKIPPED)), None),
        (StepState(doing(ActivityStatus.SUCCEEDED)), "succeeded"),
        (StepState(doing(ActivityStatus.UNKNOWN)), "unknown"),
        (StepState(doing(ActivityStatus.FAILED)), "failed"),
        (StepState(doing(ActivityStatus.UNKNOWN), late=(1,)), "succeeded"),
    ],
)
def test_S4_an_undo_is_told_how_the_step_ended(step: StepState, outcome: Any) -> None:
    assert step.outcome == outcome


def test_a_track_is_replaced_by_its_direction() -> None:
    done = doing(ActivityStatus.SUCCEEDED)

    assert StepState().with_activity(Direction.DO, done) == StepState(do=done)
    assert StepState().with_activity(Direction.UNDO, done) == StepState(undo=done)
    assert StepState(undo=done).activity(Direction.UNDO) is done
