"""Rule S5: what comes too late, and what is not waited for."""

from __future__ import annotations

from typing import Any

from multiagents.events import ErrorInfo
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.decider import Fact, advance, evolve
from tests.support.driven_run import DrivenRun, RunOf

ONCE = RetryPolicy(max_attempts=1)
TWICE = RetryPolicy(max_attempts=2, initial_interval=3, jitter=False)
DECLINED = ErrorInfo(type="CardDeclined", message="ship declined")


def order(*, reserve: Any = None, charge: Any = None, ship: Any = None, **options: Any) -> WorkflowBuilder:
    """Reserve, charge, ship: the first two have a compensation."""
    return (
        WorkflowBuilder("order", **options)
        .add_step("reserve", compensation="release_stock", **(reserve or {}))
        .add_step("charge", compensation="refund_card", **(charge or {}))
        .add_step("ship", **(ship or {}))
    )


# Late successes -----------------------------------------------------------------------------------------------------


def lost_charge(run_of: RunOf, **options: Any) -> DrivenRun:
    """An order whose charge was lost for good: it is being undone, and its worker may be alive."""
    run = run_of(order(**options), max_lost=1)
    run.succeeds("reserve")
    assert run.is_lost("charge") == ["compensating", "charge/undo/1"]
    return run


def test_S5_a_late_success_during_the_undo_runs_the_undo_again(run_of: RunOf) -> None:
    run = lost_charge(run_of)

    assert run.succeeds("charge", attempt=1) == []
    assert run.is_undone("charge") == ["charge/undo/2"]
    assert run.said[0].outcome == "succeeded"
    assert run.steps["charge"] == "compensating"
    assert run.is_undone("charge", attempt=1) == []
    assert run.is_undone("charge") == ["reserve/undo/1"]
    assert run.is_undone("reserve") == ["compensated"]


def test_S5_the_second_undo_has_all_attempts_of_its_policy(run_of: RunOf) -> None:
    run = lost_charge(run_of, charge={"undo_retry": TWICE})
    run.undo_fails("charge")
    run.succeeds("charge", attempt=1)
    run.is_undone("charge")

    assert run.undo_fails("charge") == ["charge/undo/4 in 3 s"]


def test_S5_a_late_success_reopens_a_run_that_was_over(run_of: RunOf) -> None:
    run = lost_charge(run_of)
    run.is_undone("charge")
    assert run.is_undone("reserve") == ["compensated"]

    assert run.succeeds("charge", attempt=1) == ["compensating", "charge/undo/2"]
    assert run.state.finished_at is None
    # A duplicate of it, and a cancel in between, change nothing.
    assert run.succeeds("charge", attempt=1) == []
    assert run.is_cancelled() == []
    assert run.is_undone("charge") == ["compensated"]


def test_S5_a_late_success_of_a_step_whose_undo_is_parked_is_left_to_whoever_unparks_it(run_of: RunOf) -> None:
    run = lost_charge(run_of, charge={"undo_retry": ONCE})
    run.undo_fails("charge")
    assert run.is_undone("reserve") == ["compensation_failed"]

    assert run.succeeds("charge", attempt=1) == []
    assert run.state.status == "compensation_failed"
    assert run.steps["charge"] == "compensation_failed"


def test_S5_a_late_success_after_a_later_attempt_was_undone_undoes_the_step_again(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.is_lost("charge")
    run.succeeds("charge", attempt=2)
    run.fails_for_good("ship")
    run.is_undone("charge")

    # The undo of reserve is out already and cannot be held any more.
    assert run.succeeds("charge", attempt=1) == ["charge/undo/2"]
    assert run.is_undone("reserve") == []
    assert run.is_undone("charge") == ["compensated"]


def test_S5_a_late_success_of_an_attempt_that_was_taken_back_is_undone_too(run_of: RunOf) -> None:
    run = run_of(order())
    run.is_cancelled()
    assert run.is_recalled("reserve") == ["cancelled"]

    assert run.succeeds("reserve", attempt=1) == ["compensating", "reserve/undo/1"]
    assert run.is_undone("reserve") == ["cancelled"]


def test_S5_a_success_that_contradicts_a_definite_failure_is_undone(run_of: RunOf) -> None:
    run = run_of(order())
    assert run.fails_for_good("reserve") == ["compensating", "failed"]

    assert run.succeeds("reserve", attempt=1) == ["compensating", "reserve/undo/1"]
    assert run.is_undone("reserve") == ["compensated"]


def test_S5_a_late_success_changes_nothing_in_a_completed_run(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("order").add_step("charge", compensation="refund_card"))
    run.is_lost("charge")
    assert run.succeeds("charge") == ["completed"]

    assert run.succeeds("charge", attempt=1) == []
    assert run.state.status == "completed"


def test_S5_who_is_not_cancel_safe_settles_before_anything_is_undone(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")

    assert run.is_cancelled() == ["compensating"]
    assert run.succeeds("charge") == ["charge/undo/1"]


def test_S5_a_cancel_safe_step_is_not_waited_for_and_undone_again_if_it_succeeds_late(run_of: RunOf) -> None:
    run = run_of(order(charge={"cancel_safe": True}))
    run.succeeds("reserve")

    assert run.is_cancelled() == ["compensating", "charge abandoned", "charge/undo/1"]
    assert run.succeeds("charge", attempt=1) == []
    assert run.is_undone("charge") == ["charge/undo/2"]


def test_S5_an_attempt_that_nobody_has_claimed_is_taken_back_and_not_abandoned(run_of: RunOf) -> None:
    run = run_of(order(charge={"cancel_safe": True, "on_unknown": "park"}, reserve={"cancel_safe": True}))
    run.succeeds("reserve")
    asked = evolve(run.definition, run.state, run.status(Fact.CANCEL_REQUESTED))

    state, said, *_ = advance(run.definition, asked, now=run.now, unclaimed={"charge"})

    assert [(event.step, getattr(event, "status", "undo")) for event in said] == [
        (None, "compensating"),
        ("charge", "recalled"),
        ("reserve", "undo"),
    ]
    assert state.step("charge").status == "not_started"


def test_only_what_is_in_flight_can_be_abandoned(run_of: RunOf) -> None:
    run = run_of(order())
    before = run.state

    assert run.takes(run.status(Fact.ATTEMPT_ABANDONED, step="charge")) == []
    assert run.is_recalled("charge") == []
    assert run.state is before
