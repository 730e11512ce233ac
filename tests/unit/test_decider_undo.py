"""Going back: what is undone, in which order, and how a run ends that did not complete."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.events import CompensationEvent, ErrorInfo, ErrorKind
from multiagents.names import Direction
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder import Step, WorkflowBuilder
from multiagents.workflow.decider import ABANDONED, decide, evolve, needs_undo, react
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState
from multiagents.workflow.step import StepDefinition

RunOf = Any
ONCE = RetryPolicy(max_attempts=1)
TWICE = RetryPolicy(max_attempts=2, initial_interval=3, jitter=False)
DECLINED = ErrorInfo(type="CardDeclined", message="ship declined")


def undoable(name: str, **options: Any) -> Step:
    return Step(name, compensation=f"undo_{name}", **options)


def order(*, reserve: Any = None, charge: Any = None, ship: Any = None, **options: Any) -> WorkflowBuilder:
    """Reserve, charge, ship: the first two have a compensation."""
    return (
        WorkflowBuilder("order", **options)
        .add_step("reserve", compensation="release_stock", **(reserve or {}))
        .add_step("charge", compensation="refund_card", **(charge or {}))
        .add_step("ship", **(ship or {}))
    )


def failed_order(run_of: RunOf, **options: Any) -> Any:
    """An order whose last step failed for good: the charge is about to be undone."""
    run = run_of(order(**options))
    run.succeeds("reserve")
    run.succeeds("charge")
    run.fails_for_good("ship")
    return run


def risky(on_failure: Any = "wait", **fraud: Any) -> WorkflowBuilder:
    """Two branches side by side: check fraud; ask for credit, then set a limit."""
    branches = [undoable("fraud", **fraud), [undoable("credit"), undoable("limit")]]
    return WorkflowBuilder("order").add_parallel("risk", branches, on_failure)


# What is undone -----------------------------------------------------------------------------------------------------


def test_failed_charge_releases_the_reserved_stock(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    declined = run.error("charge", Direction.DO, retryable=False)

    state, said = decide(run.definition, run.state, declined)

    assert said[1:] == (
        CompensationEvent(
            id="A-1/reserve/undo/1",
            transaction_id="A-1",
            correlation_id="A-1/reserve/undo/1",
            timestamp=declined.timestamp,
            occurred_at=declined.timestamp,
            step="reserve",
            attempt=1,
            worker="release_stock",
            outcome="succeeded",
        ),
    )
    assert state.status == "compensating"
    assert state.error == ErrorInfo(type="CardDeclined", message="charge declined")


def test_S3_a_step_of_unknown_outcome_is_undone_like_one_that_succeeded(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")

    assert run.fails("charge", kind=ErrorKind.UNKNOWN) == ["compensating", "charge/undo/1"]
    assert run.said[-1].outcome == "unknown"
    assert run.is_undone("charge") == ["reserve/undo/1"]
    assert run.is_undone("reserve") == ["compensated"]
    assert run.steps == {"reserve": "compensated", "charge": "compensated", "ship": "not_started"}


def test_S3_a_step_that_failed_for_certain_is_undone_only_where_that_is_declared(run_of: RunOf) -> None:
    run = run_of(order(charge={"compensate_on_failure": True}))
    run.succeeds("reserve")

    assert run.fails_for_good("charge") == ["compensating", "charge/undo/1"]
    assert run.said[-1].outcome == "failed"


def test_S3_a_step_whose_own_code_raised_had_no_effect_and_is_never_undone(run_of: RunOf) -> None:
    run = run_of(order(charge={"compensate_on_failure": True}))
    run.succeeds("reserve")
    # Nobody was asked to charge: this is how the shell reports a `when` or `inputs` that raised.
    unasked = evolve(run.definition, RunState("A-1", "order"), run.history[0])

    after = evolve(run.definition, unasked, run.error("charge", Direction.DO, 1, retryable=False))

    assert after.step("charge").outcome == "failed"
    assert not needs_undo(run.definition.steps["charge"], after.step("charge"))


def test_S3_a_parked_outcome_pauses_the_run_until_a_person_cancels_it(run_of: RunOf) -> None:
    run = run_of(order(charge={"on_unknown": "park"}))
    run.succeeds("reserve")

    assert run.fails("charge", kind=ErrorKind.UNKNOWN) == ["paused"]
    assert run.said[0].reason == "nobody knows whether step charge took effect"
    assert run.is_cancelled() == ["compensating", "charge/undo/1"]
    assert run.is_undone("charge") == ["reserve/undo/1"]
    assert run.is_undone("reserve") == ["cancelled"]


def test_S3_a_parked_outcome_holds_a_run_that_goes_back_before_anything_is_undone(run_of: RunOf) -> None:
    builder = WorkflowBuilder("order").add_step("reserve", compensation="release_stock")
    run = run_of(builder.add_parallel("both", [Step("mail"), undoable("charge", on_unknown="park")]))
    run.succeeds("reserve")

    assert run.fails_for_good("mail") == ["compensating"]
    assert run.is_lost("charge") == ["paused"]
    assert run.is_cancelled() == ["compensating", "charge/undo/1"]
    run.is_undone("charge")
    assert run.is_undone("reserve") == ["compensated"]


def test_S3_while_a_run_is_paused_its_siblings_settle_and_nothing_is_sent(run_of: RunOf) -> None:
    branches = [undoable("charge", on_unknown="park"), undoable("mail"), undoable("book", retry=TWICE)]
    run = run_of(WorkflowBuilder("order").add_parallel("all", branches))
    run.fails("charge", kind=ErrorKind.UNKNOWN)

    assert run.succeeds("mail") == []
    assert run.fails("book") == []
    assert run.steps == {"charge": "unknown", "mail": "succeeded", "book": "scheduled"}
    # The attempt of "book" that was due is not made any more.
    assert run.is_cancelled() == ["compensating", "mail/undo/1", "charge/undo/1"]
    assert run.steps["book"] == "failed"


# Late successes -----------------------------------------------------------------------------------------------------


def lost_charge(run_of: RunOf, **options: Any) -> Any:
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


def test_only_what_is_in_flight_can_be_abandoned(run_of: RunOf) -> None:
    run = run_of(order())
    before = run.state

    assert run.takes(run.status(ABANDONED, step="charge")) == []
    assert run.is_recalled("charge") == []
    assert run.state is before


# The order ----------------------------------------------------------------------------------------------------------


def test_S6_undos_come_in_the_reverse_order_of_the_steps(run_of: RunOf) -> None:
    run = failed_order(run_of)

    assert run.history[-1].correlation_id == "A-1/charge/undo/1"
    assert run.is_undone("charge") == ["reserve/undo/1"]
    assert run.is_undone("reserve") == ["compensated"]
    assert run.state.error == DECLINED


def test_S6_independent_undos_go_out_together_and_what_they_depended_on_waits_for_both(run_of: RunOf) -> None:
    builder = (
        WorkflowBuilder("trip")
        .add_step("plan", compensation="unplan")
        .add_step("hotel", after=["plan"], compensation="cancel_hotel")
        .add_step("flight", after=["plan"], compensation="cancel_flight")
        .add_step("seat", after=["flight"], compensation="free_seat")
        .add_step("pay", after=["hotel", "seat"])
    )
    run = run_of(builder)
    for step in ("plan", "flight", "seat", "hotel"):
        run.succeeds(step)

    assert run.fails_for_good("pay") == ["compensating", "seat/undo/1", "hotel/undo/1"]
    assert run.is_undone("hotel") == []
    assert run.is_undone("seat") == ["flight/undo/1"]
    assert run.is_undone("flight") == ["plan/undo/1"]
    assert run.is_undone("plan") == ["compensated"]


def test_S6_a_step_without_a_compensation_is_stepped_over(run_of: RunOf) -> None:
    builder = WorkflowBuilder("order").add_step("reserve", compensation="release").add_step("mail").add_step("ship")
    run = run_of(builder)
    run.succeeds("reserve")
    run.succeeds("mail")

    assert run.fails_for_good("ship") == ["compensating", "reserve/undo/1"]


def test_S6_an_explicit_order_is_followed_one_undo_at_a_time(run_of: RunOf) -> None:
    run = failed_order(run_of, compensate_in=["reserve", "charge"])

    assert run.history[-1].correlation_id == "A-1/reserve/undo/1"
    assert run.is_undone("reserve") == ["charge/undo/1"]
    assert run.is_undone("charge") == ["compensated"]


def test_S6_a_step_that_an_explicit_order_leaves_out_is_undone_after_the_others(run_of: RunOf) -> None:
    # The builder refuses such an order; a definition that comes from elsewhere may have one.
    steps = {
        "reserve": StepDefinition(name="reserve", worker="reserve", compensation="release"),
        "charge": StepDefinition(name="charge", worker="charge", compensation="refund", after=("reserve",)),
        "ship": StepDefinition(name="ship", worker="ship", after=("charge",)),
    }
    run = run_of(Definition(name="order", steps=steps, compensate_in=("reserve",)))
    run.succeeds("reserve")
    run.succeeds("charge")

    assert run.fails_for_good("ship") == ["compensating", "reserve/undo/1"]
    assert run.is_undone("reserve") == ["charge/undo/1"]
    assert run.is_undone("charge") == ["compensated"]


# Parallel blocks ----------------------------------------------------------------------------------------------------


def test_S7_siblings_in_flight_settle_before_anything_is_undone(run_of: RunOf) -> None:
    run = run_of(risky())
    run.succeeds("credit")

    assert run.fails_for_good("fraud") == ["compensating"]
    # It settles by its success, which starts nothing any more; each branch is undone in its own reverse order.
    assert run.succeeds("limit") == ["limit/undo/1"]
    assert run.is_undone("limit") == ["credit/undo/1"]
    assert run.is_undone("credit") == ["compensated"]


def test_S7_each_finished_branch_is_undone_in_its_own_reverse_order(run_of: RunOf) -> None:
    run = run_of(risky().add_step("ship"))
    for step in ("credit", "fraud", "limit"):
        run.succeeds(step)

    assert run.fails_for_good("ship") == ["compensating", "limit/undo/1", "fraud/undo/1"]
    assert run.is_undone("limit") == ["credit/undo/1"]
    assert run.is_undone("credit") == []
    assert run.is_undone("fraud") == ["compensated"]


def test_S7_a_sibling_that_fails_while_the_run_goes_back_is_not_tried_again(run_of: RunOf) -> None:
    run = run_of(risky())
    run.fails_for_good("fraud")

    assert run.fails("credit") == ["failed"]
    assert run.steps == {"fraud": "failed", "credit": "failed", "limit": "not_started"}


def test_S7_a_sibling_that_waits_for_its_next_attempt_is_taken_back(run_of: RunOf) -> None:
    run = run_of(risky())
    assert run.fails("credit", kind=ErrorKind.TIMEOUT)[0].startswith("credit/do/2 in ")
    run.fails_for_good("fraud")

    # Nobody had claimed attempt 2; attempt 1 may have taken effect.
    assert run.is_recalled("credit") == ["credit/undo/1"]
    assert run.said[0].outcome == "unknown"


@pytest.mark.parametrize(
    ("failures", "status", "outcome"), [(0, "not_started", None), (1, "failed", "failed")], ids=["first", "second"]
)
def test_an_attempt_that_is_taken_back_leaves_what_the_earlier_ones_came_to(
    run_of: RunOf, failures: int, status: str, outcome: Any
) -> None:
    run = run_of(risky())
    for _ in range(failures):
        run.fails("credit")
    run.fails_for_good("fraud")

    assert run.is_recalled("credit") == ["failed"]
    assert run.steps["credit"] == status
    assert run.state.step("credit").outcome == outcome


def test_S7_where_a_block_waits_for_its_branches_a_cancel_safe_sibling_is_waited_for(run_of: RunOf) -> None:
    run = run_of(risky("wait", cancel_safe=True))

    assert run.fails_for_good("credit") == ["compensating"]
    assert run.succeeds("fraud") == ["fraud/undo/1"]


def test_S7_where_a_block_cancels_its_branches_a_cancel_safe_sibling_is_not_waited_for(run_of: RunOf) -> None:
    run = run_of(risky("cancel", cancel_safe=True))

    assert run.fails_for_good("credit") == ["compensating", "fraud abandoned", "fraud/undo/1"]


def test_S7_a_block_does_not_cancel_steps_outside_it(run_of: RunOf) -> None:
    builder = risky("cancel").add_step("mail", after=[], cancel_safe=True)
    run = run_of(builder)
    run.fails_for_good("fraud")

    assert run.fails_for_good("credit") == []
    assert run.succeeds("mail") == ["failed"]


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
