"""Local steps on real workers: no message and no claim, and all the guarantees of other steps."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import RetryPolicy, Step, WorkflowBuilder
from tests.support.scenario import Scenario, outcomes

ONCE = RetryPolicy(max_attempts=1)
NEAR = (
    WorkflowBuilder("near")
    .add_step("a", "play", compensation="undo")
    .add_step("b", "play", compensation="undo", local=True)
    .add_step("c", "play", compensation="undo", local=True, inputs={"seen": "n"})
    .add_step("d", "echo", local=True)
    .build()
)


def _calls(rules: Scenario, command: str) -> int:
    """How often the server has run a command."""
    stats: Any = rules.redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


def test_local_steps_run_in_the_process_of_the_step_before(rules: Scenario) -> None:
    run = rules.start(NEAR, a=[{"n": 1}], b=[{"n": 2, "m": 3}])

    seen = rules.end(run)

    entries = rules.journal(run)
    assert [entry["step"] for entry in entries] == ["a", "b", "c"]
    assert seen.status == "completed"
    assert {name: seen.context["d_saw"][name] for name in ("n", "m")} == {"n": 2, "m": 3}
    if rules.deployment.mode == "inline":
        assert len({entry["pid"] for entry in entries}) == 1


def test_a_local_step_costs_one_script_and_no_message(rules: Scenario) -> None:
    builder = WorkflowBuilder("many_near").add_step("first", "echo", inputs={})
    for number in range(100):
        builder.add_step(f"near{number}", "echo", local=True, inputs={})
    workflow = builder.build()
    rules.play(workflow)  # once, for what is only loaded
    before = _calls(rules, "evalsha"), _calls(rules, "brpop")

    rules.play(workflow)

    scripts, fetches = _calls(rules, "evalsha") - before[0], _calls(rules, "brpop") - before[1]
    if rules.deployment.mode == "inline":
        # One commit a step; the rest are the start, the first step's claim, and the sweeps and waits beside it.
        assert 100 < scripts < 125
        assert fetches < 40


def test_S1_a_local_step_that_fails_is_retried_by_its_policy(rules: Scenario) -> None:
    run = rules.start(NEAR, b=["fail", "fail", {"n": 5}])

    seen = rules.end(run)

    assert (seen.status, seen.context["n"]) == ("completed", 5)
    assert outcomes(run, "b") == ["failed", "failed", "result"]


def test_S6_a_local_step_that_fails_for_good_turns_the_run_back(rules: Scenario) -> None:
    failing = (
        WorkflowBuilder("near_failing")
        .add_step("a", "play", compensation="undo")
        .add_step("b", "play", compensation="undo", local=True)
        .add_step("c", "play", local=True, retry=ONCE)
        .build()
    )

    run = rules.start(failing, c=["declined"])

    assert rules.end(run).status == "compensated"
    assert rules.began(run) == ["a", "b", "c", "b.undo", "a.undo"]


def test_S1a_a_local_step_whose_process_is_killed_is_done_again_elsewhere(rules: Scenario) -> None:
    if rules.deployment.pool != "prefork":
        pytest.skip("elsewhere the process that is killed is the whole worker: that is tested with the faults")
    run = rules.start(NEAR, {"n": 1}, b=["kill"])

    seen = rules.end(run)

    assert (seen.status, seen.steps["b"].attempts) == ("completed", 2)
    assert outcomes(run, "b") == ["lost", "result"]
    assert rules.began(run, "a") == ["a"]


def test_S20_a_run_is_cancelled_between_local_steps(rules: Scenario) -> None:
    run = rules.start(NEAR, {"n": 1}, b=["wait"])
    rules.until_begun(run, "b")

    run.cancel()
    rules.open_gate(run, "b")

    assert rules.end(run).status == "cancelled"
    assert rules.began(run) == ["a", "b", "b.undo", "a.undo"]


def test_a_local_step_behind_a_parallel_block_is_sent_like_others(rules: Scenario) -> None:
    joined = (
        WorkflowBuilder("near_joined")
        .add_parallel("both", [Step("x", "play"), [Step("y", "play"), Step("z", "echo", local=True)]])
        .add_step("after", "echo", local=True)
        .build()
    )

    seen = rules.play(joined, y=[{"y": 1}], x=[{"x": 2}])

    assert seen.status == "completed"
    assert seen.context["z_saw"]["y"] == 1
    assert {name: seen.context["after_saw"][name] for name in ("x", "y")} == {"x": 2, "y": 1}
