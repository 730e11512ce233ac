"""Time limits: of an attempt, until it starts, of all attempts together, and between heartbeats."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import RetryPolicy, WorkflowBuilder
from tests.support.scenario import Scenario, outcomes

ONCE = RetryPolicy(max_attempts=1)


def one_step(worker: str = "play", **options: Any) -> Any:
    return WorkflowBuilder("limits").add_step("a", worker, compensation="undo", **options).build(register=False)


def test_a_function_over_its_workers_limit_ends_as_unknown_and_is_undone(rules: Scenario):
    seen = rules.play(one_step("limited"), a=["hang"])

    run = rules.runs[seen.transaction_id]
    assert (seen.status, outcomes(run, "a")[0]) == ("compensated", "timeout")
    assert "limit of 0.5 s" in seen.error.message


def test_a_steps_limit_goes_before_its_workers(rules: Scenario):
    if rules.deployment.pool == "solo":
        pytest.skip("the solo pool is busy until the attempt returns")
    longer = rules.play(one_step("limited", timeout=10), a=["hang"])
    shorter = rules.play(one_step(timeout=0.4, retry=ONCE), a=["hang"])

    assert (longer.status, shorter.status) == ("completed", "compensated")
    assert "limit of 0.4 s" in shorter.error.message


def test_a_coroutine_over_its_limit_is_stopped_on_every_pool(rules: Scenario):
    seen = rules.play(one_step("hang_async", timeout=0.5))

    assert (seen.status, outcomes(rules.runs[seen.transaction_id], "a")[0]) == ("compensated", "timeout")
    # Stopped by the worker itself, and not found by the sweep: so it names the worker.
    assert "was stopped at its time limit" in seen.error.message


def test_an_undo_is_not_held_to_its_steps_limit(rules: Scenario):
    workflow = (
        WorkflowBuilder("slow_undo")
        .add_step("a", "play", compensation="undo", timeout=0.5)
        .add_step("b", "play")
        .build(register=False)
    )

    run = rules.start(workflow, a__undo=["hang"], b=["terminal"])

    assert (rules.end(run).status, rules.began(run, "a.undo")) == ("compensated", ["a.undo"])


def test_a_step_that_no_worker_starts_in_time_fails_and_has_had_no_effect(rules: Scenario):
    seen = rules.play(one_step(queue="nobody", schedule_to_start=0.6))

    assert (seen.status, seen.steps["a"].status, seen.error.type) == ("failed", "failed", "ScheduleToStartTimeout")
    assert "schedule_to_start of 0.6 s" in seen.error.message
    assert rules.began(rules.runs[seen.transaction_id]) == []


def test_a_step_that_starts_in_time_is_not_bothered_by_schedule_to_start(rules: Scenario):
    seen = rules.play(one_step(schedule_to_start=1.0), a=["hang"])

    assert (seen.status, seen.steps["a"].attempts) == ("completed", 1)


def test_schedule_to_close_limits_all_attempts_together(rules: Scenario):
    policy = RetryPolicy(max_attempts=0, initial_interval=0.3, backoff_coefficient=1.0, jitter=False)

    seen = rules.play(one_step(schedule_to_close=1.0, retry=policy), a=["fail"] * 100)

    assert seen.status in ("compensated", "failed")
    assert 2 <= seen.steps["a"].attempts <= 5
    assert (seen.finished_at - seen.started_at).total_seconds() < 5


def test_schedule_to_close_also_stops_an_attempt_that_runs(rules: Scenario):
    if rules.deployment.pool == "solo":
        pytest.skip("the solo pool is busy until the attempt returns")
    seen = rules.play(one_step(schedule_to_close=0.6, retry=ONCE), a=["hang"])

    assert seen.status == "compensated"


def test_a_step_that_sends_no_heartbeat_ends_as_unknown(rules: Scenario):
    seen = rules.play(one_step("watched"), a=["hang"])

    assert (seen.status, seen.error.type) == ("compensated", "HeartbeatTimeout")


def test_a_step_that_sends_heartbeats_may_take_longer_than_their_timeout(rules: Scenario):
    seen = rules.play(one_step("watched"), a=[["beat", {"n": 1}]])

    assert (seen.status, seen.context["n"]) == ("completed", 1)


def test_a_steps_heartbeat_timeout_goes_before_its_workers(rules: Scenario):
    seen = rules.play(one_step("watched", heartbeat_timeout=30), a=[["hang", {"n": 1}]])

    assert (seen.status, seen.context["n"]) == ("completed", 1)


def test_an_external_step_that_nobody_answers_times_out(rules: Scenario):
    seen = rules.play(one_step(external=True, timeout=0.5, retry=ONCE))

    assert (seen.status, seen.error.type) == ("compensated", "TimeLimitExceeded")
    assert "nobody published its result" in seen.error.message
