"""When an undo goes wrong, how runs end that did not complete, and how they are taken up after a crash."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.events import ErrorInfo, ErrorKind
from multiagents.names import Direction
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.decider import evolve, react
from multiagents.workflow.state import Cause, RunState
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


def failed_order(run_of: RunOf, **options: Any) -> DrivenRun:
    """An order whose last step failed for good: the charge is about to be undone."""
    run = run_of(order(**options))
    run.succeeds("reserve")
    run.succeeds("charge")
    run.fails_for_good("ship")
    return run


# When an undo itself goes wrong -------------------------------------------------------------------------------------


def test_S16_an_undo_is_retried_by_its_own_policy(run_of: RunOf) -> None:
    run = failed_order(run_of, charge={"undo_retry": TWICE})

    assert run.undo_fails("charge") == ["charge/undo/2 in 3 s"]
    assert run.steps["charge"] == "compensating"
    assert run.is_undone("charge") == ["reserve/undo/1"]


def test_S16_by_default_an_undo_is_tried_25_times(run_of: RunOf) -> None:
    run = failed_order(run_of)

    said = [run.undo_fails("charge") for _ in range(25)]

    assert [words[0].split()[0] for words in said[:24]] == [f"charge/undo/{n}" for n in range(2, 26)]
    assert said[24] == ["reserve/undo/1"]


def test_S17_an_exhausted_undo_is_parked_and_the_others_go_on(run_of: RunOf) -> None:
    run = failed_order(run_of, charge={"undo_retry": ONCE})

    assert run.undo_fails("charge") == ["reserve/undo/1"]
    assert run.steps["charge"] == "compensation_failed"
    assert run.is_undone("reserve") == ["compensation_failed"]
    assert run.steps["reserve"] == "compensated"


@pytest.mark.parametrize("facts", [{"retryable": False}, {"kind": ErrorKind.UNKNOWN}])
def test_S17_an_undo_that_is_not_to_be_retried_is_parked_at_once(run_of: RunOf, facts: Any) -> None:
    run = failed_order(run_of)

    assert run.undo_fails("charge", **facts) == ["reserve/undo/1"]
    assert run.steps["charge"] == "compensation_failed"


def test_S1a_S16_an_undo_that_is_lost_again_and_again_is_parked(run_of: RunOf) -> None:
    run = failed_order(run_of, charge={"undo_retry": ONCE})

    said = [run.undo_fails("charge", kind=ErrorKind.LOST) for _ in range(5)]

    assert said == [["charge/undo/2"], ["charge/undo/3"], ["charge/undo/4"], ["charge/undo/5"], ["reserve/undo/1"]]
    assert run.steps["charge"] == "compensation_failed"


def test_S19_the_errors_of_undos_are_attached_to_the_original_and_never_replace_it(run_of: RunOf) -> None:
    run = failed_order(run_of, charge={"undo_retry": ONCE}, reserve={"undo_retry": ONCE})
    run.undo_fails("charge")
    run.undo_fails("reserve")

    causes = tuple(
        ErrorInfo(type="CardDeclined", message=f"undo of {step}: {step} declined") for step in ("charge", "reserve")
    )
    assert run.state.error == DECLINED.model_copy(update={"causes": causes})


def test_S19_the_first_error_stays_the_cause_when_another_reason_to_go_back_comes_with_one(run_of: RunOf) -> None:
    run = run_of(order(), max_lost=1)
    run.succeeds("reserve")
    run.is_lost("charge")
    first = run.state.error
    run.is_undone("charge")
    run.is_undone("reserve")

    # The late success reopens the run; whoever says so may name an error of his own.
    late = evolve(run.definition, run.state, run.result("charge", Direction.DO, 1))
    reopened = evolve(run.definition, late, run.status("compensating", error=DECLINED, payload={"cause": "cancel"}))

    assert (reopened.error, reopened.cause) == (first, Cause.FAILURE)


def test_S19_without_an_original_error_the_undos_own_is_shown(run_of: RunOf) -> None:
    run = run_of(order(reserve={"undo_retry": ONCE}))
    run.succeeds("reserve")
    run.takes(run.status("compensating", payload={"cause": "deadline"}))
    run.succeeds("charge")
    run.is_undone("charge")

    assert run.undo_fails("reserve") == ["compensation_failed"]
    assert run.state.error == ErrorInfo(type="CardDeclined", message="undo of reserve: reserve declined")


# The end states -----------------------------------------------------------------------------------------------------


def test_S18_failed_when_nothing_that_took_effect_has_a_compensation(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("order").add_step("validate").add_step("charge", compensation="refund_card"))
    run.succeeds("validate")

    assert run.fails_for_good("charge") == ["compensating", "failed"]


def test_S18_timed_out_when_the_deadline_passed_after_undo(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    late = ErrorInfo(type="DeadlineExceeded", message="the run took longer than 60 s")

    run.takes(run.status("compensating", error=late, payload={"cause": "deadline"}))
    assert run.fails_for_good("charge") == ["reserve/undo/1"]
    assert run.is_undone("reserve") == ["timed_out"]
    assert run.state.error == late


def test_S18_S20_cancelled_after_undo(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.is_cancelled()
    assert run.fails_for_good("charge") == ["reserve/undo/1"]

    assert run.is_undone("reserve") == ["cancelled"]
    assert run.state.error == ErrorInfo(type="Cancelled", message="the run was cancelled on request")


def test_S20_cancel_before_anything_was_done_ends_at_once(run_of: RunOf) -> None:
    run = run_of(order())

    assert run.is_cancelled() == ["compensating"]
    assert run.is_recalled("reserve") == ["cancelled"]
    assert run.steps == {"reserve": "not_started", "charge": "not_started", "ship": "not_started"}


def test_S20_cancel_during_compensation_is_recorded_and_changes_nothing(run_of: RunOf) -> None:
    run = failed_order(run_of)

    assert run.is_cancelled() == []
    assert run.state.cancel_requested is True
    assert run.is_undone("charge") == ["reserve/undo/1"]
    assert run.is_undone("reserve") == ["compensated"]
    assert run.state.error == DECLINED


def test_S20_a_second_cancel_and_one_after_the_end_do_nothing(run_of: RunOf) -> None:
    run = run_of(order())
    run.is_cancelled()
    before = run.state
    assert run.is_cancelled() == []
    assert run.state is before

    over = run_of(WorkflowBuilder("order").add_step("mail"))
    over.succeeds("mail")
    assert over.is_cancelled() == []
    assert over.state.cancel_requested is False


# Recovery -----------------------------------------------------------------------------------------------------------


def test_S21_a_run_goes_on_at_its_first_unfinished_undo_and_never_repeats_a_finished_one(run_of: RunOf) -> None:
    run = failed_order(run_of)
    # The worker died between recording that the charge was undone and saying what follows.
    undone = evolve(run.definition, run.state, run.result("charge", Direction.UNDO))
    loaded = RunState.decode("A-1", undone.encode_header(), undone.steps)

    assert [event.correlation_id for event in react(run.definition, loaded)] == ["A-1/reserve/undo/1"]
