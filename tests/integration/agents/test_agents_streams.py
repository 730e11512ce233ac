"""What an agent says while it says it: tokens and calls of tools, over the real wires of both providers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from multiagents.state_store.records import StreamEntry
from multiagents.testing.lm_stub import Reply, cut, fields, rate_limited, react, react_agent, react_finish, stream
from tests.support.agents_kit import Agents
from tests.support.apps.agents import TELL, TELL_GEMINI, TELL_RESEARCH, TELL_TWICE

SOON = 60.0
ANSWER = "Because the sky is blue, and the sea\nis its mirror."
OUTPUTS = {"reasoning": "I look up.", "answer": ANSWER}


def told(entries: Sequence[StreamEntry], field: str = "answer") -> str:
    """The text of an output field, as a reader shows it who forgets what is void."""
    text = ""
    for entry in entries:
        if entry.kind == "attempt":
            text = ""
        elif entry.kind == "token" and entry.field == field:
            text += entry.data
    return text


def kinds(entries: Sequence[StreamEntry]) -> list[str]:
    """The kinds in their order, each once for as often as it follows itself."""
    return [entry.kind for at, entry in enumerate(entries) if not at or entries[at - 1].kind != entry.kind]


def finals(entries: Sequence[StreamEntry]) -> list[Any]:
    return [entry.data for entry in entries if entry.kind == "final"]


def in_two(answer: Reply, seconds: float) -> Reply:
    """An answer of which the second half comes later, and its end later still."""
    half = len(answer.text) // 2
    return stream([answer.text[:half], answer.text[half:]], delay=seconds)


@pytest.mark.parametrize("workflow", [TELL, TELL_GEMINI], ids=["openai", "gemini"])
def test_tokens_come_while_the_model_still_speaks(agents: Agents, workflow: Any) -> None:
    agents.stub.reply(in_two(fields(**OUTPUTS), 1.0 if workflow is TELL else 4.0))
    run = agents.orchestrator.start(workflow, {"question": "Why?"})
    reader = run.stream()

    first = next(reader)
    assert (first.kind, first.field, first.step, first.attempt) == ("token", "reasoning", "it", 1)
    assert run.status == "running"

    entries = [first, *reader]
    assert kinds(entries) == ["token", "final"]
    assert (told(entries, "reasoning"), told(entries)) == (OUTPUTS["reasoning"], ANSWER)
    assert finals(entries) == [OUTPUTS]
    assert {entry.call for entry in entries if entry.kind == "token"} == {run.calls("it")[0].slot}
    assert [request.stream for request in agents.stub.requests] == [True]
    assert run.describe().steps["it"].usage.output_tokens > 0


@pytest.mark.parametrize("pool", ["threads", "gevent", pytest.param("solo", marks=pytest.mark.full)])
def test_an_agent_says_what_it_thinks_and_which_tools_it_calls_on_every_pool(own_agents: Agents, pool: str) -> None:
    agents = own_agents
    agents.worker(pool)
    calls = [("look_up", {"word": "a"}), ("fails", {"word": "b"}), ("look_up_later", {"word": "c"})]
    agents.stub.when("Why?").reply(react_agent(*calls, answer=ANSWER, sources=["a"]))

    run = agents.orchestrator.start(TELL_RESEARCH, {"question": "Why?"})
    entries = list(run.stream())

    assert [entry.data for entry in entries if entry.kind == "status"] == [
        {"tool": "look_up", "state": "started", "arguments": {"word": "a"}},
        {"tool": "look_up", "state": "answered"},
        {"tool": "fails", "state": "started", "arguments": {"word": "b"}},
        {"tool": "fails", "state": "failed"},
        {"tool": "look_up_later", "state": "started", "arguments": {"word": "c"}},
        {"tool": "look_up_later", "state": "answered"},
    ]
    by_slot = {call.slot: call.name for call in run.calls("it")}
    assert [by_slot[entry.call or ""] for entry in entries if entry.kind == "status"][::2] == [
        name for name, _ in calls
    ]
    assert kinds(entries)[:3] == ["token", "status", "token"]
    assert told(entries) == ANSWER
    assert finals(entries) == [{"answer": ANSWER, "sources": ["a"], "length": 1}]


def test_S35_an_agent_that_was_killed_while_it_spoke_begins_again_and_asks_once_more(own_agents: Agents) -> None:
    agents = own_agents
    answer = fields(reasoning="I look up.", answer=ANSWER, sources=[])
    thoughts = (react("I have to.", "look_up", {"word": "a"}), react_finish())
    agents.stub.when("Why?").reply(*thoughts, in_two(answer, 1.0), answer)
    victim = agents.worker()
    run = agents.orchestrator.start(TELL_RESEARCH, {"question": "Why?"})
    reader = run.stream()
    seen = []
    while not seen or seen[-1].field != "reasoning":
        seen.append(next(reader))

    victim.kill()
    agents.worker()

    entries = [*seen, *reader]
    [marker] = [at for at, entry in enumerate(entries) if entry.kind == "attempt"]
    assert (entries[marker].data, entries[marker].attempt) == (2, 2)
    assert told(entries) == ANSWER
    assert finals(entries) == [{"answer": ANSWER, "sources": [], "length": 0}]
    # What is replayed is not told again: no tool, and no thought of before it.
    assert {entry.field for entry in entries[marker:] if entry.kind != "attempt"} == {
        "reasoning",
        "answer",
        "sources",
        None,
    }
    assert kinds(entries[marker:]) == ["attempt", "token", "final"]
    assert agents.stub.count == 4
    assert agents.tools() == ["look_up a"]
    assert run.describe().steps["it"].usage.possibly_paid_twice == 1


def test_S35_what_is_replayed_comes_as_one_final_entry(agents: Agents) -> None:
    agents.stub.reply(fields(**OUTPUTS))

    entries = list(agents.orchestrator.start(TELL, {"question": "Why?", "crashes": 1}).stream())

    assert kinds(entries) == ["token", "attempt", "final"]
    assert entries[-1].attempt == 2
    assert finals(entries) == [OUTPUTS]
    assert agents.stub.count == 1


def test_an_answer_that_is_broken_off_is_taken_back_and_asked_for_again_within_the_attempt(agents: Agents) -> None:
    agents.stub.reply(rate_limited(retry_after=0), cut(fields(**OUTPUTS).text), fields(**OUTPUTS))

    run = agents.orchestrator.start(TELL, {"question": "Why?"})
    entries = list(run.stream())

    assert kinds(entries) == ["token", "attempt", "token", "final"]
    assert {entry.attempt for entry in entries} == {1}
    assert told(entries) == ANSWER
    assert agents.stub.count == 3
    assert run.describe().steps["it"].attempts == 1


def test_an_answer_that_cannot_be_used_is_taken_back_by_the_next_attempt(agents: Agents) -> None:
    agents.stub.reply("[[ ## reasoning ## ]]\nI am lost.", fields(**OUTPUTS))

    entries = list(agents.orchestrator.start(TELL, {"question": "Why?"}).stream())

    assert kinds(entries) == ["token", "attempt", "token", "final"]
    assert [entry.attempt for entry in entries][-1] == 2
    assert (told(entries, "reasoning"), told(entries)) == (OUTPUTS["reasoning"], ANSWER)


def test_calls_that_are_made_at_once_are_told_apart(agents: Agents) -> None:
    one, two = ("one " * 30).strip(), ("two " * 30).strip()
    agents.stub.when("Twice?").reply(*(replace(fields(answer=text), pause=0.02) for text in (one, two)))

    entries = list(agents.orchestrator.start(TELL_TWICE, {"question": "Twice?"}).stream())

    tokens = [entry for entry in entries if entry.kind == "token"]
    slots = {entry.call for entry in tokens}
    assert sorted(told([each for each in tokens if each.call == slot]) for slot in slots) == [one, two]
    assert finals(entries) == [{"answers": [one, two]}]


def test_a_thousand_tokens_are_few_commands(agents: Agents) -> None:
    answer = " ".join(f"word{number}" for number in range(1_000))
    agents.stub.reply(replace(fields(reasoning="So.", answer=answer), pause=0.001))
    before = agents.redis.info("commandstats").get("cmdstat_xadd", {"calls": 0})["calls"]

    entries = list(agents.orchestrator.start(TELL, {"question": "Why?"}).stream())

    written = agents.redis.info("commandstats")["cmdstat_xadd"]["calls"] - before
    print(f"{written} entries for 1,000 tokens")
    assert told(entries) == answer
    assert written <= 300
