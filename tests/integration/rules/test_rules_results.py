"""What workers return is what everybody is given: ``{}``, None and no result are three things."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import RetryPolicy, Step, WorkflowBuilder
from multiagents.testing import wait_until
from tests.support.scenario import Scenario

ONCE = RetryPolicy(max_attempts=1)
STEPS = (
    WorkflowBuilder("returned")
    .add_step("given", "play", compensation="undo")
    .add_step("skipped", "play", on_failure="park", retry=ONCE)
    .add_step("read", "read_results")
    .add_step("last", "play", retry=ONCE)
    .build()
)
ITEMS = (
    WorkflowBuilder("returned_items")
    .add_map("given", Step("given", "play", compensation="undo"), over="items")
    .add_step("read", "read_results")
    .add_step("last", "play", retry=ONCE)
    .build()
)


@pytest.mark.parametrize(("says", "result"), [("none", None), ({}, {}), ("number", 42)], ids=["none", "empty", "some"])
def test_S4_what_a_step_returns_is_what_later_steps_and_its_undo_are_given(
    rules: Scenario, says: Any, result: Any
) -> None:
    run = rules.start(STEPS, given=[says], skipped=["terminal"], last=["terminal"])
    wait_until(lambda: run.status == "paused", 20, "the run to wait for a person")

    run.skip("skipped", reason="not needed")

    seen = rules.end(run)
    assert seen.status == "compensated"
    assert seen.steps["read"].result == {"results": {"given": result}}
    assert (seen.steps["given"].result, seen.steps["given"].has_result) == (result, True)
    assert (seen.steps["skipped"].result, seen.steps["skipped"].has_result) == (None, False)
    [undo] = [entry for entry in rules.journal(run) if entry["direction"] == "undo"]
    assert (undo["result"], undo["outcome"]) == (result, "succeeded")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("says", "result"), [("none", None), ({}, {}), ("number", 42)], ids=["none", "empty", "some"])
def test_S4_and_so_is_what_the_items_of_a_map_return(rules: Scenario, says: Any, result: Any, count: int) -> None:
    names = [f"given[{index}]" for index in range(count)]
    script = {name: [says] for name in names} | {"last": ["terminal"]}

    run = rules.start(ITEMS, {"items": [0] * count, "script": script})

    seen = rules.end(run)
    assert seen.steps["given"].result == [result] * count
    expected = {**dict.fromkeys(names, result), "given": [result] * count}
    assert seen.steps["read"].result == {"results": expected}
    undos = [entry for entry in rules.journal(run) if entry["direction"] == "undo"]
    assert {entry["step"]: entry["result"] for entry in undos} == dict.fromkeys(names, result)
