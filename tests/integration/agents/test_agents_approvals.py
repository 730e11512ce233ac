"""Calls of tools that a person has to approve: nobody waits for them, and every attempt goes by the one decision."""

from __future__ import annotations

import pytest

from multiagents import Run
from multiagents.exceptions import WorkflowError
from multiagents.orchestrator.api.waiting import Waiting
from multiagents.testing import wait_until
from multiagents.testing.lm_stub import fields, react_agent
from tests.support.agents_kit import Agents
from tests.support.apps.agents import CODE, RESEARCH

SOON = 40.0


def asks_to(agents: Agents, *calls: tuple[str, int]) -> Run:
    """Start an agent that calls these tools with these amounts."""
    turns = [(tool, {"amount": amount}) for tool, amount in calls]
    agents.stub.when("Buy?").reply(react_agent(*turns, answer="Done.", sources=[]))
    return agents.orchestrator.start(RESEARCH, {"question": "Buy?"})


def waiting(run: Run, step: str = "research") -> Waiting:
    """What the step waits for, once it waits for a person."""

    def found() -> Waiting | None:
        return next((one for one in run.describe().steps[step].waiting_for if one.kind == "tool"), None)

    return wait_until(found, SOON, "the wait for approval")


def told(agents: Agents, text: str) -> bool:
    """Whether the model was told something in its last request."""
    return text in agents.stub.requests[-1].text


def test_a_call_that_is_approved_is_made_and_who_waits_uses_up_no_attempt(agents: Agents) -> None:
    run = asks_to(agents, ("pay", 5))
    wait = waiting(run)

    assert (wait.name, wait.arguments) == ("pay", {"amount": 5})
    assert [(each.kind, each.waiting.id) for each in agents.orchestrator.waiting()] == [("tool", wait.id)]
    assert agents.tools() == []
    assert run.approve(wait.id or "", actor="ann") == "received"
    assert run.approve(wait.id or "", actor="bob") == "already_decided"

    assert run.result(timeout=SOON)["answer"] == "Done."
    assert agents.tools() == ["pay 5"]
    assert agents.stub.count == 3
    step = run.describe().steps["research"]
    assert (step.attempts, step.waiting_for) == (1, ())
    said = [(event.status, event.actor) for event in run.history() if event.type == "status" and event.actor]
    assert said == [("call_decided", "ann")]


def test_a_rejection_is_text_to_the_model_which_goes_on(agents: Agents) -> None:
    run = asks_to(agents, ("pay", 5))

    assert run.reject(waiting(run).id or "", actor="ann", reason="too expensive") == "received"

    assert run.result(timeout=SOON)["answer"] == "Done."
    assert told(agents, "refused by ann: too expensive")
    assert agents.tools() == []


def test_a_call_may_be_approved_with_other_arguments_and_the_model_is_told(agents: Agents) -> None:
    run = asks_to(agents, ("pay", 500))

    run.approve(waiting(run).id or "", {"amount": 50}, actor="ann")

    assert run.result(timeout=SOON)["answer"] == "Done."
    assert agents.tools() == ["pay 50"]
    assert told(agents, "as ann wants it: paid 50")


def test_a_call_with_other_arguments_asks_anew(agents: Agents) -> None:
    run = asks_to(agents, ("pay", 5), ("pay", 6))
    first = waiting(run)
    run.approve(first.id or "")
    second = wait_until(lambda: (one := waiting(run)).id != first.id and one, SOON, "the second")

    assert second is not False
    assert second.arguments == {"amount": 6}
    run.approve(second.id or "")
    assert run.result(timeout=SOON)["answer"] == "Done."
    assert agents.tools() == ["pay 5", "pay 6"]


def test_only_what_the_predicate_says_is_asked_for_and_what_nobody_approves_in_time_is_rejected(agents: Agents) -> None:
    run = asks_to(agents, ("spend", 5), ("spend", 500))

    assert run.result(timeout=SOON)["answer"] == "Done."
    assert agents.tools() == ["spend 5"]
    assert told(agents, "refused: nobody approved it within 1 s")


def test_code_that_a_model_writes_waits_for_approval_too(agents: Agents) -> None:
    agents.stub.reply(
        fields(reasoning="Pay.", code="```python\nfound = pay(amount=3)\nprint(found)\n```"),
        fields(reasoning="Done.", code="```python\nSUBMIT(answer=len(found))\n```"),
    )
    run = agents.orchestrator.start(CODE, {"question": "How long?"})

    run.approve(waiting(run, "code").id or "")

    assert run.result(timeout=SOON)["answer"] == len("paid 3")
    assert agents.tools() == ["pay 3"]
    assert agents.stub.count == 2


def test_a_cancel_ends_what_waits_for_approval(agents: Agents) -> None:
    run = asks_to(agents, ("pay", 5))
    waiting(run)

    run.cancel()

    wait_until(lambda: run.status.is_end, SOON, "the end")
    assert agents.tools() == []
    assert agents.orchestrator.waiting() == []


def test_what_does_not_wait_for_approval_is_told_so(agents: Agents) -> None:
    run = asks_to(agents, ("pay", 5))
    call = waiting(run).id or ""

    with pytest.raises(WorkflowError, match="has no call 'research/77' that waits for approval"):
        run.approve("research/77")
    with pytest.raises(WorkflowError, match="step 'research' is no approval"):
        run.approve("research")
    run.reject(call)
    run.result(timeout=SOON)
