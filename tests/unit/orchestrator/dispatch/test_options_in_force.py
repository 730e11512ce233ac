"""Which option holds for an attempt: its step's, its worker's, or the setting's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery

from multiagents import ErrorEvent, ErrorInfo, RetryPolicy, WorkflowBuilder, init_app, worker
from multiagents.events import ErrorKind
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.dispatch.celery import HARD_LIMIT_GRACE
from multiagents.state_store.records import limits_of
from multiagents.worker_sdk import workers
from multiagents.workflow.decider import advance, decide, evolve, start_event
from multiagents.workflow.state import ActivityStatus, RunState, RunStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DO, UNDO = Direction.DO, Direction.UNDO


def step(**options):
    return WorkflowBuilder("options").add_step("a", "charge", compensation="refund", **options).build(register=False)


# --- time limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "direction", "expected"),
    [
        ({}, DO, (5000, 700)),
        ({"timeout": 2, "heartbeat_timeout": 3}, DO, (2000, 3000)),
        ({"timeout": 0}, DO, (0, 700)),
        # An undo has its own worker's limits: those of the step are for doing it.
        ({"timeout": 2, "heartbeat_timeout": 3}, UNDO, (5000, 700)),
    ],
)
@pytest.mark.filterwarnings("ignore:workflow .* has timeout=0")
def test_a_steps_limits_go_before_its_workers_and_an_undo_has_its_own(options, direction, expected):
    assert limits_of(Correlation("t", "a", direction, 1), step(**options), 5.0, 0.7) == expected


def test_a_probe_has_its_own_limits_and_not_those_of_the_step_it_asks_about():
    own = step(timeout=2, heartbeat_timeout=3, on_unknown="resolve", resolve_with="charge_status")
    attempt = Correlation("t", "a", DO, 2)

    assert limits_of(attempt, own, 5.0, 0.7, "charge") == (2000, 3000)
    assert limits_of(attempt, own, 5.0, 0.7, "charge_status") == (5000, 700)


def test_without_any_limit_there_is_none():
    assert limits_of(Correlation("t", "a", DO, 1), step(), None, None) == (0, 0)


# --- what whoever sends a step knows of its worker -------------------------------------------------------------------


@pytest.fixture
def dispatcher(redis_url):
    @worker("charge", queue="payments", timeout=7200, retry=RetryPolicy(max_attempts=9))
    def charge(context):
        return {}

    app = Celery("options", broker=redis_url, set_as_current=False)
    yield init_app(app).dispatcher
    workers.unregister("charge")


def test_a_workers_queue_policy_and_limit_hold_for_its_steps(dispatcher):
    attempt = Correlation("t", "a", DO, 1)

    assert dispatcher.address(step(), attempt).target == "payments"
    assert dispatcher.address(step(queue="fast"), attempt).target == "fast"
    assert dispatcher.retry_policy(step(), attempt) == RetryPolicy(max_attempts=9)
    assert f'"timelimit": [{7200 + HARD_LIMIT_GRACE}, null]' in dispatcher.address(step(), attempt).prefix


def test_of_a_worker_that_is_not_known_here_no_limit_is_presumed(dispatcher):
    attempt = Correlation("t", "a", UNDO, 1)

    assert dispatcher.retry_policy(step(), attempt) is None
    assert '"timelimit": [null, null]' in dispatcher.address(step(), attempt).prefix


# --- all attempts together -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "after", "retried"),
    [
        (ErrorKind.FAILED, 3.0, True),
        (ErrorKind.FAILED, 8.5, False),
        (ErrorKind.FAILED, 12.0, False),
        (ErrorKind.LOST, 9.0, True),
        (ErrorKind.LOST, 10.0, False),
    ],
)
def test_no_attempt_is_made_that_could_not_begin_before_schedule_to_close(kind, after, retried):
    # Given: a step that may take ten seconds in all, and waits two between its attempts.
    policy = RetryPolicy(max_attempts=0, initial_interval=2.0, backoff_coefficient=1.0, jitter=False)
    definition = step(schedule_to_close=10, retry=policy)
    state = evolve(definition, RunState("t", ""), start_event(definition, "t", now=NOW))
    state, *_ = advance(definition, state, now=NOW)

    # When: its first attempt does not succeed.
    state, commands, *_ = decide(
        definition,
        state,
        ErrorEvent(
            transaction_id="t",
            correlation_id="t/a/do/1",
            timestamp=NOW + timedelta(seconds=after),
            step="a",
            attempt=1,
            error=ErrorInfo(type="Down", message="down"),
            kind=kind,
        ),
    )

    # Then
    assert next(command.type for command in commands) == ("command" if retried else "status")
    assert (state.status is RunStatus.RUNNING) is retried
    assert (state.step("a").do.status is ActivityStatus.IN_FLIGHT) is retried
