"""Rules S3 and S13 on real workers: a step whose outcome nobody knows is asked about by its probe."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import CommandEvent, ErrorEvent, ErrorInfo, ResultEvent, RetryPolicy, Step, WorkflowBuilder
from multiagents.events import ErrorKind
from multiagents.testing import wait_until
from tests.support.scenario import Scenario, events, outcomes

ONCE = RetryPolicy(max_attempts=1)
RESOLVE: dict[str, Any] = {"on_unknown": "resolve", "resolve_with": "probe"}
ORDER = (
    WorkflowBuilder("probed")
    .add_step("a", "play", compensation="undo", **RESOLVE)
    .add_step("b", "echo")
    .build(register=False)
)
DONE = {"outcome": "succeeded", "result": {"charge_id": "ch_1"}}


def test_S3_a_step_that_kills_its_workers_is_asked_about_and_the_run_goes_on_with_its_result(rules: Scenario):
    if rules.deployment.pool != "prefork":
        pytest.skip("elsewhere the process that is killed is the whole worker: that is tested with the faults")
    run = rules.start(ORDER, {"n": 1}, a=["kill", "kill", "kill"], a__probe=[DONE])

    seen = rules.end(run)

    assert (seen.status, seen.steps["a"].status, seen.steps["a"].result) == ("completed", "succeeded", DONE["result"])
    assert (seen.steps["a"].attempts, seen.steps["a"].probing, seen.steps["a"].error) == (4, True, None)
    assert seen.steps["b"].result["b_saw"]["charge_id"] == "ch_1"
    assert rules.began(run) == ["a", "a", "a", "a.probe"]
    assert outcomes(run, "a") == ["lost", "lost", "lost", "result"]
    said = [(event.worker, event.probe) for event in events(run, CommandEvent, "a")]
    assert said == [("play", False)] * 3 + [("probe", True)]


def test_S3_S25_the_probe_is_told_what_it_is_asked_about(rules: Scenario):
    run = rules.start(ORDER, {"n": 1}, a=["unknown"], a__probe=[DONE])
    rules.end(run)

    done, asked = rules.journal(run)
    assert (asked["step"], asked["key"], asked["attempt"]) == (done["step"], done["key"], 2)
    assert (asked["input"]["n"], asked["error"]) == (1, "the provider did not answer")


def test_S3_a_probe_that_dies_or_fails_is_asked_again_and_one_that_goes_on_so_is_left_to_a_person(rules: Scenario):
    fails = "kill" if rules.deployment.pool == "prefork" else "fail"
    again = rules.start(ORDER, a=["unknown"], a__probe=[fails, {"outcome": "failed", "reason": "no such charge"}])
    never = rules.start(ORDER, a=["unknown"], a__probe=["fail", "fail"])

    seen = rules.end(again)
    wait_until(lambda: never.status == "paused", 20, "the pause")

    assert (seen.status, seen.steps["a"].status) == ("failed", "failed")
    assert seen.error.message == "the provider did not answer"
    assert [cause.message for cause in seen.error.causes] == [
        "probe of a: step 'a': its probe 'probe' found that it did not take effect: no such charge"
    ]
    assert never.describe().steps["a"].status == "unknown"
    assert [cause.message for cause in never.describe().steps["a"].error.causes] == ["probe of a: no such thing"]


def test_S3_an_answer_that_is_none_leaves_the_step_to_a_person_and_says_why(rules: Scenario):
    run = rules.start(ORDER, a=["unknown"], a__probe=[{"charge_id": "ch_1"}])
    wait_until(lambda: run.status == "paused", 20, "the pause")

    (cause,) = run.describe().steps["a"].error.causes
    assert cause.type == "multiagents.exceptions.ResolutionError"
    assert 'probe "probe" of step "a" answered with no outcome, only charge_id; expected' in cause.message
    run.supply("a", {"charge_id": "ch_1"}, reason="asked the bank")
    assert rules.end(run).status == "completed"


def test_S3_S20_a_cancelled_run_asks_first_and_undoes_what_took_effect_with_its_result(rules: Scenario):
    if rules.deployment.pool == "solo":
        pytest.skip("the solo pool is busy while the step waits, and so is its remote control")
    run = rules.start(ORDER, a=[["wait", "unknown"]], a__probe=[DONE])
    rules.until_begun(run, "a")

    run.cancel(reason="changed my mind")
    rules.open_gate(run, "a")

    assert rules.end(run).status == "cancelled"
    assert rules.began(run) == ["a", "a.probe", "a.undo"]
    undo = rules.journal(run)[-1]
    assert (undo["outcome"], undo["result"]) == ("succeeded", DONE["result"])


def test_S3_an_external_step_that_nobody_reports_is_asked_about(rules: Scenario):
    workflow = (
        WorkflowBuilder("ext")
        .add_step("a", "play", external=True, timeout=0.4, retry=ONCE, **RESOLVE)
        .build(register=False)
    )

    run = rules.start(workflow, a__probe=[DONE])

    assert rules.end(run).context["charge_id"] == "ch_1"
    assert rules.began(run) == ["a.probe"]


def test_S3_S8_an_item_of_a_map_is_asked_about_by_itself(rules: Scenario):
    item = Step("item", "play", compensation="undo", **RESOLVE)
    workflow = WorkflowBuilder("mapped").add_map("a", item, over="items").add_step("b", "play").build(register=False)
    script: dict[str, Any] = {"a[1]": ["unknown"], "a[1]__probe": [DONE]}
    back: dict[str, Any] = {"a[0]": ["unknown"], "a[0]__probe": [{"outcome": "failed"}]}

    made, not_made = (rules.start(workflow, {"items": [1, 2, 3]}, **each) for each in (script, back))

    seen = rules.end(made)
    assert (seen.status, seen.steps["a[1]"].result, seen.context["a"][1]) == ("completed", *[DONE["result"]] * 2)
    assert rules.began(made, "a[0].probe", "a[1].probe", "a[2].probe") == ["a[1].probe"]
    assert rules.end(not_made).status == "compensated"
    assert sorted(rules.began(not_made, "a[0].undo", "a[1].undo", "a[2].undo")) == ["a[1].undo", "a[2].undo"]


def test_S3_of_a_local_step_the_probe_is_sent_and_the_local_steps_behind_it_are_run(rules: Scenario):
    workflow = (
        WorkflowBuilder("local")
        .add_step("first", "play")
        .add_step("a", "play", local=True, **RESOLVE)
        .add_step("b", "play", local=True)
        .build(register=False)
    )

    run = rules.start(workflow, a=["unknown"], a__probe=[DONE])

    assert rules.end(run).context["charge_id"] == "ch_1"
    assert rules.began(run) == ["first", "a", "a.probe", "b"]


def test_S13_a_pivots_probe_settles_it_and_the_run_goes_on(rules: Scenario):
    workflow = (
        WorkflowBuilder("transfer")
        .add_step("hold", "play", compensation="undo")
        .add_step("a", "play", pivot=True, **RESOLVE)
        .add_step("b", "play")
        .build(register=False)
    )

    made = rules.start(workflow, a=["unknown"], a__probe=[DONE])
    not_made = rules.start(workflow, a=["unknown"], a__probe=[{"outcome": "failed"}])

    assert (rules.end(made).status, rules.end(not_made).status) == ("completed", "compensated")
    assert rules.began(not_made) == ["hold", "a", "a.probe", "hold.undo"]


def test_S3_a_foreign_producer_answers_in_the_place_of_a_probe_and_of_the_step(rules: Scenario):
    workflow = (
        WorkflowBuilder("foreign").add_step("a", "play", queue="nobodys", retry=ONCE, **RESOLVE).build(register=False)
    )
    told, mistold = rules.start(workflow), rules.start(workflow)
    for run in (told, mistold):
        error = ErrorInfo(type="NoAnswer", message="no answer")
        rules.publish(ErrorEvent(**attempt(run, 1), kind=ErrorKind.UNKNOWN, error=error))
        wait_until(lambda run=run: run.describe().steps["a"].probing, 20, "the probe")

    rules.publish(ResultEvent(**attempt(told, 2), payload=DONE))
    rules.publish(ResultEvent(**attempt(mistold, 2), payload=DONE["result"]))

    assert rules.end(told).context["charge_id"] == "ch_1"
    wait_until(lambda: mistold.status == "paused", 20, "the pause")
    assert "answered with no outcome" in mistold.describe().steps["a"].error.causes[0].message
    # A late success of the step itself is its result, and no answer of a probe.
    mistold.cancel()
    rules.publish(ResultEvent(**attempt(mistold, 1), payload=DONE["result"]))
    wait_until(lambda: mistold.describe().steps["a"].result == DONE["result"], 20, "the late success")


def attempt(run: Any, number: int) -> dict[str, Any]:
    """What an event of an attempt to do the step has."""
    correlation_id = f"{run.transaction_id}/a/do/{number}"
    return {"transaction_id": run.transaction_id, "correlation_id": correlation_id, "step": "a", "attempt": number}
