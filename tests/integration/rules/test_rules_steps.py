"""Doing steps: what counts, what is tried again, what is given to a step and what becomes of its result."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import CommandEvent, RetryPolicy, Step, WorkflowBuilder
from multiagents.names import Correlation, Direction
from multiagents.testing import wait_until
from tests.support.apps import scripted
from tests.support.scenario import CONCURRENCY, Scenario, events, outcomes

ONE = WorkflowBuilder("one").add_step("a", "play", compensation="undo").build(register=False)
THREE = (
    WorkflowBuilder("three")
    .add_step("a", "play", compensation="undo")
    .add_step("b", "play", compensation="undo")
    .add_step("c", "play", compensation="undo")
    .build(register=False)
)


# --- what counts -----------------------------------------------------------------------------------------------------


def test_a_run_completes_with_the_results_of_all_steps_in_its_context(rules: Scenario):
    run = rules.start(THREE, {"order": 7}, a=[{"x": 1, "y": 1}], b=[{"y": 2}])

    result = run.result(timeout=20)

    assert {**result, "script": None} == {"order": 7, "x": 1, "y": 2, "script": None}
    assert rules.began(run) == ["a", "b", "c"]


def test_G2_a_step_whose_result_is_recorded_is_never_run_again_though_its_message_comes_twice(rules: Scenario):
    # Given: a run whose first step is done, and whose second has begun.
    run = rules.start(THREE, b=["wait"])
    rules.until_begun(run, "b")

    # When: the messages of both come a second time.
    for step in ("a", "b"):
        rules.deployment.app.send_task(
            "play",
            kwargs={
                "transaction_id": run.transaction_id,
                "step": step,
                "direction": "do",
                "attempt": 1,
                "definition": THREE.content_hash,
                "nonce": rules.store.load(run.transaction_id).state.nonce,
            },
            task_id=f"{run.transaction_id}/{step}/do/1",
            headers={"multiagents": "0:0"},
            ignore_result=True,
        )
    rules.open_gate(run, "b")
    seen = rules.end(run)

    # Then: neither ran twice.
    assert (seen.status, rules.began(run)) == ("completed", ["a", "b", "c"])


def test_G2_S25_all_attempts_of_a_step_and_its_undo_have_one_idempotency_key(rules: Scenario):
    seen = rules.play(THREE, a=["fail", "fail"], c=["terminal"], a__undo=["fail"])

    # c failed definitely, so it is not undone itself (rule S3).
    run = rules.runs[seen.transaction_id]
    keys = {entry["key"] for entry in rules.journal(run) if entry["step"] == "a"}
    assert rules.began(run) == ["a", "a", "a", "b", "c", "b.undo", "a.undo", "a.undo"]
    assert keys == {f"{run.transaction_id}/a"}


def test_S1_a_step_shows_how_far_it_is(rules: Scenario):
    run = rules.start(THREE, b=["wait"])
    rules.until_begun(run, "b")

    midway = {name: step.status for name, step in run.describe().steps.items()}
    rules.open_gate(run, "b")
    after = {name: step.status for name, step in rules.end(run).steps.items()}

    assert midway == {"a": "succeeded", "b": "running", "c": "not_started"}
    assert after == {"a": "succeeded", "b": "succeeded", "c": "succeeded"}


def test_describe_says_who_did_a_step_and_when_and_how_often(rules: Scenario):
    seen = rules.play(ONE, a=["fail", {"n": 1}])

    step = seen.steps["a"]
    assert (step.status, step.attempts, step.result, step.error) == ("succeeded", 2, {"n": 1}, None)
    assert step.task_id == f"{seen.transaction_id}/a/do/2"
    assert step.worker == rules.deployment.workers[0].node
    assert seen.started_at <= step.finished_at <= seen.finished_at


# --- what is tried again ---------------------------------------------------------------------------------------------


def test_a_failed_attempt_is_retried_after_its_back_off(rules: Scenario):
    policy = RetryPolicy(max_attempts=3, initial_interval=0.2, backoff_coefficient=2.0, jitter=False)
    slow = WorkflowBuilder("back_off").add_step("a", "play", retry=policy).build(register=False)

    seen = rules.play(slow, a=["fail", "fail"])

    commands = events(rules.runs[seen.transaction_id], CommandEvent, "a")
    assert (seen.status, [command.delay for command in commands]) == ("completed", [0.0, 0.2, 0.4])
    assert (seen.steps["a"].finished_at - seen.started_at).total_seconds() >= 0.6


@pytest.mark.parametrize(
    ("worker", "action", "attempts"),
    [
        ("play", "fail", 3),
        ("play", "terminal", 1),
        ("play", "unknown", 1),
        ("choosy", "declined", 1),
        ("choosy", "fail", 4),
    ],
)
def test_a_worker_says_what_is_not_worth_another_try(rules: Scenario, worker: str, action: str, attempts: int):
    workflow = WorkflowBuilder("tries").add_step("a", worker).build(register=False)

    seen = rules.play(workflow, a=[action] * 9)

    assert (seen.status, seen.steps["a"].attempts) == ("failed", attempts)


def test_the_policy_of_the_step_goes_before_that_of_its_worker(rules: Scenario):
    policy = RetryPolicy(max_attempts=2, initial_interval=0.05, jitter=False)
    workflow = WorkflowBuilder("tries_of_step").add_step("a", "choosy", retry=policy).build(register=False)

    assert rules.play(workflow, a=["fail"] * 9).steps["a"].attempts == 2


def test_S1a_a_killed_worker_process_costs_none_of_the_policys_attempts(rules: Scenario):
    if rules.deployment.pool != "prefork":
        pytest.skip("elsewhere the process that is killed is the whole worker: that is tested with the faults")

    seen = rules.play(ONE, a=["kill", "fail", "kill", "fail", {"n": 1}])

    # The policy has three attempts: two failed, two were lost, the fifth made it.
    assert (seen.status, seen.steps["a"].attempts, seen.context["n"]) == ("completed", 5, 1)
    assert outcomes(rules.runs[seen.transaction_id], "a") == ["lost", "failed", "lost", "failed", "result"]


def test_S1a_a_step_that_kills_its_worker_each_time_ends_as_unknown_and_is_undone(rules: Scenario):
    if rules.deployment.pool != "prefork":
        pytest.skip("elsewhere the process that is killed is the whole worker: that is tested with the faults")

    seen = rules.play(ONE, a=["kill"] * 9)

    # max_lost is 3 here.
    assert (seen.status, seen.steps["a"].attempts) == ("compensated", 3)
    assert rules.journal(rules.runs[seen.transaction_id])[-1]["outcome"] == "unknown"
    assert seen.error.type == "WorkerLost"
    # The worker's pool is whole again: what the engine asks after two losses must not hang children forked later.
    held = [rules.start(ONE, a=["wait"]) for _ in range(CONCURRENCY["prefork"])]
    for run in held:
        rules.until_begun(run, "a")
    for run in held:
        rules.open_gate(run, "a")


def test_S1a_asking_the_workers_after_two_losses_leaves_no_connection_waiting_for_replies(redis_url: str):
    """A pool child that is forked while one waits for replies closes it, reads its parent's socket, and hangs."""
    app = scripted.make_app(redis_url)
    one = WorkflowBuilder("asked").add_step("a", "play").build(register=False)
    database = redis_url.rpartition("/")[2]

    with scripted.client(redis_url) as server:
        app.multiagents.dispatcher.address(one, Correlation("t", "a", Direction.DO, 3), losses=2)
        left = [each["cmd"] for each in server.client_list() if each["db"] == database]

    assert "brpop" not in left


@pytest.mark.parametrize(
    ("script", "outcome"),
    [(["terminal"], None), (["unknown"], "unknown"), ([{"n": 1}], "succeeded")],
)
def test_S1b_S3_what_may_have_taken_effect_is_undone_and_a_definite_failure_is_not(
    rules: Scenario, script: list[Any], outcome: str | None
):
    run = rules.start(
        WorkflowBuilder("pair").add_step("a", "play", compensation="undo").add_step("b", "play").build(register=False),
        a=script,
        b=["terminal"],
    )

    rules.end(run)

    assert [entry["outcome"] for entry in rules.journal(run) if entry["direction"] == "undo"] == (
        [outcome] if outcome else []
    )


def test_S1b_a_success_after_a_doubtful_attempt_clears_the_doubt(rules: Scenario):
    limited = (
        WorkflowBuilder("doubt")
        .add_step(
            "a", "play", compensation="undo", timeout=0.5, retry=RetryPolicy(max_attempts=2, initial_interval=0.05)
        )
        .build(register=False)
    )
    if rules.deployment.pool == "solo":
        pytest.skip("the solo pool is busy until the first attempt returns")

    seen = rules.play(limited, a=["hang", {"n": 1}])

    run = rules.runs[seen.transaction_id]
    assert (seen.status, seen.steps["a"].status, outcomes(run, "a")[:2]) == (
        "completed",
        "succeeded",
        ["timeout", "result"],
    )


def test_S1b_a_definite_failure_after_a_doubtful_attempt_leaves_the_doubt(rules: Scenario):
    limited = (
        WorkflowBuilder("doubt")
        .add_step(
            "a", "play", compensation="undo", timeout=0.5, retry=RetryPolicy(max_attempts=2, initial_interval=0.05)
        )
        .build(register=False)
    )
    if rules.deployment.pool == "solo":
        pytest.skip("the solo pool is busy until the first attempt returns")

    run = rules.start(limited, a=["wait", "terminal"])
    seen = rules.end(run)
    before = [entry["outcome"] for entry in rules.journal(run) if entry["direction"] == "undo"]
    rules.open_gate(run, "a")
    if rules.deployment.pool == "threads":
        # There the first attempt could not be stopped: its late success leads to another undo (rule S5).
        rules.until_begun(run, "a.undo", times=2)

    assert (seen.status, before) == ("compensated", ["unknown"])


def test_S3_compensate_on_failure_undoes_the_failed_step_too(rules: Scenario):
    workflow = (
        WorkflowBuilder("leftovers")
        .add_step("a", "play", compensation="undo", compensate_on_failure=True)
        .build(register=False)
    )

    run = rules.start(workflow, a=["terminal"])

    assert rules.end(run).status == "compensated"
    assert rules.journal(run)[-1]["outcome"] == "failed"


def test_S3_park_holds_the_run_for_a_person_and_cancel_lets_it_go_back(rules: Scenario):
    workflow = (
        WorkflowBuilder("park").add_step("a", "play", compensation="undo", on_unknown="park").build(register=False)
    )
    run = rules.start(workflow, a=["unknown"])

    with pytest.raises(TimeoutError):
        run.result(timeout=1)
    held = run.status
    run.cancel(reason="asked the bank")

    assert (held, rules.end(run).status, rules.began(run)) == ("paused", "cancelled", ["a", "a.undo"])


# --- what is given to a step, and what becomes of its result ----------------------------------------------------------


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("workflow", [scripted.conditional, scripted.conditional_entry], ids=lambda w: w.name)
def test_a_step_whose_when_is_false_is_skipped_and_the_flow_goes_on(rules: Scenario, workflow: Any, wanted: bool):
    run = rules.start(workflow, {"wanted": wanted, "script": {"maybe": [{"n": 1}]}})

    seen = rules.end(run)

    assert (seen.status, seen.steps["maybe"].status) == ("completed", "succeeded" if wanted else "skipped")
    assert (rules.began(run)[-1], seen.context.get("n")) == ("last", 1 if wanted else None)


def test_a_when_that_raises_is_a_definite_failure_that_names_it(rules: Scenario):
    seen = rules.play(scripted.conditional, {})

    assert (seen.status, seen.steps["maybe"].status) == ("failed", "failed")
    assert seen.error.type == "KeyError"
    assert "when= of step 'maybe' raised KeyError: 'wanted'" in seen.error.message


def test_inputs_narrow_the_context_by_a_mapping_or_a_callable(rules: Scenario):
    mapped = (
        WorkflowBuilder("mapped")
        .add_step("first", "play")
        .add_step("called", "echo", inputs={"street": "customer.address.street"})
        .build(register=False)
    )
    customer = {"customer": {"address": {"street": "Long Lane"}}}

    assert rules.play(mapped, customer).steps["called"].result == {"called_saw": {"street": "Long Lane"}}
    assert rules.play(scripted.narrowed, {"n": 4}).steps["called"].result == {"called_saw": {"twice": 8}}


def test_inputs_that_raise_are_a_definite_failure_that_names_them(rules: Scenario):
    mapped = WorkflowBuilder("mapped").add_step("a", "echo", inputs={"to": "customer.city"}).build(register=False)

    seen = rules.play(mapped, {"customer": {}})
    called = rules.play(scripted.narrowed, {"n": None})

    assert (seen.status, called.status) == ("failed", "failed")
    assert 'takes its input "to" from "customer.city", which the context does not have' in seen.error.message
    assert "inputs= of step 'called' raised TypeError" in called.error.message


def test_typed_workers_take_models_and_return_models(rules: Scenario):
    workflow = WorkflowBuilder("typed").add_step("price", "price").build(register=False)

    seen = rules.play(workflow, {"order_id": "A-1", "quantity": 4})

    assert (seen.status, seen.steps["price"].result) == ("completed", {"receipt": "R-A-1", "total": 10.0})


def test_S1b_a_mismatch_of_arguments_is_definite_and_one_of_the_result_unknown(rules: Scenario):
    build = WorkflowBuilder("typed").add_step("a", "price", compensation="undo").build
    badly = WorkflowBuilder("badly").add_step("a", "price_badly", compensation="undo").build(register=False)

    arguments = rules.play(build(register=False), {"order_id": "A-1", "quantity": "many"})
    result = rules.play(badly, {"order_id": "A-1", "quantity": 1})

    assert (arguments.status, arguments.steps["a"].status) == ("failed", "failed")
    assert "quantity" in arguments.error.message
    assert (result.status, result.steps["a"].compensation.status) == ("compensated", "compensated")
    assert "total" in result.error.message


def test_a_value_that_is_no_dict_is_stored_under_the_steps_name(rules: Scenario):
    seen = rules.play(ONE, a=["number"])

    assert (seen.status, seen.steps["a"].result, seen.context["a"]) == ("completed", 42, 42)


PARALLEL = (
    WorkflowBuilder("parallel")
    .add_parallel("both", [Step("left", "play"), Step("right", "play")])
    .add_step("last", "echo")
    .build(register=False)
)


@pytest.mark.parametrize("slow", ["left", "right"])
def test_parallel_results_are_merged_in_definition_order_whatever_finished_first(rules: Scenario, slow: str):
    if rules.deployment.pool == "solo":
        pytest.skip("the solo pool has one step at a time, and this takes two side by side")
    quick = "left" if slow == "right" else "right"
    scores = {"left": {"score": 1}, "right": {"score": 2}}
    run = rules.start(PARALLEL, {"script": {slow: [["wait", scores[slow]]], quick: [scores[quick]]}})
    wait_until(lambda: run.describe().steps[quick].status == "succeeded", what=quick)
    rules.open_gate(run, slow)

    seen = rules.end(run)

    assert (seen.status, seen.context["score"]) == ("completed", 2)
    assert seen.context["last_saw"]["score"] == 2


def test_a_step_reads_the_results_of_all_steps_by_name(rules: Scenario):
    workflow = (
        WorkflowBuilder("reader")
        .add_parallel("both", [Step("left", "play"), Step("right", "play")])
        .add_step("read", "read_results")
        .build(register=False)
    )

    seen = rules.play(workflow, left=[{"score": 1}], right=[{"score": 2}])

    assert seen.steps["read"].result == {"results": {"left": {"score": 1}, "right": {"score": 2}}}
