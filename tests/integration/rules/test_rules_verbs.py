"""Rules S3, S17, S18, S20, S22, S24 and S28: what a person may tell a run, on real workers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from multiagents import RetryPolicy, StatusEvent, Step, WorkflowBuilder
from multiagents.exceptions import UnknownStepError, WorkflowError
from multiagents.testing import wait_until
from tests.support.letters import abouts
from tests.support.scenario import Scenario, events, statuses

ONCE = RetryPolicy(max_attempts=1)
ORDER = (
    WorkflowBuilder("verbs")
    .add_step("a", "play", compensation="undo")
    .add_step("b", "play", compensation="undo", on_unknown="park", undo_retry=ONCE)
    .add_step("c", "play")
    .build()
)


def until(rules: Scenario, run: Any, status: str) -> None:
    wait_until(lambda: run.status == status, 20, f"status {status}")


def test_S22_a_paused_run_sends_nothing_out_until_it_is_resumed(rules: Scenario) -> None:
    run = rules.start(ORDER, a=["wait"])
    rules.until_begun(run, "a")

    assert run.pause(reason="stocktaking", actor="ann") == "paused"
    assert run.pause() == "paused"
    rules.open_gate(run, "a")
    wait_until(lambda: run.describe().steps["a"].status == "succeeded", 20, "the end of a")

    assert rules.began(run) == ["a"]
    assert run.resume(actor="ann") == "running"
    assert rules.end(run).status == "completed"
    told = [(event.actor, event.reason) for event in events(run, StatusEvent) if event.status == "pause_requested"]
    assert told == [("ann", "stocktaking")]


def test_S22_a_retry_that_comes_due_while_the_run_is_paused_waits(rules: Scenario) -> None:
    slowly = RetryPolicy(max_attempts=2, initial_interval=0.3, jitter=False)
    workflow = WorkflowBuilder("paused_retry").add_step("a", "play", retry=slowly).build(register=False)
    run = rules.start(workflow, a=["fail"])
    wait_until(lambda: run.describe().steps["a"].error is not None, 20, "the first failure")

    run.pause()
    with pytest.raises(TimeoutError):
        run.result(timeout=1.5)

    assert rules.began(run) == ["a"]
    run.resume()
    assert rules.end(run).status == "completed"


def test_S22_stopped_timers_stand_still_and_a_moved_one_ends_its_sleep(rules: Scenario) -> None:
    workflow = WorkflowBuilder("stopped").add_sleep("nap", 0.6).add_step("a", "play").build(register=False)
    run = rules.start(workflow)
    run.pause(timers="stop")

    with pytest.raises(TimeoutError):
        run.result(timeout=1.5)
    assert run.describe().steps["nap"].status == "scheduled"
    run.update_timer("nap", 3_600, reason="not before noon")
    run.resume()
    due = run.describe().steps["nap"].due_at
    assert due is not None
    assert due - rules.store.now() > timedelta(minutes=59)
    run.update_timer("nap", 0)

    assert rules.end(run).status == "completed"
    assert [event.reason for event in events(run, StatusEvent, "nap") if event.status == "timer_updated"] == [
        "not before noon",
        None,
    ]


def test_S20_a_cancel_lifts_the_hold(rules: Scenario) -> None:
    run = rules.start(ORDER, a=["wait"])
    rules.until_begun(run, "a")
    run.pause()

    run.cancel()
    rules.open_gate(run, "a")

    assert rules.end(run).status == "cancelled"


def test_S3_a_parked_step_is_tried_again_or_given_its_result(rules: Scenario) -> None:
    again, given = rules.start(ORDER, b=["unknown"]), rules.start(ORDER, b=["unknown"])
    until(rules, again, "paused")
    until(rules, given, "paused")

    again.retry("b", reason="the bank has nothing")
    given.supply("b", {"charge": 7}, actor="ann")

    assert rules.end(again).steps["b"].attempts == 2
    seen = rules.end(given)
    assert (seen.status, seen.context["charge"], seen.steps["b"].result) == ("completed", 7, {"charge": 7})


def test_S3_a_parked_step_that_took_no_effect_is_skipped(rules: Scenario) -> None:
    run = rules.start(ORDER, b=["unknown"], c=["terminal"])
    until(rules, run, "paused")

    run.skip("b", "the bank has nothing")

    seen = rules.end(run)
    assert (seen.status, seen.steps["b"].status) == ("compensated", "skipped")
    assert rules.began(run, "b.undo") == []


def test_S17_an_undo_that_was_given_up_is_tried_again_and_its_letter_goes(rules: Scenario) -> None:
    run = rules.start(ORDER, b__undo=["terminal"], c=["terminal"])
    rules.end(run)
    letter = f"{run.transaction_id}/b/undo/1"
    assert run.status == "compensation_failed"
    assert letter in abouts(rules.orchestrator.dead_letters())

    assert run.retry() == "compensating"

    seen = rules.end(run)
    assert seen.status == "compensated"
    assert seen.effects == {"a": "undone", "b": "undone"}
    assert letter not in abouts(rules.orchestrator.dead_letters())


def test_S17_S18_a_skipped_undo_leaves_its_effect_and_says_so(rules: Scenario) -> None:
    run = rules.start(ORDER, b__undo=["terminal"], c=["terminal"])
    rules.end(run)

    run.skip("b", "refunded by hand", actor="ann")

    seen = rules.end(run)
    assert (seen.status, seen.effects) == ("compensated_partially", {"a": "undone", "b": "live"})
    assert rules.orchestrator.dead_letters(transaction_id=run.transaction_id) == {}


def test_S17_S28_an_abandoned_undo_has_no_letter_any_more_and_its_effect_stays(rules: Scenario) -> None:
    run = rules.start(ORDER, b__undo=["terminal"], c=["terminal"])
    rules.end(run)
    (letter,) = rules.orchestrator.dead_letters("verbs", "b", run.transaction_id).values()

    assert letter.abandon("the bank is gone", actor="ann") == "compensation_failed"
    assert run.abandon("b", "the bank is gone") == "compensation_failed"  # who got no answer asks again

    seen = run.describe()
    assert (seen.effects, seen.steps["b"].abandoned) == ({"a": "undone", "b": "live"}, True)
    assert rules.orchestrator.dead_letters(transaction_id=run.transaction_id) == {}
    told = [(event.actor, event.reason) for event in events(run, StatusEvent) if event.status == "abandon_requested"]
    assert told == [("ann", "the bank is gone")]


def test_S20_S28_a_terminated_run_undoes_nothing_and_tells_what_is_live(rules: Scenario) -> None:
    run = rules.start(ORDER, b=["wait_until_cancelled"])
    rules.until_begun(run, "b")

    assert run.terminate(reason="wrong tenant") == "terminated"
    assert run.terminate() == "terminated"

    seen = run.describe()
    assert (seen.status, seen.effects) == ("terminated", {"a": "live", "b": "unknown"})
    # Who still runs is told so, and what he returns is on record.
    wait_until(lambda: run.describe().effects["b"] == "live", 20, "the result of b")
    assert rules.began(run) == ["a", "b"]


def test_S24_a_completed_run_is_taken_back_on_request(rules: Scenario) -> None:
    run = rules.start(ORDER)
    rules.end(run)

    run.compensate(reason="returned", actor="ann")

    wait_until(lambda: run.status == "compensated", 20, "the end of the undo")
    assert statuses(run)[-3:] == ["completed", "compensating", "compensated"]
    assert rules.began(run) == ["a", "b", "c", "b.undo", "a.undo"]
    assert run.describe().error.message == "returned"


def test_S22_a_fork_begins_where_the_run_failed_and_undoes_what_it_took_over(rules: Scenario) -> None:
    workflow = (
        WorkflowBuilder("forked_verbs")
        .add_step("check", "play")
        .add_parallel("both", [Step("a", "play", compensation="undo", undo_retry=ONCE), Step("b", "play")])
        .add_step("c", "play")
        .add_step("d", "play")
        .build(register=False)
    )
    run = rules.start(workflow, a__undo=["terminal"], a=[{"booked": 7}], c=["terminal"])
    rules.end(run)
    run.skip("a", "still booked")
    rules.end(run)
    assert run.status == "compensated_partially"

    forks = [run.fork("c", {"script": script}) for script in ({}, {"d": ["terminal"]})]
    rules.runs |= {fork.transaction_id: fork for fork in forks}
    done, failed = map(rules.end, forks)

    assert (done.status, failed.status) == ("completed", "compensated")
    assert (rules.began(forks[0]), rules.began(forks[1])) == (["c", "d"], ["c", "d", "a.undo"])
    assert done.steps["a"].result == {"booked": 7}
    undone = rules.journal(forks[1])[-1]
    assert (undone["key"], undone["context"]["booked"]) == (f"{run.transaction_id}/a", 7)


def test_S12_behind_the_pivot_the_run_goes_forward_whatever_happens(rules: Scenario) -> None:
    transfer = (
        WorkflowBuilder("transfer")
        .add_step("a", "play", compensation="undo")
        .add_step("pay", "play", pivot=True)
        .add_step("c", "play", retry=ONCE)
        .build(register=False)
    )
    run = rules.start(transfer, pay=["wait"], c=["fail"])
    rules.until_begun(run, "pay")

    # A cancel that comes while the pivot runs waits for what comes of it: it succeeds, so there is no way back.
    run.cancel()
    rules.open_gate(run, "pay")
    until(rules, run, "paused")
    assert run.cancel() == "paused"
    run.retry("c")

    seen = rules.end(run)
    assert (seen.status, seen.effects) == ("completed", {"a": "live", "pay": "live", "c": "live"})
    assert rules.began(run, "a.undo") == []


def test_what_does_not_fit_is_refused_and_changes_nothing(rules: Scenario) -> None:
    run = rules.start(ORDER)
    rules.end(run)
    before = rules.store.load(run.transaction_id).version

    with pytest.raises(WorkflowError, match="it is completed, and nobody has paused it"):
        run.resume()
    with pytest.raises(WorkflowError, match="nothing waits for a person"):
        run.retry("a")
    with pytest.raises(WorkflowError, match="it is completed"):
        run.terminate()
    with pytest.raises(UnknownStepError, match=r"steps: a, b, c"):
        run.skip("bb", "no such step")

    assert rules.store.load(run.transaction_id).version == before
