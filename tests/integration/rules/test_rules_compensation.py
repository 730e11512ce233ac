"""Undoing: what is undone, in which order, with what, and what becomes of a run whose undo does not work."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import (
    CompensationEvent,
    Definition,
    ResultEvent,
    RetryPolicy,
    Step,
    WorkflowBuilder,
    WorkflowFailedError,
)
from multiagents.testing import wait_until
from tests.support.letters import letter_about
from tests.support.scenario import Scenario, events, outcomes, statuses

PATIENT = RetryPolicy(max_attempts=3, initial_interval=0.05, jitter=False)
CHAIN = (
    WorkflowBuilder("chain")
    .add_step("a", "play", compensation="undo")
    .add_step("b", "play", compensation="undo")
    .add_step("c", "play", compensation="undo")
    .add_step("d", "play")
    .build(register=False)
)
BRANCHES = (
    WorkflowBuilder("branches")
    .add_step("first", "play", compensation="undo")
    .add_parallel(
        "both",
        [
            [Step("l1", "play", compensation="undo"), Step("l2", "play", compensation="undo")],
            [Step("r1", "play", compensation="undo"), Step("r2", "play", compensation="undo")],
        ],
    )
    .add_step("last", "play")
    .build(register=False)
)


def undone(rules: Scenario, run: Any) -> list[str]:
    return [entry["step"] for entry in rules.journal(run) if entry["direction"] == "undo"]


# --- order -----------------------------------------------------------------------------------------------------------


def test_S6_finished_steps_are_undone_in_the_reverse_of_their_order(rules: Scenario):
    run = rules.start(CHAIN, d=["terminal"])

    assert rules.end(run).status == "compensated"
    assert undone(rules, run) == ["c", "b", "a"]


def test_S6_independent_branches_are_undone_each_in_its_own_reverse_order(rules: Scenario):
    run = rules.start(BRANCHES, last=["terminal"])

    assert rules.end(run).status == "compensated"
    order = undone(rules, run)
    assert [step for step in order if step[0] == "l" and step != "last"] == ["l2", "l1"]
    assert [step for step in order if step[0] == "r"] == ["r2", "r1"]
    assert order[-1] == "first"
    assert sorted(order) == ["first", "l1", "l2", "r1", "r2"]


def test_S6_a_given_order_goes_before_the_default(rules: Scenario):
    given = (
        WorkflowBuilder("given", compensate_in=["a", "c", "b"])
        .add_step("a", "play", compensation="undo")
        .add_step("b", "play", compensation="undo")
        .add_step("c", "play", compensation="undo")
        .add_step("d", "play")
        .build(register=False)
    )

    run = rules.start(given, d=["terminal"])

    assert rules.end(run).status == "compensated"
    assert undone(rules, run) == ["a", "c", "b"]


def test_S7_siblings_of_a_failed_branch_settle_before_anything_is_undone(rules: Scenario):
    if rules.deployment.pool == "solo":
        pytest.skip("the solo pool has one step at a time, and this takes two side by side")
    run = rules.start(BRANCHES, l1=["terminal"], r1=["wait"])
    rules.until_begun(run, "r1")
    wait_until(lambda: run.status == "compensating", what="the run to go back")

    early = undone(rules, run)
    rules.open_gate(run, "r1")
    seen = rules.end(run)

    # Nothing was undone while r1 ran; it succeeded, so it is undone; its branch did not go on.
    assert (early, seen.status) == ([], "compensated")
    assert (undone(rules, run), rules.began(run, "r2")) == (["r1", "first"], [])


def test_S7_cancel_tells_siblings_to_stop_and_still_lets_them_settle(rules: Scenario):
    if rules.deployment.pool == "solo":
        pytest.skip("the solo pool has one step at a time, and this takes two side by side")
    block = [Step("l", "play"), Step("r", "play", compensation="undo")]
    cancel = WorkflowBuilder("cancel").add_parallel("both", block, on_failure="cancel").build(register=False)

    run = rules.start(cancel, l=[["wait", "terminal"]], r=["wait_until_cancelled"])
    rules.until_begun(run, "r")
    rules.open_gate(run, "l")
    seen = rules.end(run)

    assert (seen.status, seen.steps["r"].result) == ("compensated", {"saw_cancel": True})


# --- what an undo gets -----------------------------------------------------------------------------------------------


def test_S4_the_undo_gets_input_result_outcome_error_and_key(rules: Scenario):
    workflow = (
        WorkflowBuilder("given")
        .add_step("a", "play")
        .add_step("b", "play", compensation="undo")
        .add_step("c", "play")
        .build(register=False)
    )

    run = rules.start(workflow, {"order": 7}, a=[{"x": 1}], b=[{"x": 2, "y": 2}], c=["terminal"])
    rules.end(run)

    [undo] = [entry for entry in rules.journal(run) if entry["direction"] == "undo"]
    undo["input"].pop("script")
    # Its input is as it was when the step ran; its context has the step's result on top.
    assert undo["input"] == {"order": 7, "x": 1}
    assert undo["context"] == {"order": 7, "x": 2, "y": 2}
    assert (undo["result"], undo["outcome"], undo["error"]) == ({"x": 2, "y": 2}, "succeeded", "it will never work")
    assert undo["key"] == f"{run.transaction_id}/b"


def test_S4_the_undo_of_a_step_with_inputs_of_its_own_gets_these(rules: Scenario):
    narrow = {"script": "script", "n": "order.n"}
    workflow = (
        WorkflowBuilder("narrow")
        .add_step("a", "play", compensation="undo", inputs=narrow)
        .add_step("b", "play")
        .build(register=False)
    )

    run = rules.start(workflow, {"order": {"n": 7}}, a=[{"x": 1}], b=["terminal"])
    rules.end(run)

    [undo] = [entry for entry in rules.journal(run) if entry["direction"] == "undo"]
    assert (undo["input"]["n"], undo["context"]) == (7, {"n": 7, "x": 1})


def test_S2_the_undo_and_its_frozen_inputs_are_durable_while_its_step_runs(rules: Scenario):
    narrow = {"script": "script", "n": "order.n"}
    workflow = (
        WorkflowBuilder("durable").add_step("a", "play", compensation="undo", inputs=narrow).build(register=False)
    )
    run = rules.start(workflow, {"order": {"n": 7}}, a=["wait"])
    rules.until_begun(run, "a")

    # What is in the store while the step runs is all that it takes to undo it, in any process.
    stored = rules.redis.hget(rules.orchestrator.keys.of_partition(0).definitions, workflow.content_hash)
    frozen = rules.store.payloads(run.transaction_id).inputs["a"]
    rules.open_gate(run, "a")
    rules.end(run)

    assert Definition.from_json(stored).steps["a"].compensation == "undo"
    assert frozen == {"script": {"a": ["wait"]}, "n": 7}


# --- when the undo does not work -------------------------------------------------------------------------------------


def test_an_undo_has_a_retry_policy_of_its_own(rules: Scenario):
    workflow = (
        WorkflowBuilder("stubborn")
        .add_step("a", "play", compensation="undo", retry=RetryPolicy(max_attempts=1), undo_retry=PATIENT)
        .add_step("b", "play")
        .build(register=False)
    )

    run = rules.start(workflow, a__undo=["fail", "fail"], b=["terminal"])

    assert rules.end(run).steps["a"].compensation.attempts == 3
    assert [event.attempt for event in events(run, CompensationEvent)] == [1, 2, 3]


def test_S17_an_exhausted_undo_is_parked_and_the_other_undos_go_on(rules: Scenario):
    run = rules.start(CHAIN, {"order": 7}, b=[{"x": 1}], b__undo=["terminal"], d=["terminal"])

    seen = rules.end(run)

    assert (seen.status, undone(rules, run)) == ("compensation_failed", ["c", "b", "a"])
    assert {name: step.status for name, step in seen.steps.items()} == {
        "a": "compensated",
        "b": "compensation_failed",
        "c": "compensated",
        "d": "failed",
    }
    letter = letter_about(rules.orchestrator, f"{run.transaction_id}/b/undo/1")
    assert (letter["step"], letter["compensation"], letter["result"]) == ("b", "undo", {"x": 1})
    assert (letter["idempotency_key"], letter["input"]["order"]) == (f"{run.transaction_id}/b", 7)
    assert letter["error"]["message"] == "it will never work"


def test_S19_the_original_error_stays_and_the_undos_error_is_attached(rules: Scenario):
    run = rules.start(CHAIN, b__undo=["terminal"], d=["declined"] * 3)

    with pytest.raises(WorkflowFailedError) as raised:
        run.result(timeout=20)

    error = raised.value.error
    assert (raised.value.status, error.type) == ("compensation_failed", "tests.support.apps.scripted.CardDeclined")
    assert [cause.message for cause in error.causes] == ["undo of b: it will never work"]
    assert "CardDeclined" in error.traceback
    assert raised.value.steps["b"] == "compensation_failed"


def test_S21_a_run_whose_undo_is_killed_goes_on_with_it_and_repeats_no_finished_undo(rules: Scenario):
    if rules.deployment.pool != "prefork":
        pytest.skip("elsewhere the process that is killed is the whole worker: that is tested with the faults")

    run = rules.start(CHAIN, b__undo=["kill"], d=["terminal"])

    assert rules.end(run).status == "compensated"
    assert undone(rules, run) == ["c", "b", "b", "a"]


def test_S16_losses_do_not_end_an_undo_for_good_but_park_it(rules: Scenario):
    if rules.deployment.pool != "prefork":
        pytest.skip("elsewhere the process that is killed is the whole worker: that is tested with the faults")

    run = rules.start(CHAIN, c__undo=["kill"] * 3, d=["terminal"])

    assert rules.end(run).status == "compensation_failed"
    assert undone(rules, run) == ["c", "c", "c", "b", "a"]


# --- late successes --------------------------------------------------------------------------------------------------

EXTERNAL = (
    WorkflowBuilder("external")
    .add_step("order", "play", compensation="undo")
    .add_step("ship", external=True, compensation="undo", timeout=0.5, retry=RetryPolicy(max_attempts=1))
    .build(register=False)
)


def test_S5_a_late_success_is_refused_as_progress_and_undone_again(rules: Scenario):
    # Given: nobody answered in time, so the run went back and has ended.
    run = rules.start(EXTERNAL)
    first = rules.end(run)

    # When: the answer comes after all, and once more.
    answer = ResultEvent(
        transaction_id=run.transaction_id,
        correlation_id=f"{run.transaction_id}/ship/do/1",
        step="ship",
        payload={"n": 1},
    )
    rules.publish(answer, answer)
    wait_until(lambda: len(rules.began(run, "ship.undo")) == 2, what="the second undo")
    seen = rules.end(run)

    # Then: the shipping is undone a second time, with its result; the order is not.
    assert (first.status, seen.status) == ("compensated", "compensated")
    assert undone(rules, run) == ["ship", "order", "ship"]
    assert [e["result"] for e in rules.journal(run) if e["step"] == "ship"] == [None, {"n": 1}]
    assert statuses(run) == ["running", "compensating", "compensated", "compensating", "compensated"]
    assert "ship" not in seen.context


def test_S5_a_cancel_safe_step_is_undone_without_waiting_for_it(rules: Scenario):
    if rules.deployment.pool == "solo":
        pytest.skip("the solo pool has one step at a time, and this takes two side by side")
    workflow = (
        WorkflowBuilder("safe").add_step("a", "play", compensation="undo", cancel_safe=True).build(register=False)
    )
    run = rules.start(workflow, a=["wait"])
    rules.until_begun(run, "a")

    run.cancel()
    seen = rules.end(run)
    rules.open_gate(run, "a")
    wait_until(lambda: len(rules.began(run, "a.undo")) == 2, what="the undo after the late success")
    rules.end(run)

    assert seen.status == "cancelled"
    assert outcomes(run, "a")[-1] == "result"


# --- end states ------------------------------------------------------------------------------------------------------


def test_S18_each_end_state_says_what_became_of_the_effects(rules: Scenario):
    nothing_to_undo = WorkflowBuilder("bare").add_step("a", "play").add_step("b", "play").build(register=False)

    ends = {
        "all went well": rules.play(CHAIN).status,
        "every effect was undone": rules.play(CHAIN, d=["terminal"]).status,
        "there was nothing to undo": rules.play(nothing_to_undo, b=["terminal"]).status,
        "nothing had been done": rules.play(CHAIN, a=["terminal"]).status,
        "an undo failed": rules.play(CHAIN, a__undo=["terminal"], d=["terminal"]).status,
        "an undo may have taken effect": rules.play(CHAIN, a__undo=["unknown"], d=["terminal"]).status,
    }

    assert ends == {
        "all went well": "completed",
        "every effect was undone": "compensated",
        "there was nothing to undo": "failed",
        "nothing had been done": "failed",
        "an undo failed": "compensation_failed",
        "an undo may have taken effect": "compensation_failed",
    }
