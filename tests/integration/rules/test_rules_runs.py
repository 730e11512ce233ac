"""Runs: starting, cancelling, versions, and that none is ever left alone."""

from __future__ import annotations

import threading
import time

import pytest

from multiagents import (
    ResultEvent,
    RetryPolicy,
    StatusEvent,
    Step,
    WorkflowAlreadyExistsError,
    WorkflowBuilder,
)
from multiagents.testing import wait_until
from tests.support.apps import scripted
from tests.support.scenario import Scenario, events, outcomes

CHAIN = (
    WorkflowBuilder("chain")
    .add_step("a", "play", compensation="undo")
    .add_step("b", "play", compensation="undo")
    .add_step("c", "play", compensation="undo")
    .build(register=False)
)


# --- starting --------------------------------------------------------------------------------------------------------


def test_G3_starting_twice_with_the_same_id_gives_the_same_run(rules: Scenario):
    run = rules.start(CHAIN, {"order": 7}, tid="twice")
    again = rules.start(CHAIN, {"order": 7}, tid="twice")
    rules.end(run)
    after_the_end = rules.start(CHAIN, {"order": 7}, tid="twice")

    assert (again, after_the_end.status) == (run, "completed")
    assert rules.began(run) == ["a", "b", "c"]


def test_G3_many_callers_that_start_one_id_at_once_start_one_run(rules: Scenario):
    threads = [threading.Thread(target=rules.start, args=(CHAIN,), kwargs={"tid": "at-once"}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert rules.end(rules.runs["at-once"]).status == "completed"
    assert rules.began(rules.runs["at-once"]) == ["a", "b", "c"]


def test_G3_an_id_that_is_taken_by_another_run_is_refused(rules: Scenario):
    other = WorkflowBuilder("other").add_step("a", "play").build(register=False)
    run = rules.start(CHAIN, {"order": 7}, tid="taken")

    with pytest.raises(WorkflowAlreadyExistsError, match="another input"):
        rules.orchestrator.start(CHAIN, {"order": 8}, transaction_id="taken")
    with pytest.raises(WorkflowAlreadyExistsError, match=r'another workflow \("chain"\)'):
        rules.orchestrator.start(other, {"order": 7}, transaction_id="taken")
    rules.end(run)


# --- each transition once --------------------------------------------------------------------------------------------


def test_G1_results_that_arrive_together_are_each_recorded_once_and_their_join_is_dispatched_once(rules: Scenario):
    """Afterwards the history of each run is folded and compared with its state: see `Scenario.check_history`."""
    branches = [Step(f"b{number}", "play", compensation="undo") for number in range(8)]
    wide = WorkflowBuilder("wide").add_parallel("b", branches).add_step("last", "play").build(register=False)
    good = [rules.start(wide) for _ in range(5)]
    bad = [rules.start(wide, last=["terminal"]) for _ in range(5)]

    ended = [rules.end(run).status for run in good + bad]

    assert ended == ["completed"] * 5 + ["compensated"] * 5
    for run in good + bad:
        results = [event.correlation_id for event in events(run, ResultEvent)]
        assert len(results) == len(set(results)) == (9 if run in good else 16)
        assert rules.began(run, "last") == ["last"]


# --- nobody is left alone --------------------------------------------------------------------------------------------


def test_G4_at_no_moment_is_a_run_without_somebody_who_looks_after_it(rules: Scenario):
    """A mixed load; meanwhile the store is asked which runs have neither lease, timer, message nor declared wait."""
    wide = (
        WorkflowBuilder("wide")
        .add_step("a", "play", compensation="undo")
        .add_parallel("b", [Step(f"b{number}", "play", compensation="undo") for number in range(6)])
        .add_step("c", "play")
        .build(register=False)
    )
    slow_retry = RetryPolicy(max_attempts=3, initial_interval=0.2, jitter=False)
    retried = WorkflowBuilder("retried").add_step("a", "play", retry=slow_retry).build(register=False)
    for _ in range(12):
        rules.start(wide)
        rules.start(wide, b3=["terminal"], a__undo=["fail"])
        rules.start(wide, c=["unknown"])
        rules.start(retried, a=["fail", "fail"])
        rules.start(scripted.conditional, {"wanted": False})
        rules.start(CHAIN).cancel()

    looks = 0
    limit = time.monotonic() + 60
    while any(not run.status.is_end for run in rules.runs.values()):
        assert [name for name in rules.store.visibility.unattended() if name in rules.runs] == []
        assert time.monotonic() < limit, {run: run.status for run in rules.runs.values()}
        looks += 1

    assert looks > 3
    ended = [run.status for run in rules.runs.values()]
    assert sorted(set(ended)) == ["cancelled", "compensated", "completed"]
    assert ended.count("completed") == 36


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_S20_cancel_lets_the_running_step_settle_and_undoes_what_was_done(rules: Scenario):
    run = rules.start(CHAIN, b=["wait"])
    rules.until_begun(run, "b")

    status = run.cancel(reason="changed my mind", actor="ann")
    rules.open_gate(run, "b")
    seen = rules.end(run)

    assert (status, seen.status) == ("compensating", "cancelled")
    assert rules.began(run) == ["a", "b", "b.undo", "a.undo"]
    [request] = [event for event in events(run, StatusEvent) if event.status == "cancel_requested"]
    assert (request.reason, request.actor) == ("changed my mind", "ann")
    assert seen.error.type == "Cancelled"


def test_S20_a_running_step_can_see_that_it_is_to_stop(rules: Scenario):
    run = rules.start(CHAIN, b=["wait_until_cancelled"])
    rules.until_begun(run, "b")

    run.cancel()

    assert rules.end(run).steps["b"].result == {"saw_cancel": True}


def test_S20_cancel_before_any_step_has_begun_ends_without_running_one(rules: Scenario):
    """Its queue is consumed by nobody, so the message is still waiting: it is taken back."""
    workflow = (
        WorkflowBuilder("waiting").add_step("a", "play", compensation="undo", queue="nobody").build(register=False)
    )
    run = rules.start(workflow)

    run.cancel()

    assert (rules.end(run).status, rules.began(run)) == ("cancelled", [])


def test_S20_cancel_during_compensation_is_recorded_and_changes_nothing(rules: Scenario):
    run = rules.start(CHAIN, b__undo=["wait"], c=["terminal"])
    rules.until_begun(run, "b.undo")

    status = run.cancel(reason="too late")
    rules.open_gate(run, "b")
    seen = rules.end(run)

    assert (status, seen.status, seen.error.type) == (
        "compensating",
        "compensated",
        "multiagents.exceptions.TerminalError",
    )
    assert rules.began(run) == ["a", "b", "c", "b.undo", "a.undo"]
    assert [event.reason for event in events(run, StatusEvent) if event.status == "cancel_requested"] == ["too late"]


def test_S20_G3_cancelling_twice_undoes_once(rules: Scenario):
    run = rules.start(CHAIN, b=["wait"])
    rules.until_begun(run, "b")

    run.cancel()
    run.cancel()
    rules.open_gate(run, "b")

    assert (rules.end(run).status, rules.began(run)) == ("cancelled", ["a", "b", "b.undo", "a.undo"])
    assert run.cancel() == "cancelled"


def test_S20_cancel_after_the_end_changes_nothing(rules: Scenario):
    run = rules.start(CHAIN)
    rules.end(run)

    assert (run.cancel(), rules.began(run)) == ("completed", ["a", "b", "c"])


def test_S20_cancel_while_an_attempt_waits_for_its_back_off(rules: Scenario):
    slow = RetryPolicy(max_attempts=3, initial_interval=60.0, jitter=False)
    workflow = WorkflowBuilder("back_off").add_step("a", "play", compensation="undo", retry=slow).build(register=False)
    run = rules.start(workflow, a=["fail"])
    wait_until(lambda: outcomes(run, "a") == ["failed"], what="the first failure")

    run.cancel()

    assert (rules.end(run, 5).status, rules.began(run)) == ("cancelled", ["a"])


# --- versions --------------------------------------------------------------------------------------------------------


def test_S26_a_run_finishes_on_the_definition_it_was_started_with(rules: Scenario):
    name = f"renewed-{rules.deployment.pool}-{rules.deployment.mode}"
    old = (
        WorkflowBuilder(name, version="1")
        .add_step("a", "play", compensation="undo")
        .add_step("b", "play", compensation="undo")
        .build()
    )
    run = rules.start(name, a=["wait"])
    rules.until_begun(run, "a")

    # A new version is deployed here, and a run of it overtakes the old one.
    new = WorkflowBuilder(name, version="2").add_step("z", "play").build()
    if rules.deployment.pool != "solo":
        assert list(rules.play(name).steps) == ["z"]
    rules.open_gate(run, "a")
    seen = rules.end(run)

    assert (seen.version, seen.status, rules.began(run)) == ("1", "completed", ["a", "b"])
    assert old.content_hash != new.content_hash


# --- the deadline of a run -------------------------------------------------------------------------------------------


def test_S18_a_run_that_is_not_over_at_its_deadline_is_undone_and_ends_as_timed_out(rules: Scenario):
    late = (
        WorkflowBuilder("late", deadline=0.6)
        .add_step("a", "play", compensation="undo")
        .add_step("b", "play", external=True, cancel_safe=True)
        .build(register=False)
    )

    run = rules.start(late)
    seen = rules.end(run)

    assert (seen.status, seen.error.type) == ("timed_out", "DeadlineExceeded")
    assert rules.began(run) == ["a", "a.undo"]


def test_S18_a_run_that_is_over_in_time_is_left_alone_by_its_deadline(rules: Scenario):
    quick = WorkflowBuilder("quick", deadline=0.5).add_step("a", "play", compensation="undo").build(register=False)

    run = rules.start(quick)
    rules.end(run)
    time.sleep(1.0)

    assert run.status == "completed"
    assert rules.began(run) == ["a"]
