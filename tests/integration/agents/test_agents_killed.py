"""An agent whose worker is killed goes on at the call in which it was killed (rule S35)."""

from __future__ import annotations

import pytest

from multiagents.state_store.records import CallState
from multiagents.testing import wait_until
from multiagents.testing.lm_stub import react_agent
from tests.support.agents_kit import Agents
from tests.support.apps.agents import RESEARCH, RESEARCH_PARKED, researcher

SOON = 40.0
#: Three calls of tools, one to finish and one to answer.
CALLS = 5


def script(agents: Agents) -> None:
    agents.stub.when("Why?").reply(
        react_agent(
            ("look_up", {"word": "a"}),
            ("look_up_later", {"word": "b"}),
            ("fails", {"word": "c"}),
            answer="Because.",
            sources=["a", "b"],
        )
    )


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.full)])
@pytest.mark.parametrize("answered", [2, *(pytest.param(one, marks=pytest.mark.full) for one in (0, 1, 3, 4))])
def test_S35_an_agent_that_was_killed_in_a_call_of_its_model_repeats_no_other(
    own_agents: Agents, pool: str, answered: int
) -> None:
    agents = own_agents
    script(agents)
    victim = agents.worker(pool)
    agents.stub.hold(after=answered)
    run = agents.orchestrator.start(RESEARCH, {"question": "Why?"})
    agents.stub.wait_for(answered + 1, timeout=SOON)

    victim.kill()
    agents.stub.release()
    agents.worker(pool)

    assert run.result(timeout=SOON)["answer"] == "Because."
    assert agents.stub.count == CALLS + 1
    assert agents.tools() == ["look_up a", "look_up_later b", "fails c"]
    usage = run.describe().steps["research"].usage
    assert (usage.calls, usage.replayed) == (CALLS + 3, answered + min(answered, 3))
    assert usage.possibly_paid_twice == 1


@pytest.mark.parametrize("begun", [2, *(pytest.param(one, marks=pytest.mark.full) for one in (1, 3))])
def test_S35_an_agent_that_was_killed_in_a_tool_calls_that_one_again_under_its_key(
    own_agents: Agents, begun: int
) -> None:
    agents = own_agents
    script(agents)
    victim = agents.worker()
    agents.redis.set("hold-tools", begun)
    run = agents.orchestrator.start(RESEARCH, {"question": "Why?"})
    wait_until(lambda: len(agents.tools()) == begun, SOON, "the call")

    victim.kill()
    agents.redis.delete("hold-tools")
    agents.worker()

    assert run.result(timeout=SOON)["sources"] == ["a", "b"]
    assert agents.stub.count == CALLS
    words = ["look_up a", "look_up_later b", "fails c"]
    assert agents.tools() == [*words[:begun], *words[begun - 1 :]]
    keys = agents.keys()
    assert keys[begun - 1] == keys[begun]
    assert len(set(keys)) == len(words)


def test_S35_a_tool_that_must_not_be_called_twice_is_not_and_the_outcome_is_unknown(own_agents: Agents) -> None:
    agents = own_agents
    agents.stub.when("Why?").reply(react_agent(("once", {"word": "a"}), answer="Because.", sources=[]))
    victim = agents.worker()
    agents.redis.set("hold-tools", 1)
    run = agents.orchestrator.start(RESEARCH_PARKED, {"question": "Why?"})
    wait_until(lambda: agents.tools() == ["once a"], SOON, "the call")

    victim.kill()
    agents.redis.delete("hold-tools")
    agents.worker()
    wait_until(lambda: run.status == "paused", SOON, "the park")

    step = run.describe().steps["research"]
    assert step.status == "unknown"
    assert step.error is not None
    assert 'tool "once" was begun by an earlier attempt' in step.error.message
    run.supply("research", {"answer": "By hand.", "sources": []}, reason="it was done")
    assert run.result(timeout=SOON)["answer"] == "By hand."
    assert agents.tools() == ["once a"]


def test_S35_what_a_frozen_agent_is_answered_later_is_no_result(own_agents: Agents) -> None:
    agents = own_agents
    script(agents)
    frozen = agents.worker("solo")
    agents.stub.hold(after=2)
    run = agents.orchestrator.start(RESEARCH, {"question": "Why?"})
    agents.stub.wait_for(3, timeout=SOON)

    frozen.pause()
    agents.worker("solo")
    agents.stub.wait_for(4, timeout=SOON)
    agents.stub.release()
    assert run.result(timeout=SOON)["answer"] == "Because."
    frozen.resume()
    late = wait_until(lambda: [call for call in run.calls() if call.state is CallState.EVIDENCE], SOON, "the evidence")

    wait_until(lambda: [event for event in run.history() if event.late], SOON, "what it has to say in the end")
    assert [(call.step, call.attempt, call.kind) for call in late] == [("research", 1, "lm")]
    [example] = researcher.get_optimization_data(app=agents.app)["execution_history"]
    assert (example["status"], example["attempt"]) == ("succeeded", 2)
    assert agents.stub.count == CALLS + 1
    assert agents.tools() == ["look_up a", "look_up_later b", "fails c"]
