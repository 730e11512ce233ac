"""Agents with tools of both kinds, on every pool and in every mode."""

from __future__ import annotations

import pytest

from multiagents.state_store.records import CallState
from multiagents.testing import wait_until
from multiagents.testing.lm_stub import fields, react_agent
from tests.support.agents_kit import Agents
from tests.support.apps.agents import CODE, RESEARCH, THINK, TWICE

SOON = 60.0


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_agents_call_tools_of_both_kinds_in_every_mode(own_agents: Agents, pool: str) -> None:
    agents = own_agents
    agents.stub.when("Why?").reply(
        react_agent(("look_up", {"word": "a"}), ("look_up_later", {"word": "b"}), answer="So.", sources=["a"])
    )
    code = "```python\nSUBMIT(answer=len(look_up(word='k')) + look_up_later(word='z')['found'])\n```"
    agents.stub.when("How many?").reply(fields(reasoning="Look.", code=code))
    agents.stub.when("What?").reply(fields(reasoning="Think.", answer="That.", agreed=True))
    agents.worker(pool)

    runs = [
        agents.orchestrator.start(RESEARCH, {"question": "Why?"}),
        agents.orchestrator.start(CODE, {"question": "How many?"}),
        agents.orchestrator.start(THINK, {"question": "What?"}),
    ]

    why, many, what = [run.result(timeout=SOON) for run in runs]
    assert (why["answer"], many["doubled"], what["answer"]) == ("So.", 4, "That.")
    assert sorted(agents.tools()) == ["look_up a", "look_up k", "look_up_later b", "look_up_later z"]
    assert agents.stub.count == 6


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_S35_equal_calls_that_a_module_makes_at_once_are_calls_of_their_own(own_agents: Agents, pool: str) -> None:
    agents = own_agents
    agents.stub.when("Twice?").reply(fields(answer="once"), fields(answer="twice"))
    agents.worker(pool)

    run = agents.orchestrator.start(TWICE, {"question": "Twice?"})

    result = run.result(timeout=SOON)
    assert (result["answers"], result["number"]) == (["once", "twice"], 2)
    assert sorted(call.occurrence for call in run.calls("twice")) == [1, 2]


def test_S35_of_equal_calls_that_were_made_at_once_each_has_one_answer_after_a_kill(own_agents: Agents) -> None:
    agents = own_agents
    agents.stub.when("Twice?").reply(fields(answer="once"), fields(answer="twice"))
    victim = agents.worker("threads")
    agents.stub.hold(after=1)
    run = agents.orchestrator.start(TWICE, {"question": "Twice?"})
    agents.stub.wait_for(2, SOON)
    wait_until(lambda: any(call.state is CallState.ANSWERED for call in run.calls()), SOON, "the first answer")

    victim.kill()
    agents.stub.release()
    agents.worker("threads")

    assert run.result(timeout=SOON)["answers"] == ["once", "twice"]
    assert agents.stub.count == 3
    assert sorted(call.occurrence for call in run.calls("twice")) == [1, 2]
    usage = run.describe().steps["twice"].usage
    assert (usage.calls, usage.replayed, usage.possibly_paid_twice) == (2, 1, 1)
