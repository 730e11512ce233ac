"""What a worker does to the data that it was given is its own affair: nothing of it is stored, decided by, or seen."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from multiagents import Orchestrator, Step, WorkflowBuilder, worker

GIVEN = {"order": {"total": 1, "lines": [1, 2]}}


@worker("spoils")
def spoils(context: dict[str, Any]) -> dict[str, Any]:
    order = context["order"]
    order["total"] = 999
    order["lines"].append(object())
    order["more"] = float("nan")
    for branch in ("left", "right"):
        if branch in context:
            context[branch]["n"] = 999
    return {"spoilt": True}


@worker("sees")
def sees(context: dict[str, Any]) -> Any:
    return {"seen": {key: context[key] for key in context if key != "seen"}}


@worker("left.or.right")
def left_or_right(context: dict[str, Any]) -> dict[str, Any]:
    return {context["side"]: {"n": 1}}


def spoilt() -> WorkflowBuilder:
    return WorkflowBuilder(f"spoilt-{uuid4().hex[:8]}").add_step("spoil", spoils)


NEXT: dict[str, tuple[WorkflowBuilder, Any]] = {
    "the next step": (spoilt().add_step("see", sees), {**GIVEN, "spoilt": True}),
    "its inputs": (spoilt().add_step("see", sees, inputs={"total": "order.total"}), {"total": 1}),
    "code of its inputs": (spoilt().add_step("see", sees, inputs=lambda ctx: ctx["order"]), GIVEN["order"]),
    "its when": (
        spoilt().add_step("see", sees, when=lambda ctx: ctx["order"]["total"] == 1),
        {**GIVEN, "spoilt": True},
    ),
    "a local step": (spoilt().add_step("see", sees, local=True), {**GIVEN, "spoilt": True}),
    "behind a local step": (
        spoilt().add_step("again", spoils, local=True).add_step("see", sees, local=True),
        {**GIVEN, "spoilt": True},
    ),
}


@pytest.mark.parametrize("case", NEXT)
def test_who_comes_next_sees_what_is_stored(in_each_mode: Orchestrator, case: str) -> None:
    flow, expected = NEXT[case]

    seen = in_each_mode.start(flow.build(), GIVEN).describe()

    assert (seen.status, seen.error) == ("completed", None)
    assert seen.steps["see"].result == {"seen": expected}
    assert seen.context["order"] == GIVEN["order"]


def test_where_branches_meet_the_stored_context_takes_in_what_they_returned(in_each_mode: Orchestrator) -> None:
    branches = [Step(side, left_or_right, inputs=lambda _, side=side: {"side": side}) for side in ("left", "right")]
    flow = WorkflowBuilder("spoilt-join").add_parallel("both", branches).add_step("spoil", spoils).add_step("see", sees)

    seen = in_each_mode.start(flow.build(), GIVEN).describe()

    assert seen.status == "completed"
    assert seen.steps["see"].result == {"seen": {**GIVEN, "left": {"n": 1}, "right": {"n": 1}, "spoilt": True}}


def test_an_undo_is_given_what_its_step_was_given(in_each_mode: Orchestrator) -> None:
    kept: list[Any] = []

    @worker("spoilt.undo")
    def undo(context: dict[str, Any]) -> None:
        kept.append(context)

    @worker("spoilt.fail")
    def fail(context: dict[str, Any]) -> None:
        raise ValueError("no")

    flow = WorkflowBuilder("spoilt-undone").add_step("spoil", spoils, compensation=undo).add_step("fail", fail)

    assert in_each_mode.start(flow.build(), GIVEN).status == "compensated"
    assert kept == [{**GIVEN, "spoilt": True}]
