"""Whose outcome is it? What a foreign producer publishes, with and without the nonce of its command (rule S32)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from multiagents import Orchestrator, ResultEvent, WorkflowBuilder
from multiagents.events import CommandEvent
from multiagents.names import Direction
from tests.support.letters import letter_about

CHARGE = WorkflowBuilder("foreign-charge").add_step("charge", "charge").add_wait("go").build(register=False)
ASK = WorkflowBuilder("foreign-ask").add_step("charge", external=True).add_wait("go").build(register=False)
ATTEMPT = "order-1/charge/do/1"


def say(orchestrator: Orchestrator, nonce: str | None = None) -> None:
    orchestrator.engine.receive(
        ResultEvent(transaction_id="order-1", correlation_id=ATTEMPT, payload={"charged": 10}, nonce=nonce)
    )


def claim(orchestrator: Orchestrator) -> None:
    state = orchestrator.store.load("order-1").state
    attempt = state.correlation("charge", Direction.DO, 1)
    orchestrator.store.claim(attempt, state.definition_hash, owner="worker", worker="w@here", timeout=None)


def nonce_of_the_command(orchestrator: Orchestrator) -> str:
    [command] = [event for event in orchestrator.store.history("order-1") if isinstance(event, CommandEvent)][:1]
    assert command.nonce
    return command.nonce


@pytest.mark.parametrize("workflow", [CHARGE, ASK], ids=["a worker's", "done elsewhere"])
def test_S32_an_outcome_without_a_nonce_counts_for_an_attempt_that_nobody_has_claimed(
    orchestrator: Orchestrator, workflow: object
) -> None:
    run = orchestrator.start(workflow, {}, "order-1")

    say(orchestrator)

    assert run.describe().steps["charge"].result == {"charged": 10}


def test_S32_an_outcome_without_a_nonce_does_not_answer_for_a_worker_that_holds_the_attempt(
    orchestrator: Orchestrator,
) -> None:
    run = orchestrator.start(CHARGE, {}, "order-1")
    claim(orchestrator)

    say(orchestrator)

    assert run.describe().steps["charge"].status == "running"
    letter = letter_about(orchestrator, ATTEMPT)
    assert "a worker (w@here) holds this attempt" in letter.why
    assert "send back the nonce that came with the command" in letter.why
    assert letter["event"]["payload"] == {"charged": 10}


def test_S32_an_outcome_with_the_nonce_of_its_command_counts_whoever_holds_the_attempt(
    orchestrator: Orchestrator,
) -> None:
    run = orchestrator.start(CHARGE, {}, "order-1")
    claim(orchestrator)

    say(orchestrator, nonce_of_the_command(orchestrator))

    assert run.describe().steps["charge"].result == {"charged": 10}


@pytest.mark.parametrize("workflow", [CHARGE, ASK], ids=["a worker's", "done elsewhere"])
def test_S32_an_outcome_of_an_earlier_run_is_a_dead_letter(
    orchestrator: Orchestrator, end_run: Callable[..., None], workflow: object
) -> None:
    orchestrator.start(workflow, {}, "order-1")
    earlier = nonce_of_the_command(orchestrator)
    end_run("order-1", "terminated")
    orchestrator.get("order-1").delete(reason="a mistake")
    run = orchestrator.start(workflow, {}, "order-1")
    before = len(run.history())

    say(orchestrator, earlier)

    assert (run.describe().steps["charge"].result, len(run.history())) == (None, before)
    assert letter_about(orchestrator, ATTEMPT).why == "the run has been replaced by a new one since"
