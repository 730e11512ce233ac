"""What stops an agent, what it is told of that, and what diverges. (What strikes it where: test_agents_struck.py.)"""

from __future__ import annotations

import pytest

from multiagents.testing import wait_until
from multiagents.testing.lm_stub import fields, rate_limited, react, react_agent, react_finish, server_error
from tests.support.agents_kit import Agents
from tests.support.apps.agents import CODE, FALLS_BACK, PROMPTED, RESEARCH, RESEARCH_THEN_FAIL

SOON = 40.0


def test_S20_a_cancel_stops_an_agent_before_its_next_call(agents: Agents) -> None:
    agents.stub.when("Why?").reply(react_agent(("look_up", {"word": "a"}), ("look_up", {"word": "b"}), answer="So."))
    agents.redis.set("hold-tools", 1)
    run = agents.orchestrator.start(RESEARCH, {"question": "Why?"})
    wait_until(lambda: agents.tools() == ["look_up a"], SOON, "the call")

    run.cancel()
    agents.redis.delete("hold-tools")

    wait_until(lambda: run.status == "cancelled", SOON, "the end")
    assert agents.stub.count == 1
    error = run.describe().steps["research"].error
    assert error is not None
    assert "stopped before call 3: the run is cancelled" in error.message


@pytest.mark.parametrize("waits_for", ["a person", "its provider", "the end of a pause"])
def test_S20_an_agent_that_waits_when_its_run_is_cancelled_is_undone_if_it_has_called_a_tool(
    agents: Agents, waits_for: str
) -> None:
    called = react_agent(("look_up", {"word": "a"}), ("pay", {"amount": 5}), answer="So.", sources=[])
    turns = [called, rate_limited(retry_after=60) if waits_for == "its provider" else called]
    agents.stub.when("Why?").reply(*turns)
    if waits_for == "the end of a pause":
        agents.redis.set("hold-tools", 1)
    run = agents.orchestrator.start(RESEARCH_THEN_FAIL, {"question": "Why?"})
    if waits_for == "the end of a pause":
        wait_until(lambda: agents.tools() == ["look_up a"], SOON, "the call")
        run.pause()
        agents.redis.delete("hold-tools")
    wait_until(lambda: agents.tools() and run.describe().steps["research"].status != "running", SOON, "the wait")

    run.cancel()
    if waits_for == "the end of a pause":
        run.resume()

    wait_until(lambda: run.status == "cancelled", SOON, "the end")
    assert run.describe().steps["research"].compensation.status == "compensated"
    assert agents.tools() == ["look_up a"]


def test_S35_an_attempt_that_asks_something_else_is_said_to_diverge_and_may_be_parked(agents: Agents) -> None:
    agents.stub.answer_with(lambda _: fields(answer="So."))
    run = agents.orchestrator.start(PROMPTED, {"question": "Why?"})
    wait_until(lambda: run.status == "paused", SOON, "the park")

    error = run.describe().steps["it"].error
    assert error is not None
    assert "diverged at call 1" in error.message
    assert agents.stub.count == 1  # decided before it is paid
    agents.redis.set("steady", 1)
    run.retry("it", fresh=True)

    assert run.result(timeout=SOON)["answer"] == "So."
    assert agents.stub.count == 2


def test_a_model_that_does_not_answer_is_stood_in_for_by_the_next(agents: Agents) -> None:
    agents.stub.when("Why?", model="first").reply(server_error(500))
    agents.stub.when("Why?", model="second").reply(fields(answer="So."))

    run = agents.orchestrator.start(FALLS_BACK, {"question": "Why?"})

    assert run.result(timeout=SOON)["answer"] == "So."
    assert [request.model for request in agents.stub.requests] == ["first", "first", "second"]
    assert run.describe().steps["it"].usage.models == ("openai/first", "openai/second")


def test_a_tool_is_called_as_often_as_it_may_be_and_the_model_is_told(agents: Agents) -> None:
    turns = [react("Again.", "rarely", {"word": f"w{number}"}) for number in range(3)]
    agents.stub.reply(*turns, react_finish(), fields(reasoning="Done.", answer="So.", sources=[]))

    run = agents.orchestrator.start(RESEARCH, {"question": "Why?"})

    assert run.result(timeout=SOON)["answer"] == "So."
    assert agents.tools() == ["rarely w0", "rarely w1"]
    assert "it was called 2 times, and may not be again" in agents.stub.requests[-1].text


def test_the_key_of_a_model_is_kept_nowhere(agents: Agents) -> None:
    agents.stub.reply(fields(reasoning="Done.", code="```python\nSUBMIT(answer=1)\n```"))
    agents.orchestrator.start(CODE, {"question": "Why?"}).result(timeout=SOON)

    assert "no-secret" not in repr([_all_of(agents, name) for name in agents.redis.scan_iter()])
    assert agents.stub.requests[0].has_key


def _all_of(agents: Agents, name: str) -> object:
    match agents.redis.type(name):
        case "hash":
            return agents.redis.hgetall(name)
        case "list":
            return agents.redis.lrange(name, 0, -1)
        case "zset":
            return agents.redis.zrange(name, 0, -1)
        case _:
            return name
