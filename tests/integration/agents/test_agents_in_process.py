"""Agents in one process, with ``task_always_eager``: nobody waits, and what waits for a person stands still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from multiagents import Orchestrator, WorkflowBuilder, dspy_worker, init_app, tool, worker
from multiagents.testing.lm_stub import LMStub, fields, react_agent, server_error
from multiagents.worker_sdk.attempt.asked import GivenBack

pytest.importorskip("dspy")

paid: list[int] = []
tried: list[int] = []


@tool("pay_in_process", approval=True)
def pay(amount: int) -> str:
    """Pay."""
    paid.append(amount)
    return "paid"


@dspy_worker("payer_in_process", signature="question -> answer", tools=[pay], reasoning="react")
def payer(context: dict[str, Any]) -> None:
    pass


@dspy_worker("asker_in_process", signature="question -> answer")
def asker(context: dict[str, Any]) -> None:
    pass


@worker("never_in_process")
def never(context: dict[str, Any]) -> None:
    tried.append(1)
    raise GivenBack("not now")


FLOW = WorkflowBuilder("pay-in-process").add_step("pay", payer).build()
ASK = WorkflowBuilder("ask-in-process").add_step("ask", asker).build()
NEVER = WorkflowBuilder("never-in-process").add_step("it", never).build()


@pytest.fixture
def orchestrator(lm_stub: LMStub) -> Orchestrator:
    paid.clear()
    lm_stub.when("May it?").reply(react_agent(("pay_in_process", {"amount": 7}), answer="So it is."))
    app = Celery("in-process", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.task_always_eager = True
    app.conf.multiagents_lm = {"model": "openai/gpt-x", "api_base": lm_stub.openai_base, "api_key": "x"}
    return init_app(app)


@pytest.mark.parametrize(
    ("decide", "called"),
    [
        (lambda run, call: run.approve(call, actor="ann"), [7]),
        (lambda run, call: run.approve(call, {"amount": 5}, actor="ann"), [5]),
        (lambda run, call: run.reject(call, actor="ann"), []),
    ],
    ids=["approved", "with other arguments", "rejected"],
)
def test_S37_in_process_an_agent_waits_for_a_person_and_goes_on_as_soon_as_one_decides(
    orchestrator: Orchestrator, lm_stub: LMStub, decide: Callable[[Any, str], Any], called: list[int]
) -> None:
    run = orchestrator.start(FLOW, {"question": "May it?"})
    (wait,) = run.describe().steps["pay"].waiting_for
    assert (run.status, wait.kind, wait.name, wait.arguments) == ("running", "tool", "pay_in_process", {"amount": 7})

    assert decide(run, wait.id) == "received"

    assert run.result()["answer"] == "So it is."
    assert paid == called
    assert len(lm_stub.requests) == 3, "what was answered before the decision was asked again"
    assert run.describe().steps["pay"].attempts == 1


def test_in_process_the_wait_for_a_provider_that_is_down_takes_no_time(
    orchestrator: Orchestrator, lm_stub: LMStub
) -> None:
    lm_stub.reply(server_error(503, retry_after=3600), fields(answer="Here I am."))

    run = orchestrator.start(ASK, {"question": "Are you there?"})

    assert run.result()["answer"] == "Here I am."


def test_in_process_a_provider_that_stays_down_fails_the_step_as_its_retries_say(
    orchestrator: Orchestrator, lm_stub: LMStub
) -> None:
    lm_stub.when("Are you there?").reply(server_error(503, retry_after=3600))

    run = orchestrator.start(ASK, {"question": "Are you there?"})

    assert run.describe().steps["ask"].error.type == "multiagents.exceptions.LMUnavailableError"
    assert len(lm_stub.requests) == 5


def test_in_process_what_is_given_back_for_ever_does_not_hold_up_the_run(orchestrator: Orchestrator) -> None:
    tried.clear()

    run = orchestrator.start(NEVER, {})

    assert run.status == "failed"
    assert "was given back 20 times" in run.describe().steps["it"].error.message
    assert len(tried) == 100, "five attempts are lost so, and no more"
