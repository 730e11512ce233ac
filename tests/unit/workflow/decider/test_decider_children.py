"""Children in the pure core: what their ends mean for their parents, and when they are told to stop (S7, S10, S11)."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.workflow.builder import Child, Step, WorkflowBuilder
from multiagents.workflow.decider import evolve, is_told_to_stop, needs_undo, start_event
from multiagents.workflow.state import Cause, Parent, RunState, RunStatus
from tests.support.driven_run import RunOf

PAY = WorkflowBuilder("pay").add_step("hold", compensation="release").build(register=False)


def order(**options: Any) -> WorkflowBuilder:
    return (
        WorkflowBuilder("order").add_step("reserve", compensation="release").add_child("pay", PAY, **options)
    ).add_step("ship")


def test_a_child_is_asked_for_like_a_step_and_answers_like_one(run_of: RunOf) -> None:
    run = run_of(order())

    assert run.succeeds("reserve") == ["pay/do/1"]
    assert run.succeeds("pay") == ["ship/do/1"]


def test_S11_a_completed_child_is_undone_in_its_turn(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.succeeds("pay")

    assert run.fails_for_good("ship") == ["compensating", "pay/undo/1"]
    assert run.said[1].worker == ""  # no worker does it
    assert run.is_undone("pay") == ["reserve/undo/1"]


@pytest.mark.parametrize("options", [{"no_compensation": "it may stay"}, {"detached": True}])
def test_S11_a_child_that_is_left_alone_is_not_undone(run_of: RunOf, options: dict[str, Any]) -> None:
    run = run_of(order(**options))
    run.succeeds("reserve")
    run.succeeds("pay")

    assert not needs_undo(run.definition.steps["pay"], run.state.step("pay"))
    assert run.fails_for_good("ship") == ["compensating", "reserve/undo/1"]


def test_S11_a_running_child_settles_before_anything_is_undone(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")

    assert run.is_cancelled() == ["compensating"]
    assert run.fails_for_good("pay") == ["reserve/undo/1"]


def test_S10_a_child_that_failed_for_certain_may_be_passed_over(run_of: RunOf) -> None:
    run = run_of(order(on_failure="continue"))
    run.succeeds("reserve")

    assert run.fails_for_good("pay") == ["ship/do/1"]
    assert run.steps["pay"] == "skipped"


def test_S10_a_child_of_unknown_outcome_is_not_passed_over(run_of: RunOf) -> None:
    run = run_of(order(on_failure="continue"))
    run.succeeds("reserve")

    assert run.fails("pay", kind="unknown", retryable=False) == ["compensating", "pay/undo/1"]


@pytest.mark.parametrize(
    ("cause", "on_failure", "stops"),
    [
        (Cause.CANCEL, "wait", True),
        (Cause.DEADLINE, "wait", True),
        (Cause.FAILURE, "wait", False),
        (Cause.FAILURE, "cancel", True),
    ],
)
def test_S7_a_child_is_told_to_stop_by_a_cancel_or_where_its_block_says_so(
    run_of: RunOf, cause: Cause, on_failure: Any, stops: bool
) -> None:
    both = WorkflowBuilder("both").add_parallel("both", [Child("pay", PAY), Step("pack")], on_failure=on_failure)
    run = run_of(both)
    run.fails_for_good("pack")
    state = run.state._replace(cause=cause)

    assert is_told_to_stop(run.definition, state, "pay") is stops


def test_S7_a_failure_in_another_block_stops_no_child(run_of: RunOf) -> None:
    elsewhere = (
        WorkflowBuilder("elsewhere")
        .add_parallel("one", [Step("pack"), Step("wrap")], on_failure="cancel")
        .add_parallel("two", [Child("pay", PAY), Step("thank")], on_failure="cancel", after=[])
    )
    run = run_of(elsewhere)
    run.fails_for_good("pack")

    assert is_told_to_stop(run.definition, run.state, "wrap")
    assert not is_told_to_stop(run.definition, run.state, "pay")


def test_a_child_knows_who_waits_for_it_first_for_its_end_and_then_for_its_undo(run_of: RunOf) -> None:
    waits = Parent("o/pay/do/1", "hash", "5f0cR-2x")
    begun = start_event(PAY, "A-1", now=run_of(PAY).now, parent=waits)
    state = evolve(PAY, RunState("A-1", "pay"), begun)
    assert state.parent == waits
    assert RunState.decode("A-1", state.encode_header(), {}) == state

    run = run_of(PAY)
    run.succeeds("hold")
    undo = ["o/pay/undo/1", "hash", "5f0cR-2x"]
    facts = {"cause": "request", "parent": undo}
    assert run.takes(run.status(RunStatus.COMPENSATING, payload=facts)) == ["hold/undo/1"]
    assert run.state.parent == Parent(*undo)
