"""Going forward: what the core says when steps succeed, fail, get lost or are skipped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from multiagents.clock import to_ms
from multiagents.events import CommandEvent, ErrorEvent, ErrorInfo, ErrorKind, Event, StatusEvent
from multiagents.exceptions import DecodeError, UnexpectedEventError, UnknownStepError
from multiagents.names import Direction
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder import Step, WorkflowBuilder
from multiagents.workflow.decider import Fact, decide, evolve, react, start_event
from multiagents.workflow.state import Activity, ActivityStatus, RunState, RunStatus, StepState, StepStatus
from tests.support.driven_run import RunOf

TWICE = RetryPolicy(max_attempts=2, initial_interval=3, jitter=False)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def order(**charge: Any) -> WorkflowBuilder:
    return WorkflowBuilder("order").add_step("reserve").add_step("charge", "charge_card", **charge).add_step("ship")


def diamond() -> WorkflowBuilder:
    return (
        WorkflowBuilder("order")
        .add_step("reserve")
        .add_parallel("risk", [Step("fraud"), [Step("credit"), Step("limit")]])
        .add_step("ship")
    )


# The flow -----------------------------------------------------------------------------------------------------------


def test_a_start_asks_for_the_first_step_and_pins_the_run_to_its_definition_S26(run_of: RunOf) -> None:
    definition = order().build(register=False)
    started = start_event(definition, "A-1", now=NOON, max_lost=7)

    state, said, *_ = decide(definition, RunState("A-1", "order"), started)

    assert said == (
        CommandEvent(
            id="A-1/reserve/do/1",
            transaction_id="A-1",
            correlation_id="A-1/reserve/do/1",
            timestamp=NOON,
            occurred_at=NOON,
            step="reserve",
            attempt=1,
            worker="reserve",
        ),
    )
    assert state == RunState(
        "A-1",
        "order",
        version="1",
        definition_hash=definition.content_hash,
        status=RunStatus.RUNNING,
        steps={"reserve": StepState(Activity(ActivityStatus.IN_FLIGHT, attempt=1, scheduled_at=1767268800000))},
        max_lost=7,
        started_at=1767268800000,
    )


def test_each_step_follows_the_one_before_it_until_the_run_is_completed(run_of: RunOf) -> None:
    run = run_of(order())

    assert run.first == ["reserve/do/1"]
    assert run.succeeds("reserve") == ["charge/do/1"]
    assert run.succeeds("charge") == ["ship/do/1"]
    assert run.succeeds("ship") == ["completed"]
    assert run.state.finished_at == to_ms(run.now)
    assert run.steps == {"reserve": "succeeded", "charge": "succeeded", "ship": "succeeded"}


def test_a_join_waits_for_the_end_of_every_branch(run_of: RunOf) -> None:
    run = run_of(diamond())

    assert run.succeeds("reserve") == ["fraud/do/1", "credit/do/1"]
    assert run.succeeds("credit") == ["limit/do/1"]
    assert run.succeeds("limit") == []
    assert run.succeeds("fraud") == ["ship/do/1"]


def test_a_run_with_several_ends_is_completed_when_all_of_them_are(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("order").add_step("mail", after=[]).add_step("ship", after=[]))

    assert run.first == ["mail/do/1", "ship/do/1"]
    assert run.succeeds("ship") == []
    assert run.succeeds("mail") == ["completed"]


def test_G1_the_same_event_twice_gives_the_same_state_and_no_commands(run_of: RunOf) -> None:
    run = run_of(order())
    reserved = run.result("reserve", Direction.DO)
    run.takes(reserved)
    before = run.state

    assert run.takes(reserved) == []
    assert run.state is before
    assert run.takes(run.history[0]) == []
    assert run.takes(run.history[1]) == []
    assert run.state is before


def test_a_reply_is_matched_by_its_correlation_id_and_nothing_else(run_of: RunOf) -> None:
    run = run_of(order())
    before = run.state

    # Attempt 2 was never made; the undo was never asked for, however the event describes itself.
    assert run.succeeds("reserve", attempt=2) == []
    assert run.takes(run.result("reserve", Direction.UNDO, attempt=1)) == []
    assert run.takes(run.error("reserve", Direction.UNDO, attempt=1)) == []
    assert run.state is before


def test_an_event_of_an_unknown_step_raises_and_leaves_the_state_untouched(run_of: RunOf) -> None:
    run = run_of(order())
    before = run.state
    stray = run.result("reserve", Direction.DO).model_copy(update={"step": "chrage"})

    with pytest.raises(UnknownStepError, match=r'step "chrage" was named.*did you mean "charge"\?'):
        run.takes(stray)
    assert run.state is before


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"transaction_id": "B-2"}, UnexpectedEventError, "an event of run 'B-2' was given to run 'A-1'"),
        ({"correlation_id": "B-2/reserve/do/1"}, UnexpectedEventError, "another step or run"),
        ({"correlation_id": "A-1/charge/do/1"}, UnexpectedEventError, "another step or run"),
        ({"correlation_id": "reserve"}, DecodeError, "correlation id 'reserve' was not understood"),
    ],
)
def test_an_event_of_another_run_or_step_raises(run_of: RunOf, changed: Any, error: Any, words: str) -> None:
    run = run_of(order())

    with pytest.raises(error, match=words):
        run.takes(run.result("reserve", Direction.DO).model_copy(update=changed))


def test_an_event_of_a_kind_or_status_of_a_later_release_changes_nothing(run_of: RunOf) -> None:
    run = run_of(order())
    before = run.state

    assert run.takes(Event(type="signal", transaction_id="A-1", step="reserve")) == []
    assert run.takes(Event(type="signal", transaction_id="A-1")) == []
    assert run.takes(run.status("archived")) == []
    assert run.takes(run.status("archived", step="reserve")) == []
    assert run.state is before


# Retries ------------------------------------------------------------------------------------------------------------


def test_S1a_a_failed_attempt_is_tried_again_after_the_delay_of_the_steps_policy(run_of: RunOf) -> None:
    run = run_of(order(retry=TWICE))
    run.succeeds("reserve")

    assert run.fails("charge") == ["charge/do/2 in 3 s"]
    assert run.steps["charge"] == "scheduled"
    assert run.fails("charge") == ["compensating", "failed"]
    assert run.state.step("charge").do.failures == 2


def test_S1a_without_a_policy_of_the_step_the_workers_own_is_followed(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")

    assert run.fails("charge", retry_policy=TWICE) == ["charge/do/2 in 3 s"]
    assert run.fails("charge", retry_policy=TWICE) == ["compensating", "failed"]


def test_without_any_policy_three_attempts_may_fail(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("order").add_step("charge"))

    assert [len(run.fails("charge")) for _ in range(3)] == [1, 1, 2]
    assert run.state.status == "failed"


def test_a_step_is_over_when_its_next_attempt_would_begin_after_its_time_for_all_of_them(run_of: RunOf) -> None:
    unlimited = RetryPolicy(max_attempts=0, initial_interval=3, backoff_coefficient=1, jitter=False)
    run = run_of(order(retry=unlimited, schedule_to_close=8))
    run.succeeds("reserve")

    # The first attempt fails after 4 s, the second after 5 s: a third one, 3 s later, would be too late.
    run.now += timedelta(seconds=3)
    assert run.fails("charge") == ["charge/do/2 in 3 s"]
    assert run.fails("charge") == ["compensating", "failed"]
    assert run.state.step("charge").do.failures == 2


def test_a_step_that_is_not_to_be_retried_is_over_at_once(run_of: RunOf) -> None:
    run = run_of(order())

    assert run.fails_for_good("reserve") == ["compensating", "failed"]
    assert run.state.error == ErrorInfo(type="CardDeclined", message="reserve declined")


def test_S1a_a_lost_attempt_is_sent_again_at_once_and_uses_up_none_of_the_policys_attempts(run_of: RunOf) -> None:
    run = run_of(order(retry=RetryPolicy(max_attempts=1)))
    run.succeeds("reserve")

    assert [run.is_lost("charge") for _ in range(4)] == [[f"charge/do/{n}"] for n in (2, 3, 4, 5)]
    assert (run.state.step("charge").do.losses, run.state.step("charge").do.failures) == (4, 0)
    assert run.succeeds("charge") == ["ship/do/1"]


def test_S1a_after_max_lost_losses_the_outcome_is_unknown(run_of: RunOf) -> None:
    run = run_of(order(), max_lost=2)

    assert run.is_lost("reserve") == ["reserve/do/2"]
    assert run.is_lost("reserve") == ["compensating", "failed"]
    assert run.steps["reserve"] == "unknown"


def test_S1a_a_time_out_counts_as_a_failed_attempt(run_of: RunOf) -> None:
    run = run_of(order(retry=TWICE))
    run.succeeds("reserve")

    assert run.fails("charge", kind=ErrorKind.TIMEOUT) == ["charge/do/2 in 3 s"]
    assert run.state.step("charge").do.failures == 1
    run.fails("charge", kind=ErrorKind.TIMEOUT)
    assert run.steps["charge"] == "unknown"


# The worst of the attempts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ErrorKind.LOST, ErrorKind.TIMEOUT])
def test_S1b_a_definite_failure_after_an_attempt_in_doubt_leaves_the_outcome_unknown(run_of: RunOf, kind: Any) -> None:
    run = run_of(order(retry=TWICE))
    run.succeeds("reserve")
    run.fails("charge", kind=kind)

    run.fails_for_good("charge")

    assert run.steps["charge"] == "unknown"
    assert run.state.status == "failed"


def test_S1b_a_success_clears_the_doubt(run_of: RunOf) -> None:
    run = run_of(order(retry=TWICE))
    run.succeeds("reserve")
    run.is_lost("charge")

    assert run.succeeds("charge") == ["ship/do/1"]
    assert run.state.step("charge").do.in_doubt is False
    assert run.steps["charge"] == "succeeded"


def test_S1b_what_says_of_itself_that_its_outcome_is_unknown_is_not_tried_again(run_of: RunOf) -> None:
    run = run_of(order(retry=TWICE))
    run.succeeds("reserve")

    assert run.fails("charge", kind=ErrorKind.UNKNOWN) == ["compensating", "failed"]
    assert run.steps["charge"] == "unknown"


def test_the_late_success_of_an_attempt_that_was_given_up_is_remembered_and_advances_nothing(run_of: RunOf) -> None:
    run = run_of(order())
    run.is_lost("reserve")

    assert run.succeeds("reserve", attempt=1) == []
    assert run.succeeds("reserve", attempt=1) == []
    assert run.state.step("reserve").late == (1,)
    assert run.succeeds("reserve", attempt=2) == ["charge/do/1"]
    assert run.fails("reserve", attempt=1) == []


# User code ----------------------------------------------------------------------------------------------------------


def answering(**answers: Any) -> Any:
    """An `Ask`: a step's ``when`` is false, its code raised, or its ``inputs`` answered."""

    def ask(step: Any, command: CommandEvent) -> Event:
        common = {"transaction_id": "A-1", "timestamp": command.timestamp, "step": step.name}
        match answers.get(step.name):
            case None:
                return command
            case False:
                return StatusEvent(**common, status=Fact.SKIPPED)
            case Exception() as raised:
                error = ErrorInfo(type=type(raised).__name__, message=str(raised))
                attempt = {"correlation_id": command.correlation_id, "attempt": 1}
                return ErrorEvent(**common, **attempt, error=error, retryable=False)
            case inputs:
                return command.model_copy(update={"payload": inputs})

    return ask


def test_a_step_whose_when_is_false_is_skipped_and_the_flow_goes_on(run_of: RunOf) -> None:
    run = run_of(diamond(), ask=answering(fraud=False, credit=False, limit=False))

    assert run.succeeds("reserve") == ["fraud skipped", "credit skipped", "limit skipped", "ship/do/1"]
    assert run.succeeds("ship") == ["completed"]
    assert run.steps["limit"] == "skipped"


def test_a_run_of_which_every_step_is_skipped_is_completed_at_its_start(run_of: RunOf) -> None:
    names = [f"s{number}" for number in range(2_000)]
    builder = WorkflowBuilder("order")
    for name in names:
        builder.add_step(name)

    run = run_of(builder, ask=answering(**dict.fromkeys(names, False)))

    assert run.first == [*(f"{name} skipped" for name in names), "completed"]


def test_the_answer_of_inputs_is_recorded_in_the_command_and_asked_for_once(run_of: RunOf) -> None:
    run = run_of(order(), ask=answering(reserve={"sku": "A"}))

    assert [event.payload for event in run.history[1:]] == [{"sku": "A"}]
    run.is_lost("reserve")
    assert [event.payload for event in run.said] == [None]


def test_user_code_that_raises_fails_its_step_for_certain_and_nothing_is_dispatched_beside_it(run_of: RunOf) -> None:
    run = run_of(diamond(), ask=answering(credit=KeyError("score")))

    assert run.succeeds("reserve") == ["credit failed", "compensating", "failed"]
    assert run.steps == {
        "reserve": "succeeded",
        "fraud": "not_started",
        "credit": "failed",
        "limit": "not_started",
        "ship": "not_started",
    }
    assert run.state.error == ErrorInfo(type="KeyError", message="'score'")


def test_a_step_that_nobody_asked_for_fails_only_by_its_own_code(run_of: RunOf) -> None:
    run = run_of(order())
    before = run.state

    # A stray error of a step that is not due has a kind, an attempt or a moment that user code cannot have.
    assert run.fails("charge", attempt=1, kind=ErrorKind.LOST) == []
    assert run.fails("charge", attempt=2) == []
    assert run.state is before


def test_the_late_failure_of_an_attempt_that_was_taken_back_changes_nothing(run_of: RunOf) -> None:
    run = run_of(order())
    recalled = evolve(run.definition, run.state, run.status(Fact.REVOKED, step="reserve"))

    assert evolve(run.definition, recalled, run.error("reserve", Direction.DO, 1)) is recalled


# Projections --------------------------------------------------------------------------------------------------------


def test_from_a_projection_the_same_next_step_follows_as_from_the_whole_run(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")
    projection = run.state._replace(steps={"charge": run.state.step("charge")})
    charged = run.result("charge", Direction.DO)

    assert decide(run.definition, projection, charged)[1] == decide(run.definition, run.state, charged)[1]


def test_from_a_projection_a_join_is_left_to_whoever_has_the_whole_run(run_of: RunOf) -> None:
    run = run_of(diamond())
    for step in ("reserve", "credit", "fraud"):
        run.succeeds(step)
    projection = run.state._replace(steps={"limit": run.state.step("limit")})

    assert decide(run.definition, projection, run.result("limit", Direction.DO))[1] == ()
    assert run.succeeds("limit") == ["ship/do/1"]


def test_S21_what_is_due_depends_on_the_state_alone(run_of: RunOf) -> None:
    run = run_of(order())
    landed = evolve(run.definition, run.state, run.result("reserve", Direction.DO))

    once, twice = react(run.definition, landed), react(run.definition, landed)

    assert once == twice
    assert [event.correlation_id for event in once] == ["A-1/charge/do/1"]


def test_a_run_that_has_not_begun_has_nothing_to_do() -> None:
    definition = order().build(register=False)

    assert react(definition, RunState("A-1", "order")) == ()
    assert RunState("A-1", "order").step("reserve").status is StepStatus.NOT_STARTED
