"""Rules S12 and S13: the point of no return."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.events import ErrorKind
from multiagents.exceptions import DefinitionError
from multiagents.names import Direction
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder import Step, WorkflowBuilder
from multiagents.workflow.decider import Fact, settleable, why_not
from multiagents.workflow.state import RunStatus
from tests.support.driven_run import DrivenRun, RunOf


def transfer(**pay: Any) -> WorkflowBuilder:
    return (
        WorkflowBuilder("transfer")
        .add_step("hold", compensation="release")
        .add_step("pay", pivot=True, retry=RetryPolicy(max_attempts=1), **pay)
        .add_step("book")
        .add_step("notify")
    )


def paid(run_of: RunOf) -> DrivenRun:
    run = run_of(transfer())
    run.succeeds("hold")
    assert run.succeeds("pay") == ["book/do/1"]
    return run


def test_S12_what_fails_before_the_pivot_turns_the_run_back(run_of: RunOf) -> None:
    run = run_of(transfer())
    run.succeeds("hold")

    assert run.fails_for_good("pay") == ["compensating", "hold/undo/1"]


def test_S12_what_fails_behind_the_pivot_waits_for_a_person_and_nothing_is_undone(run_of: RunOf) -> None:
    run = paid(run_of)

    assert run.fails_for_good("book") == ["paused"]
    assert run.said[0].reason == "step book failed behind the pivot"
    assert list(settleable(run.definition, run.state)) == [("book", Direction.DO)]
    assert run.takes(run.status(Fact.RETRY_REQUESTED, step="book")) == ["running", "book/do/2"]
    assert run.succeeds("book") == ["notify/do/1"]
    assert run.fails_for_good("notify") == ["paused"]
    assert run.takes(run.status(Fact.SKIP_REQUESTED, step="notify", reason="told by phone")) == ["running", "completed"]


def test_S12_S20_a_cancel_behind_the_pivot_is_recorded_and_changes_nothing(run_of: RunOf) -> None:
    run = paid(run_of)
    before = run.state

    assert run.is_cancelled() == []
    assert run.state is before
    assert run.succeeds("book") == ["notify/do/1"]


def test_S12_a_pivot_that_succeeds_while_the_run_turns_back_sends_it_forward_again(run_of: RunOf) -> None:
    run = run_of(transfer())
    run.succeeds("hold")
    assert run.is_cancelled() == ["compensating"]

    assert run.succeeds("pay") == ["running", "book/do/1"]
    assert (run.state.cause, run.state.cancel_requested, run.state.error) == (None, False, None)


def test_S12_S22_a_pivot_that_succeeds_while_the_run_is_held_on_its_way_back_sends_it_forward_again(
    run_of: RunOf,
) -> None:
    run = run_of(transfer())
    run.succeeds("hold")
    run.is_cancelled()
    assert run.takes(run.status(Fact.PAUSE_REQUESTED)) == ["paused"]
    assert run.succeeds("pay") == []

    assert run.takes(run.status(Fact.RESUME_REQUESTED)) == ["running", "book/do/1"]
    assert (run.state.cause, run.state.cancel_requested, run.state.error) == (None, False, None)


def test_S12_a_pivot_that_fails_while_the_run_turns_back_lets_it_go_on_back(run_of: RunOf) -> None:
    run = run_of(transfer())
    run.succeeds("hold")
    run.is_cancelled()

    assert run.fails_for_good("pay") == ["hold/undo/1"]
    assert run.is_undone("hold") == ["cancelled"]


def test_S13_nothing_is_undone_while_nobody_knows_whether_the_pivot_took_effect(run_of: RunOf) -> None:
    run = run_of(transfer())
    run.succeeds("hold")

    assert run.fails("pay", kind=ErrorKind.UNKNOWN) == ["paused"]
    assert run.is_cancelled() == ["compensating", "hold/undo/1"]


def test_S13_also_where_the_run_was_turning_back_already(run_of: RunOf) -> None:
    run = run_of(transfer())
    run.succeeds("hold")
    run.is_cancelled()

    assert run.fails("pay", kind=ErrorKind.UNKNOWN) == ["paused"]
    assert run.is_cancelled() == ["compensating", "hold/undo/1"]


def test_S12_a_run_behind_its_pivot_cannot_be_taken_back(run_of: RunOf) -> None:
    run = paid(run_of)
    run.succeeds("book")
    assert run.succeeds("notify") == ["completed"]
    event = run.status(RunStatus.COMPENSATING, payload={"cause": "request"})

    assert "nothing is undone behind that" in (why_not(run.definition, run.state, event) or "")
    assert run.takes(event) == []


# What is refused -----------------------------------------------------------------------------------------------------


def refusal(builder: WorkflowBuilder) -> str:
    with pytest.raises(DefinitionError) as caught:
        builder.build(register=False)
    return str(caught.value)


def test_S14_a_step_before_the_pivot_says_how_it_is_undone(run_of: RunOf) -> None:
    builder = WorkflowBuilder("transfer").add_step("hold").add_step("pay", pivot=True)

    assert 'and step "hold" before it does not say how to undo' in refusal(builder)


def test_S12_a_step_behind_the_pivot_is_not_undone_so_it_is_tried_without_limit(run_of: RunOf) -> None:
    def behind(**more: Any) -> WorkflowBuilder:
        return WorkflowBuilder("transfer").add_step("pay", pivot=True).add_step("book", compensation="unbook", **more)

    assert 'step "book" has a compensation and comes behind the pivot "pay"' in refusal(behind())
    behind(retry=RetryPolicy(max_attempts=0)).build(register=False)


def test_S12_there_is_one_pivot_on_a_path(run_of: RunOf) -> None:
    builder = WorkflowBuilder("transfer").add_step("pay", pivot=True).add_step("settle", pivot=True)
    side_by_side = [Step("pay", pivot=True), Step("settle", pivot=True)]

    assert 'two pivots on one path, "pay" and "settle"' in refusal(builder)
    WorkflowBuilder("transfer").add_parallel("both", side_by_side).build(register=False)


def test_S12_a_pivot_has_no_compensation(run_of: RunOf) -> None:
    builder = WorkflowBuilder("transfer").add_step("pay", pivot=True, compensation="refund")

    assert 'step "pay" is a pivot and has a compensation' in refusal(builder)
