"""Going back: what is undone, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.events import CommandEvent, CompensationEvent, ErrorInfo, ErrorKind, StatusEvent
from multiagents.names import Direction
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder import Step, WorkflowBuilder
from multiagents.workflow.decider import Fact, advance, decide, evolve, needs_undo
from multiagents.workflow.definition import Definition, StepDefinition
from multiagents.workflow.state import RunState
from tests.support.driven_run import DrivenRun, RunOf, by, with_code

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


def failed_order(run_of: RunOf, **options: Any) -> DrivenRun:
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

    state, said, *_ = decide(run.definition, run.state, declined)

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


def test_S3_S20_a_cancel_before_an_outcome_became_unknown_does_not_decide_about_it(run_of: RunOf) -> None:
    run = run_of(order(charge={"on_unknown": "park"}))
    run.succeeds("reserve")
    assert run.is_cancelled() == ["compensating"]

    # What is in flight settles first, and whoever cancelled did not know of this.
    assert run.is_lost("charge") == ["paused"]
    assert run.state.cause == "cancel"
    assert run.is_cancelled() == ["compensating", "charge/undo/1"]
    assert run.is_undone("charge") == ["reserve/undo/1"]
    assert run.is_undone("reserve") == ["cancelled"]


def test_S3_S20_a_cancel_of_a_run_that_goes_back_does_not_decide_about_what_is_in_flight(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("order").add_parallel("both", [Step("mail"), undoable("charge", on_unknown="park")]))
    run.fails_for_good("mail")
    run.is_cancelled()

    assert run.is_lost("charge") == ["paused"]
    assert run.is_cancelled() == ["compensating", "charge/undo/1"]
    assert run.is_undone("charge") == ["compensated"]


def test_S3_what_becomes_unknown_after_a_person_has_decided_is_asked_about_again(run_of: RunOf) -> None:
    branches = [undoable("charge", on_unknown="park"), undoable("book", on_unknown="park")]
    run = run_of(WorkflowBuilder("order").add_parallel("both", branches))
    run.fails("charge", kind=ErrorKind.UNKNOWN)
    assert run.is_cancelled() == ["compensating"]

    assert run.is_lost("book") == ["paused"]
    assert run.said[0].reason == "nobody knows whether step book took effect"
    assert run.is_cancelled() == ["compensating", "book/undo/1", "charge/undo/1"]


def test_S5_a_cancelled_run_that_is_held_goes_on_when_the_outcome_becomes_known(run_of: RunOf) -> None:
    run = run_of(order(charge={"on_unknown": "park"}))
    run.succeeds("reserve")
    run.is_cancelled()
    run.is_lost("charge")

    assert run.succeeds("charge", attempt=1) == ["compensating", "charge/undo/1"]
    assert run.said[-1].outcome == "succeeded"


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


def test_S1b_a_sibling_that_was_given_back_half_way_is_undone(run_of: RunOf) -> None:
    run = run_of(risky())
    failed = evolve(run.definition, run.state, run.error("fraud", Direction.DO, retryable=False))

    state, said, *_ = advance(run.definition, failed, now=run.now, unclaimed={"credit"}, begun={"credit"})

    assert (state.step("credit").outcome, state.step("credit").undo.in_flight) == ("unknown", True)
    assert [event.status for event in said if isinstance(event, StatusEvent)] == ["compensating", "abandoned"]


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


def test_S7_a_step_that_the_same_decision_was_to_send_is_taken_back_and_not_abandoned(run_of: RunOf) -> None:
    branches = [[undoable("fraud"), Step("limit")], undoable("credit", cancel_safe=True)]
    run = run_of(WorkflowBuilder("order").add_step("plan").add_parallel("risk", branches, "cancel"))
    planned = evolve(run.definition, run.state, run.result("plan", Direction.DO))

    def ask(step: StepDefinition, command: CommandEvent) -> Any:
        if step.name == "fraud":
            return run.status(Fact.SKIPPED, step="fraud")
        return run.error("limit", Direction.DO, 1, retryable=False) if step.name == "limit" else command

    state, said, *_ = advance(with_code(run.definition), planned, now=run.now, answer=by(ask))

    assert [(event.step, event.status) for event in said if isinstance(event, StatusEvent)] == [
        ("fraud", "skipped"),
        (None, "compensating"),
        ("credit", "recalled"),
        (None, "failed"),
    ]
    assert state.step("credit").outcome is None


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
