"""Calls of tools that are undone as steps are (rule S36)."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import Step
from multiagents.events import ErrorKind
from multiagents.exceptions import UnknownStepError
from multiagents.names import Direction
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.decider import Fact, fold, settleable
from multiagents.workflow.definition import StepKind
from multiagents.workflow.state import RunState, StepState
from tests.support.driven_run import RunOf
from tests.unit.workflow.decider.test_decider_maps import sized


def trip(**plan: Any) -> WorkflowBuilder:
    return (
        WorkflowBuilder("trip")
        .add_step("open", compensation="close")
        .add_step("plan", **plan)
        .add_step("pay", compensation="refund")
        .add_step("tell")
    )


def test_S36_a_call_is_a_step_behind_the_one_that_made_it(run_of: RunOf) -> None:
    run = run_of(trip())
    run.succeeds("open")

    assert run.calls("plan", "flight") == []
    assert run.calls("plan", "hotel") == []
    assert run.calls("plan", "flight") == []
    definition = run.definition.expanded({}, (), run.state.called)
    assert list(definition.steps) == [
        "open",
        "plan",
        "plan.flight[0]",
        "plan.hotel[0]",
        "plan.flight[1]",
        "pay",
        "tell",
    ]
    assert definition.steps["plan.hotel[0]"].compensation == "undo_hotel"
    assert definition.steps["plan.hotel[0]"].kind is StepKind.CALL
    assert (definition.order, definition.content_hash) == (run.definition.order, run.definition.content_hash)


def test_S36_calls_are_undone_newest_first_before_the_step_that_made_them(run_of: RunOf) -> None:
    run = run_of(trip(compensation="unplan"))
    run.succeeds("open")
    run.has_called("plan", "flight", "hotel", "flight")
    run.succeeds("plan")
    run.succeeds("pay")

    assert run.fails_for_good("tell") == ["compensating", "pay/undo/1"]
    assert run.is_undone("pay") == ["plan.flight[1]/undo/1"]
    assert run.is_undone("plan.flight[1]") == ["plan.hotel[0]/undo/1"]
    assert run.is_undone("plan.hotel[0]") == ["plan.flight[0]/undo/1"]
    assert run.is_undone("plan.flight[0]") == ["plan/undo/1"]
    assert run.is_undone("plan") == ["open/undo/1"]
    assert run.is_undone("open") == ["compensated"]


def test_S36_calls_of_an_agent_that_fails_itself_are_undone(run_of: RunOf) -> None:
    run = run_of(trip())
    run.succeeds("open")
    run.has_called("plan", "flight")

    assert run.fails_for_good("plan") == ["compensating", "plan.flight[0]/undo/1"]
    assert run.is_undone("plan.flight[0]") == ["open/undo/1"]


def test_S18_a_run_of_which_nothing_but_calls_was_undone_is_compensated(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trip").add_step("plan"))
    run.has_called("plan", "flight")
    run.fails_for_good("plan")

    assert run.is_undone("plan.flight[0]") == ["compensated"]


def test_S36_a_call_that_was_under_way_when_the_last_attempt_was_lost_is_undone(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trip").add_step("plan"), max_lost=1)
    run.calls("plan", "flight")

    assert run.is_lost("plan") == ["compensating", "plan.flight[0] abandoned", "plan.flight[0]/undo/1"]
    assert run.state.step("plan.flight[0]").outcome == "unknown"


def test_S36_what_a_lost_attempt_has_called_stays_while_the_next_one_goes_on(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trip").add_step("plan"))
    run.calls("plan", "flight")

    assert run.is_lost("plan") == ["plan/do/2"]
    assert run.steps["plan.flight[0]"] == "scheduled"
    assert run.succeeds("plan.flight[0]") == []
    assert run.succeeds("plan") == ["completed"]
    assert run.state.step("plan.flight[0]").effect == "live"


def test_S7_no_call_is_undone_while_the_attempt_that_makes_it_goes_on(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trip").add_parallel("both", ["plan", Step("pay")]))
    run.calls("plan", "flight")

    assert run.fails_for_good("pay") == ["compensating"]
    assert run.calls("plan", "hotel") == []
    assert run.succeeds("plan.flight[0]") == []
    assert run.succeeds("plan") == ["plan.hotel[0] abandoned", "plan.hotel[0]/undo/1"]
    assert run.is_undone("plan.hotel[0]") == ["plan.flight[0]/undo/1"]


def test_S5_a_cancel_safe_agent_is_not_waited_for_and_its_calls_are_undone(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trip").add_step("plan", compensation="unplan", cancel_safe=True))
    run.calls("plan", "flight")

    assert run.is_cancelled() == [
        "compensating",
        "plan abandoned",
        "plan.flight[0] abandoned",
        "plan.flight[0]/undo/1",
    ]
    assert run.is_undone("plan.flight[0]") == ["plan/undo/1"]
    assert run.is_undone("plan") == ["cancelled"]


def test_S3_what_a_tool_raised_is_a_definite_failure_and_not_undone(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trip").add_step("plan"))
    run.calls("plan", "flight")

    assert run.fails_for_good("plan.flight[0]") == []
    assert run.fails_for_good("plan") == ["compensating", "failed"]
    assert run.steps["plan.flight[0]"] == "failed"


def test_S3_it_is_undone_where_the_step_says_so_of_itself(run_of: RunOf) -> None:
    plan = {"compensation": "unplan", "compensate_on_failure": True}
    run = run_of(WorkflowBuilder("trip").add_step("plan", **plan))
    run.calls("plan", "flight")
    run.fails_for_good("plan.flight[0]")

    assert run.fails_for_good("plan") == ["compensating", "plan.flight[0]/undo/1"]


def test_S1b_of_what_a_tool_does_not_know_itself_nobody_knows(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trip").add_step("plan"))
    run.calls("plan", "flight")

    assert run.fails("plan.flight[0]", kind=ErrorKind.UNKNOWN, retryable=False) == []
    assert run.succeeds("plan") == ["completed"]
    assert run.state.step("plan.flight[0]").effect == "unknown"


def test_S5_a_call_that_is_answered_after_its_undo_is_undone_again(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trip").add_step("plan"), max_lost=1)
    run.calls("plan", "flight")
    run.is_lost("plan")
    assert run.is_undone("plan.flight[0]") == ["compensated"]

    assert run.succeeds("plan.flight[0]", 1) == ["compensating", "plan.flight[0]/undo/2"]
    assert run.succeeds("plan.flight[0]", 1) == []
    assert run.is_undone("plan.flight[0]") == ["compensated"]


def test_S17_a_call_whose_undo_is_parked_waits_for_a_person_and_the_others_go_on(run_of: RunOf) -> None:
    run = run_of(trip())
    run.succeeds("open")
    run.has_called("plan", "flight", "hotel")
    run.fails_for_good("plan")

    assert run.undo_fails("plan.hotel[0]", retryable=False) == ["plan.flight[0]/undo/1"]
    assert run.is_undone("plan.flight[0]") == ["open/undo/1"]
    assert run.is_undone("open") == ["compensation_failed"]
    assert list(settleable(run.definition.expanded({}, (), run.state.called), run.state)) == [
        ("plan.hotel[0]", Direction.UNDO)
    ]
    assert run.takes(run.status(Fact.RETRY_REQUESTED, step="plan.hotel[0]")) == ["compensating", "plan.hotel[0]/undo/2"]


def test_S12_nothing_is_undone_behind_a_pivot_and_no_call_waits_for_a_person(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trip").add_step("pay", pivot=True).add_step("plan"))
    run.succeeds("pay")
    run.calls("plan", "flight")
    run.fails_for_good("plan.flight[0]")

    assert run.fails_for_good("plan") == ["paused"]
    definition = run.definition.expanded({}, (), run.state.called)
    assert list(settleable(definition, run.state)) == [("plan", Direction.DO)]
    assert run.takes(run.status(Fact.RETRY_REQUESTED, step="plan")) == ["running", "plan/do/2"]
    assert run.succeeds("plan") == ["completed"]


def test_S13_calls_of_a_pivot_that_failed_are_undone(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trip").add_step("plan", pivot=True).add_step("tell"))
    run.has_called("plan", "flight")

    assert run.fails_for_good("plan") == ["compensating", "plan.flight[0]/undo/1"]


def test_S9_calls_of_items_of_a_map_are_undone_before_the_items(run_of: RunOf) -> None:
    builder = (
        WorkflowBuilder("trips").add_map("plan", Step("plan", compensation="unplan"), over="cities").add_step("tell")
    )
    run = run_of(builder, ask=sized(plan=2))
    for index in (0, 1):
        run.has_called(f"plan[{index}]", "flight", "hotel")
        run.succeeds(f"plan[{index}]")

    assert run.fails_for_good("tell") == ["compensating", "plan[1].hotel[0]/undo/1", "plan[0].hotel[0]/undo/1"]
    assert run.is_undone("plan[1].hotel[0]") == ["plan[1].flight[0]/undo/1"]
    assert run.is_undone("plan[1].flight[0]") == ["plan[1]/undo/1"]


def test_S8_calls_of_items_are_undone_before_their_map_is_in_one_go(run_of: RunOf) -> None:
    builder = WorkflowBuilder("trips").add_map(
        "plan", "plan_trip", over="cities", compensation="unplan", compensate_each=False
    )
    run = run_of(builder.add_step("tell"), ask=sized(plan=2))
    for index in (0, 1):
        run.has_called(f"plan[{index}]", "flight")
        run.succeeds(f"plan[{index}]")

    assert run.fails_for_good("tell") == ["compensating", "plan[0].flight[0]/undo/1", "plan[1].flight[0]/undo/1"]
    assert run.is_undone("plan[0].flight[0]") == []
    assert run.is_undone("plan[1].flight[0]") == ["plan/undo/1"]
    assert run.is_undone("plan") == ["compensated"]


def test_S15_calls_behind_a_savepoint_are_undone_and_made_again_under_another_name(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trip").add_savepoint("ready").add_step("plan").add_step("pay"))
    run.has_called("plan", "flight")
    run.succeeds("plan")

    assert run.fails_for_good("pay") == ["compensating", "plan.flight[0]/undo/1"]
    assert run.is_undone("plan.flight[0]") == ["ready rolled_back", "running", "plan#2/do/1"]
    run.has_called("plan#2", "flight")
    assert run.succeeds("plan#2") == ["pay#2/do/1"]
    assert run.succeeds("plan.flight[0]", 1) == []
    assert run.succeeds("pay#2") == ["completed"]


def test_S6_an_order_of_undoing_that_was_given_has_the_calls_before_their_step(run_of: RunOf) -> None:
    builder = WorkflowBuilder("trip", compensate_in=["plan", "pay", "open"])
    builder = builder.add_step("open", compensation="close").add_step("plan", compensation="unplan")
    run = run_of(builder.add_step("pay", compensation="refund").add_step("tell"))
    run.succeeds("open")
    run.has_called("plan", "flight")
    run.succeeds("plan")
    run.succeeds("pay")

    assert run.fails_for_good("tell") == ["compensating", "plan.flight[0]/undo/1"]
    assert run.is_undone("plan.flight[0]") == ["plan/undo/1"]
    assert run.is_undone("plan") == ["pay/undo/1"]


def test_a_call_of_a_step_that_is_not_there_is_none(run_of: RunOf) -> None:
    run = run_of(trip())

    with pytest.raises(UnknownStepError, match="nobody"):
        run.calls("nobody", "flight")


def test_a_step_that_is_a_call_is_kept_with_what_undoes_it(run_of: RunOf) -> None:
    run = run_of(trip())
    run.succeeds("open")
    run.has_called("plan", "flight")

    stored = {name: StepState.decode(step.encode()) for name, step in run.state.steps.items()}
    header = run.state.encode_header()
    assert RunState.decode(run.id, header, stored) == run.state == fold(run.definition, run.id, run.history)
