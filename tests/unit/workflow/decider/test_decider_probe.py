"""Rules S3 and S13: a step whose outcome nobody knows is asked about by its probe, before anything follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.events import CommandEvent, ErrorEvent, ErrorKind, ResultEvent
from multiagents.exceptions import ResolutionError
from multiagents.names import Direction
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder import Step, WorkflowBuilder
from multiagents.workflow.decider import Fact, react, resolved, settleable
from multiagents.workflow.state import Activity, ActivityStatus, RunStatus, StepState
from tests.support.driven_run import DrivenRun, RunOf

ONCE = RetryPolicy(max_attempts=1)
RESOLVE: dict[str, Any] = {"on_unknown": "resolve", "resolve_with": "charge_status", "retry": ONCE}


def order(**charge: Any) -> WorkflowBuilder:
    return (
        WorkflowBuilder("order")
        .add_step("reserve", compensation="release")
        .add_step("charge", **{"compensation": "refund", **RESOLVE, **charge})
        .add_step("ship")
    )


def probed(run_of: RunOf, **charge: Any) -> DrivenRun:
    """A run whose charge nobody knows of, and whose probe was sent out."""
    run = run_of(order(**charge))
    run.succeeds("reserve")
    assert run.fails("charge", kind=ErrorKind.UNKNOWN) == ["charge/do/2 by its probe"]
    return run


def test_S3_the_probe_is_one_more_attempt_by_another_worker_and_the_run_goes_on_with_what_it_found(
    run_of: RunOf,
) -> None:
    run = probed(run_of)

    assert (run.said[0].worker, run.said[0].probe) == ("charge_status", True)
    assert run.state.status is RunStatus.RUNNING
    assert run.succeeds("charge") == ["ship/do/1"]
    assert run.state.step("charge").do.error is None
    assert run.succeeds("ship") == ["completed"]


def test_S3_what_the_probe_found_not_done_is_a_definite_failure_and_is_not_undone(run_of: RunOf) -> None:
    run = probed(run_of)

    assert run.fails("charge", kind=ErrorKind.NO_EFFECT) == ["compensating", "reserve/undo/1"]
    assert run.state.step("charge").outcome == "failed"
    assert run.is_undone("reserve") == ["compensated"]


def test_S19_the_doubt_stays_the_error_and_what_the_probe_came_to_is_attached(run_of: RunOf) -> None:
    run = probed(run_of)

    run.fails("charge", kind=ErrorKind.NO_EFFECT)

    error = run.state.error
    assert (error.message, error.attempt) == ("charge declined", 1)
    assert [cause.message for cause in error.causes] == ["probe of charge: charge declined"]


@pytest.mark.parametrize(
    "facts", [{"kind": ErrorKind.UNKNOWN}, {"retryable": False}, {"kind": ErrorKind.UNKNOWN, "retryable": False}]
)
def test_S3_what_the_probe_cannot_tell_waits_for_a_person(run_of: RunOf, facts: dict[str, Any]) -> None:
    run = probed(run_of)

    assert run.fails("charge", **facts) == ["paused"]
    assert run.said[0].reason == "nobody knows whether step charge took effect"
    assert list(settleable(run.definition, run.state)) == [("charge", Direction.DO)]
    assert run.is_cancelled() == ["compensating", "charge/undo/1"]
    assert run.said[-1].outcome == "unknown"


def test_S3_a_probe_is_retried_as_its_worker_says_and_lost_ones_are_counted_apart(run_of: RunOf) -> None:
    run = probed(run_of)
    policy = RetryPolicy(max_attempts=2, initial_interval=5, jitter=False)

    # The step itself may be tried once: that is not about its probe.
    assert run.fails("charge", retry_policy=policy) == ["charge/do/3 by its probe in 5 s"]
    assert run.is_lost("charge") == ["charge/do/4 by its probe"]
    assert run.fails("charge", kind=ErrorKind.TIMEOUT, retry_policy=policy) == ["paused"]
    assert [cause.message for cause in run.state.step("charge").do.error.causes] == ["probe of charge: charge declined"]


def test_S1a_losses_of_the_step_do_not_count_against_its_probe(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")

    said = [run.is_lost("charge") for _ in range(9)]

    by_worker = [[f"charge/do/{attempt}"] for attempt in range(2, 6)]
    by_probe = [[f"charge/do/{attempt} by its probe"] for attempt in range(6, 11)]
    assert said == [*by_worker, *by_probe]
    assert run.is_lost("charge") == ["paused"]


def test_S3_a_known_outcome_asks_no_probe(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")

    assert run.fails_for_good("charge") == ["compensating", "reserve/undo/1"]


# A run that goes back ------------------------------------------------------------------------------------------------


def test_S3_S20_a_cancelled_run_asks_before_it_undoes_and_undoes_what_succeeded(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    assert run.is_cancelled() == ["compensating"]

    assert run.is_lost("charge") == ["charge/do/2 by its probe"]
    assert run.succeeds("charge") == ["charge/undo/1"]
    assert run.said[0].outcome == "succeeded"
    assert run.is_undone("charge") == ["reserve/undo/1"]
    assert run.is_undone("reserve") == ["cancelled"]


def test_S3_in_a_run_that_goes_back_a_probe_is_retried_and_what_it_cannot_tell_is_parked(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.is_cancelled()
    run.is_lost("charge")

    assert run.is_lost("charge") == ["charge/do/3 by its probe"]
    assert run.fails("charge", kind=ErrorKind.UNKNOWN) == ["paused"]
    # Nobody does the step any more: who has it tried again has its probe asked again.
    assert run.takes(run.status(Fact.RETRY_REQUESTED, step="charge")) == ["compensating", "charge/do/4 by its probe"]
    assert run.fails("charge", kind=ErrorKind.NO_EFFECT) == ["reserve/undo/1"]


def test_S3_S5_a_probe_is_never_taken_back_though_nobody_has_claimed_it(run_of: RunOf) -> None:
    run = probed(run_of, cancel_safe=True)

    assert run.is_cancelled() == ["compensating"]
    assert react(run.definition, run.state, unclaimed={"charge"}) == ()
    assert run.succeeds("charge") == ["charge/undo/1"]


def test_S3_S7_of_a_cancel_safe_step_that_is_left_the_probe_is_asked(run_of: RunOf) -> None:
    branches = [Step("mail"), Step("charge", compensation="refund", cancel_safe=True, **RESOLVE)]
    run = run_of(WorkflowBuilder("order").add_parallel("both", branches, on_failure="cancel"))

    assert run.fails_for_good("mail") == ["compensating", "charge abandoned", "charge/do/2 by its probe"]
    assert run.fails("charge", kind=ErrorKind.NO_EFFECT) == ["failed"]


def test_S3_siblings_and_their_probes_settle_side_by_side(run_of: RunOf) -> None:
    branches = [
        Step("charge", compensation="refund", **RESOLVE),
        Step("book", compensation="unbook", **{**RESOLVE, "resolve_with": "book_status"}),
    ]
    run = run_of(WorkflowBuilder("order").add_parallel("both", branches))
    run.fails("charge", kind=ErrorKind.UNKNOWN)

    assert run.fails("book", kind=ErrorKind.UNKNOWN) == ["book/do/2 by its probe"]
    assert run.fails("charge", kind=ErrorKind.NO_EFFECT) == ["compensating"]
    assert run.succeeds("book") == ["book/undo/1"]


def parcel(run_of: RunOf) -> DrivenRun:
    """A run with a save-point, behind which one of two branches has failed while nobody knows of the other."""
    run = run_of(
        WorkflowBuilder("parcel")
        .add_step("pack", compensation="unpack")
        .add_savepoint("packed")
        .add_parallel("both", [Step("charge", compensation="refund", **RESOLVE), Step("send", retry=ONCE)])
    )
    run.succeeds("pack")
    run.fails("charge", kind=ErrorKind.UNKNOWN)
    assert run.fails("send") == ["compensating"]
    return run


def test_S3_S15_on_the_way_back_to_a_savepoint_the_probe_tells_what_there_is_to_undo(run_of: RunOf) -> None:
    run = parcel(run_of)

    assert run.is_lost("charge") == ["charge/do/3 by its probe"]
    assert run.succeeds("charge") == ["charge/undo/1"]
    assert run.is_undone("charge") == ["packed rolled_back", "running", "charge#2/do/1", "send#2/do/1"]
    assert run.fails("charge#2", kind=ErrorKind.UNKNOWN) == ["charge#2/do/2 by its probe"]


def test_S3_S15_what_the_probe_found_not_done_leaves_nothing_to_undo_behind_the_savepoint(run_of: RunOf) -> None:
    run = parcel(run_of)

    said = run.fails("charge", kind=ErrorKind.NO_EFFECT)

    assert said == ["packed rolled_back", "running", "charge#2/do/1", "send#2/do/1"]


# A late success of an attempt before ---------------------------------------------------------------------------------


def test_S5_a_late_success_beside_the_probe_is_kept_and_the_probe_settles_the_step(run_of: RunOf) -> None:
    run = probed(run_of)

    assert run.succeeds("charge", attempt=1) == []
    assert run.state.step("charge").late == (1,)
    assert run.succeeds("charge") == ["ship/do/1"]


def test_S5_a_late_success_after_the_probe_found_nothing_is_undone(run_of: RunOf) -> None:
    run = probed(run_of)
    run.fails("charge", kind=ErrorKind.NO_EFFECT)
    run.is_undone("reserve")
    assert run.state.status is RunStatus.COMPENSATED

    assert run.succeeds("charge", attempt=1) == ["compensating", "charge/undo/1"]
    assert run.said[-1].outcome == "succeeded"


def test_S5_in_a_run_that_goes_back_a_late_success_has_told_what_the_probe_would(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.takes(run.status(Fact.PAUSE_REQUESTED))
    run.fails("charge", kind=ErrorKind.UNKNOWN)
    assert run.succeeds("charge", attempt=1) == []

    assert run.is_cancelled() == ["compensating", "charge/undo/1"]
    assert run.said[-1].outcome == "succeeded"


# People --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (Fact.RETRY_REQUESTED, ["running", "charge/do/3"]),
        (Fact.SKIP_REQUESTED, ["running", "ship/do/1"]),
        (Fact.RESULT_SUPPLIED, ["running", "ship/do/1"]),
    ],
)
def test_S3_a_person_settles_what_the_probe_could_not_tell(run_of: RunOf, verb: str, said: list[str]) -> None:
    run = probed(run_of)
    run.fails("charge", kind=ErrorKind.UNKNOWN)

    assert run.takes(run.status(verb, step="charge", payload={"direction": "do"})) == said


def test_S3_what_was_tried_again_and_is_unknown_again_is_asked_about_again(run_of: RunOf) -> None:
    run = probed(run_of)
    run.fails("charge", kind=ErrorKind.UNKNOWN)
    run.takes(run.status(Fact.RETRY_REQUESTED, step="charge"))

    assert run.fails("charge", kind=ErrorKind.UNKNOWN) == ["charge/do/4 by its probe"]


def test_S22_in_a_paused_run_no_probe_is_sent_until_it_is_resumed(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.takes(run.status(Fact.PAUSE_REQUESTED))

    assert run.fails("charge", kind=ErrorKind.UNKNOWN) == []
    assert run.takes(run.status(Fact.RESUME_REQUESTED)) == ["running", "charge/do/2 by its probe"]


def test_S22_a_cancel_of_a_paused_run_does_not_decide_about_what_its_probe_was_not_asked(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.takes(run.status(Fact.PAUSE_REQUESTED))
    run.fails("charge", kind=ErrorKind.UNKNOWN)

    assert run.is_cancelled() == ["compensating", "charge/do/2 by its probe"]


def test_S20_in_a_terminated_run_no_probe_is_asked_again(run_of: RunOf) -> None:
    run = probed(run_of)
    run.takes(run.status(RunStatus.TERMINATED))

    assert run.is_lost("charge") == []
    assert run.steps["charge"] == "unknown"


# The point of no return ----------------------------------------------------------------------------------------------


def transfer() -> WorkflowBuilder:
    return (
        WorkflowBuilder("transfer")
        .add_step("hold", compensation="release")
        .add_step("pay", pivot=True, **{**RESOLVE, "resolve_with": "pay_status"})
        .add_step("book", **{**RESOLVE, "resolve_with": "book_status"})
    )


def test_S13_a_pivots_probe_is_asked_before_a_person_is(run_of: RunOf) -> None:
    run = run_of(transfer())
    run.succeeds("hold")

    assert run.is_lost("pay") == ["pay/do/2"]
    assert run.fails("pay", kind=ErrorKind.UNKNOWN) == ["pay/do/3 by its probe"]
    assert run.succeeds("pay") == ["book/do/1"]


def test_S13_a_pivot_that_was_not_made_lets_the_run_go_back(run_of: RunOf) -> None:
    run = run_of(transfer())
    run.succeeds("hold")
    run.fails("pay", kind=ErrorKind.UNKNOWN)

    assert run.fails("pay", kind=ErrorKind.NO_EFFECT) == ["compensating", "hold/undo/1"]


def test_S12_S13_a_probe_that_finds_the_pivot_made_turns_a_cancelled_run_forward_again(run_of: RunOf) -> None:
    run = run_of(transfer())
    run.succeeds("hold")
    run.is_cancelled()
    assert run.fails("pay", kind=ErrorKind.UNKNOWN) == ["pay/do/2 by its probe"]

    assert run.succeeds("pay") == ["running", "book/do/1"]


def test_S13_what_a_pivots_probe_cannot_tell_waits_for_a_person(run_of: RunOf) -> None:
    run = run_of(transfer())
    run.succeeds("hold")
    run.fails("pay", kind=ErrorKind.UNKNOWN)

    assert run.fails("pay", retryable=False) == ["paused"]


def test_S12_behind_the_pivot_a_probe_is_asked_and_a_failure_it_finds_waits_for_a_person(run_of: RunOf) -> None:
    run = run_of(transfer())
    run.succeeds("hold")
    run.succeeds("pay")
    assert run.fails("book", kind=ErrorKind.UNKNOWN) == ["book/do/2 by its probe"]

    assert run.fails("book", kind=ErrorKind.NO_EFFECT) == ["paused"]
    assert run.said[0].reason == "step book failed behind the pivot"


# Data ----------------------------------------------------------------------------------------------------------------


def test_what_is_stored_of_a_step_without_a_probe_is_what_the_release_before_reads() -> None:
    failed = StepState(Activity(ActivityStatus.FAILED, 1, 1))
    probing = StepState(Activity(ActivityStatus.UNKNOWN, 2, 0, in_doubt=True, probing=True))

    assert failed.encode() == '[["x",1,1]]'
    assert StepState.decode(probing.encode()) == probing


def test_what_is_stored_of_a_failed_step_ends_with_its_error(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    run.fails_for_good("charge")

    assert len(run.state.step("charge").do.encode()) == 11
    assert StepState.decode(run.state.step("charge").encode()) == run.state.step("charge")


def answer(run: DrivenRun, payload: Any) -> ResultEvent:
    event: ResultEvent = run.result("charge", Direction.DO)
    return event.model_copy(update={"payload": payload})


@pytest.mark.parametrize(
    ("payload", "result"),
    [({"outcome": "succeeded", "result": {"id": "ch_1"}}, {"id": "ch_1"}), ({"outcome": "succeeded"}, None)],
)
def test_S3_a_probes_success_is_a_result_of_the_step(run_of: RunOf, payload: Any, result: Any) -> None:
    told = resolved(answer(probed(run_of), payload), "charge_status")

    assert isinstance(told, ResultEvent)
    assert told.payload == result


@pytest.mark.parametrize(
    ("payload", "kind", "message"),
    [
        ({"outcome": "failed"}, ErrorKind.NO_EFFECT, "step 'charge': its probe 'charge_status' found that it did not"),
        ({"outcome": "unknown", "reason": "no answer"}, ErrorKind.UNKNOWN, "cannot tell whether it took effect: no an"),
    ],
)
def test_S3_what_else_a_probe_says_is_an_error_that_says_so(
    run_of: RunOf, payload: Any, kind: ErrorKind, message: str
) -> None:
    told = resolved(answer(probed(run_of), payload), "charge_status")

    assert isinstance(told, ErrorEvent)
    assert (told.kind, told.retryable, told.correlation_id) == (kind, False, "A-1/charge/do/2")
    assert message in told.error.message


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (None, "answered with a NoneType"),
        ("succeeded", "answered with a str"),
        ({}, "answered with no outcome, only nothing"),
        ({"charge_id": "secret"}, "answered with no outcome, only charge_id"),
        ({"outcome": "success"}, "answered with outcome 'success'"),
        ({"outcome": "succeeded", "charge_id": "secret"}, "answered with charge_id beside the outcome 'succeeded'"),
        ({"outcome": "failed", "result": {}}, "answered with a result with the outcome 'failed'"),
        ({"outcome": "failed", "reason": 3}, "answered with a reason that is a int"),
    ],
)
def test_an_answer_that_is_none_is_refused_in_words(run_of: RunOf, payload: Any, found: str) -> None:
    event = answer(probed(run_of), payload)

    with pytest.raises(ResolutionError) as caught:
        resolved(event, "charge_status")

    message = str(caught.value)
    assert message.startswith('probe "charge_status" of step "charge" ')
    assert f"{found}; expected" in message
    assert "secret" not in message


def test_the_command_in_the_history_says_that_it_asks_the_probe(run_of: RunOf) -> None:
    run = probed(run_of)
    said = [event for event in run.history if isinstance(event, CommandEvent) and event.step == "charge"]

    assert [(event.worker, event.probe) for event in said] == [("charge", False), ("charge_status", True)]
