"""What a person may tell a run, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.events import ErrorInfo, ErrorKind, StatusEvent
from multiagents.names import Direction
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder import Step, WorkflowBuilder
from multiagents.workflow.decider import Fact, settleable, why_not
from multiagents.workflow.state import RunStatus, StepState
from tests.support.driven_run import DrivenRun, RunOf

ONCE = RetryPolicy(max_attempts=1)


def order() -> WorkflowBuilder:
    return (
        WorkflowBuilder("order")
        .add_step("reserve", compensation="release")
        .add_step("charge", compensation="refund", undo_retry=ONCE, on_unknown="park")
        .add_step("ship")
    )


def told(run: DrivenRun, verb: str, step: str | None = None, **facts: Any) -> list[str]:
    event = run.status(verb, step=step, **facts)
    assert why_not(run.definition, run.state, event) is None
    return run.takes(event)


def refusal(run: DrivenRun, verb: str, step: str | None = None) -> str:
    event = run.status(verb, step=step)
    before = run.state
    why = why_not(run.definition, run.state, event)
    assert why is not None
    assert run.takes(event) == []
    assert run.state is before
    return why


def with_a_parked_undo(run_of: RunOf) -> DrivenRun:
    run = run_of(order())
    run.succeeds("reserve")
    run.succeeds("charge")
    run.fails_for_good("ship")
    assert run.undo_fails("charge") == ["reserve/undo/1"]
    assert run.is_undone("reserve") == ["compensation_failed"]
    return run


# Pause --------------------------------------------------------------------------------------------------------------


def test_S22_a_paused_run_sends_nothing_out_and_records_what_was_in_flight(run_of: RunOf) -> None:
    run = run_of(order())

    assert told(run, Fact.PAUSE_REQUESTED) == ["paused"]
    assert run.succeeds("reserve") == []
    assert run.steps["reserve"] == "succeeded"
    assert told(run, Fact.RESUME_REQUESTED) == ["running", "charge/do/1"]


def test_S22_pause_holds_the_way_back_too(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.succeeds("charge")
    run.fails_for_good("ship")

    assert told(run, Fact.PAUSE_REQUESTED) == ["paused"]
    assert run.is_undone("charge") == []
    assert told(run, Fact.RESUME_REQUESTED) == ["compensating", "reserve/undo/1"]
    assert run.is_undone("reserve") == ["compensated"]


def test_a_step_that_fails_while_the_run_is_paused_turns_it_back_when_it_is_resumed(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    told(run, Fact.PAUSE_REQUESTED)

    assert run.fails_for_good("charge") == []
    assert told(run, Fact.RESUME_REQUESTED) == ["running", "compensating", "reserve/undo/1"]


def test_a_retry_that_is_due_while_the_run_is_paused_waits(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("retried").add_step("charge", retry=RetryPolicy(initial_interval=1, jitter=False)))
    told(run, Fact.PAUSE_REQUESTED)

    assert run.fails("charge") == []
    assert told(run, Fact.RESUME_REQUESTED) == ["running", "charge/do/2 in 1 s"]


def test_S20_a_cancel_lifts_the_hold(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    told(run, Fact.PAUSE_REQUESTED)

    assert run.is_cancelled() == ["compensating"]
    assert run.is_recalled("charge") == ["reserve/undo/1"]


@pytest.mark.parametrize("verb", [Fact.PAUSE_REQUESTED, Fact.RESUME_REQUESTED])
def test_a_run_that_is_over_is_neither_paused_nor_resumed(run_of: RunOf, verb: str) -> None:
    run = run_of(WorkflowBuilder("short").add_step("only"))
    run.succeeds("only")

    assert "it is completed" in refusal(run, verb)


# What waits for a person ---------------------------------------------------------------------------------------------


def test_S3_a_parked_step_may_be_tried_again(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    assert run.fails("charge", kind=ErrorKind.UNKNOWN) == ["paused"]
    assert list(settleable(run.definition, run.state)) == [("charge", Direction.DO)]

    assert told(run, Fact.RETRY_REQUESTED, "charge") == ["running", "charge/do/2"]
    assert run.succeeds("charge") == ["ship/do/1"]


def test_S3_a_parked_step_may_be_said_to_have_taken_no_effect(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.fails("charge", kind=ErrorKind.UNKNOWN)

    assert told(run, Fact.SKIP_REQUESTED, "charge", reason="the bank has nothing") == ["running", "ship/do/1"]
    assert run.fails_for_good("ship") == ["compensating", "reserve/undo/1"]


def test_S3_a_parked_step_may_be_given_its_result(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.fails("charge", kind=ErrorKind.UNKNOWN)

    assert told(run, Fact.RESULT_SUPPLIED, "charge", payload={"result": {"id": 7}, "direction": "do"}) == [
        "running",
        "ship/do/1",
    ]
    assert run.steps["charge"] == "succeeded"


def test_S3_a_parked_step_of_a_run_that_goes_back_is_not_tried_again_but_skipped_or_supplied(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.is_cancelled()
    assert run.fails("charge", kind=ErrorKind.UNKNOWN) == ["paused"]

    for step in ("charge", None):
        assert "the run goes back, and nothing is done again then: skip() the step" in refusal(
            run, Fact.RETRY_REQUESTED, step
        )
    assert told(run, Fact.RESULT_SUPPLIED, "charge") == ["compensating", "charge/undo/1"]


def test_S17_an_undo_that_was_given_up_may_be_tried_again(run_of: RunOf) -> None:
    run = with_a_parked_undo(run_of)

    assert told(run, Fact.RETRY_REQUESTED) == ["compensating", "charge/undo/2"]
    assert run.is_undone("charge") == ["compensated"]


def test_S17_S18_a_skipped_undo_ends_the_run_as_compensated_partially(run_of: RunOf) -> None:
    run = with_a_parked_undo(run_of)

    assert told(run, Fact.SKIP_REQUESTED, "charge", reason="refunded by hand") == [
        "compensating",
        "compensated_partially",
    ]
    assert run.state.step("charge").effect == "live"


def test_S17_an_undo_may_be_said_to_be_done(run_of: RunOf) -> None:
    run = with_a_parked_undo(run_of)

    payload = {"result": None, "direction": "undo"}
    assert told(run, Fact.RESULT_SUPPLIED, "charge", payload=payload) == ["compensating", "compensated"]
    assert run.state.step("charge").effect == "undone"


def test_S17_S18_an_abandoned_undo_stays_failed_and_is_nobodys_any_more(run_of: RunOf) -> None:
    run = with_a_parked_undo(run_of)

    assert told(run, Fact.ABANDON_REQUESTED, "charge", reason="written off") == []
    assert run.state.status is RunStatus.COMPENSATION_FAILED
    assert (run.steps["charge"], run.state.step("charge").effect) == ("compensation_failed", "live")
    assert list(settleable(run.definition, run.state)) == []
    assert "nothing waits for a person" in refusal(run, Fact.RETRY_REQUESTED, "charge")
    assert StepState.decode(run.state.step("charge").encode()) == run.state.step("charge")


def test_S17_of_two_undos_that_were_given_up_one_is_abandoned_and_the_other_done(run_of: RunOf) -> None:
    both = [Step(name, compensation=f"un{name}", undo_retry=ONCE) for name in ("book", "mail")]
    run = run_of(WorkflowBuilder("two").add_parallel("both", both).add_step("last"))
    run.succeeds("book")
    run.succeeds("mail")
    run.fails_for_good("last")
    run.undo_fails("book")
    run.undo_fails("mail")

    told(run, Fact.ABANDON_REQUESTED, "book", reason="the hotel is closed")
    assert told(run, Fact.RETRY_REQUESTED) == ["compensating", "mail/undo/2"]
    assert run.is_undone("mail") == ["compensation_failed"]
    assert (run.state.step("book").effect, run.state.step("mail").effect) == ("live", "undone")


def test_S17_only_an_undo_is_abandoned(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.fails("charge", kind=ErrorKind.UNKNOWN)

    assert refusal(run, Fact.ABANDON_REQUESTED, "charge") == (
        "step 'charge' is unknown; it is paused, and what waits for a person is: charge; only an undo can be abandoned"
    )


def test_of_two_undos_that_were_given_up_one_may_be_settled_first(run_of: RunOf) -> None:
    both = [Step(name, compensation=f"un{name}", undo_retry=ONCE) for name in ("book", "mail")]
    run = run_of(WorkflowBuilder("two").add_parallel("both", both).add_step("last"))
    run.succeeds("book")
    run.succeeds("mail")
    run.fails_for_good("last")
    run.undo_fails("book")
    assert run.undo_fails("mail") == ["compensation_failed"]

    assert told(run, Fact.SKIP_REQUESTED, "book", reason="never mind") == []
    assert told(run, Fact.SKIP_REQUESTED, "mail", reason="never mind") == ["compensating", "compensated_partially"]


def test_what_does_not_wait_for_a_person_is_refused_by_name(run_of: RunOf) -> None:
    run = run_of(order())

    assert refusal(run, Fact.RETRY_REQUESTED, "reserve") == (
        "step 'reserve' is scheduled; it is running, and nothing waits for a person"
    )


# Ends ----------------------------------------------------------------------------------------------------------------


def test_S20_a_terminated_run_ends_as_it_stands_and_undoes_nothing(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")

    assert told(run, RunStatus.TERMINATED, reason="wrong tenant") == []
    assert run.state.status is RunStatus.TERMINATED
    assert (run.state.step("reserve").effect, run.state.step("charge").effect) == ("live", "unknown")


def test_S24_a_completed_run_is_taken_back_on_request(run_of: RunOf) -> None:
    run = run_of(order())
    for step in ("reserve", "charge", "ship"):
        run.succeeds(step)
    error = ErrorInfo(type="CompensationRequested", message="returned")

    said = told(run, RunStatus.COMPENSATING, payload={"cause": "request"}, error=error)

    assert said == ["charge/undo/1"]
    assert run.is_undone("charge") == ["reserve/undo/1"]
    assert run.is_undone("reserve") == ["compensated"]


def test_S24_a_run_with_nothing_to_undo_counts_as_compensated_when_it_is_taken_back(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("short").add_step("only"))
    run.succeeds("only")

    assert told(run, RunStatus.COMPENSATING, payload={"cause": "request"}) == ["compensated"]


def test_only_a_completed_run_is_taken_back(run_of: RunOf) -> None:
    run = run_of(order())
    event = StatusEvent(transaction_id="A-1", status=RunStatus.COMPENSATING, payload={"cause": "request"})

    assert "cancel() one that goes on" in (why_not(run.definition, run.state, event) or "")
