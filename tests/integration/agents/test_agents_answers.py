"""What a model answers, and what becomes of an answer that cannot be used (rule S35)."""

from __future__ import annotations

import pytest

from multiagents import WorkflowFailedError
from multiagents.testing.lm_stub import (
    Reply,
    Scripted,
    context_overflow,
    empty,
    fields,
    rate_limited,
    react_agent,
    server_error,
    truncated,
    unauthorized,
)
from tests.support.agents_kit import Agents
from tests.support.apps.agents import CLASSIFY, CODE, EACH, RESEARCH

SOON = 40.0
WELL = fields(mood="good", confidence=0.5, person={"name": "Ann", "age": 7})


def test_a_typed_answer_is_typed_for_the_function_and_json_in_the_result(agents: Agents) -> None:
    agents.stub.reply(WELL)

    run = agents.orchestrator.start(CLASSIFY, {"text": "Fine."})

    result = run.result(timeout=SOON)
    assert (result["mood"], result["confidence"], result["person"]) == ("good", 0.5, {"name": "Ann", "age": 7})
    usage = run.describe().steps["classify"].usage
    assert usage.calls == 1
    assert usage.input_tokens > 0
    assert usage.models == ("openai/gpt-stub",)


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ("no fields at all", "LMAnswerError"),
        (truncated("[[ ## mood ## ]]\ngood"), "LMTruncatedError"),
        (empty(), "NoAnswerError"),
        (fields(mood="grey", confidence=1.0, person={"name": "Ann", "age": 7}), "LMAnswerError"),
    ],
)
def test_S35_an_answer_that_cannot_be_used_is_asked_for_anew(agents: Agents, first: Scripted, why: str) -> None:
    agents.stub.reply(first, WELL)

    run = agents.orchestrator.start(CLASSIFY, {"text": "Fine."})

    assert run.result(timeout=SOON)["mood"] == "good"
    assert agents.stub.count == 2
    errors = [event.error.type for event in run.history() if event.type == "error"]
    assert [error.rpartition(".")[2] for error in errors] == [why]
    assert [call.state.name for call in run.calls("classify")] == ["REFUSED", "ANSWERED"]


@pytest.mark.parametrize("trouble", [rate_limited(retry_after=0), server_error(503)])
def test_a_provider_that_is_busy_is_asked_again_within_the_attempt(agents: Agents, trouble: Reply) -> None:
    agents.stub.reply(trouble, trouble, WELL)

    run = agents.orchestrator.start(CLASSIFY, {"text": "Fine."})

    assert run.result(timeout=SOON)["mood"] == "good"
    assert agents.stub.count == 3
    assert run.describe().steps["classify"].attempts == 1


def test_a_provider_that_stays_away_fails_the_step_after_lm_retry_and_not_again(
    agents: Agents,
) -> None:
    agents.stub.answer_with(lambda _: server_error(500))

    run = agents.orchestrator.start(CLASSIFY, {"text": "Fine."})

    with pytest.raises(WorkflowFailedError, match=r"LMUnavailableError.*asked 3 times and does not answer"):
        run.result(timeout=SOON)
    assert agents.stub.count == 3


def test_a_provider_that_asks_for_a_longer_wait_has_the_worker_freed(agents: Agents) -> None:
    agents.stub.reply(rate_limited(retry_after=3), WELL)

    run = agents.orchestrator.start(CLASSIFY, {"text": "Fine."})
    agents.stub.wait_for(1, SOON)

    assert run.result(timeout=SOON)["mood"] == "good"
    assert agents.stub.requests[1].at - agents.stub.requests[0].at > 2.5
    assert run.describe().steps["classify"].attempts == 1


@pytest.mark.parametrize(
    ("trouble", "why"), [(unauthorized(), "LMNotConfiguredError"), (context_overflow(), "ContextOverflowError")]
)
def test_what_would_be_the_same_again_is_not_tried_again(agents: Agents, trouble: Reply, why: str) -> None:
    agents.stub.answer_with(lambda _: trouble)

    run = agents.orchestrator.start(CLASSIFY, {"text": "Fine."})

    with pytest.raises(WorkflowFailedError, match=why):
        run.result(timeout=SOON)
    assert agents.stub.count == 1


def test_S35_a_function_that_fails_after_the_answer_costs_no_second_call(agents: Agents) -> None:
    agents.stub.when("Why?").reply(react_agent(("look_up", {"word": "a"}), answer="So.", sources=["a"]))

    run = agents.orchestrator.start(RESEARCH, {"question": "Why?", "crashes": 2})

    assert run.result(timeout=SOON)["length"] == 1
    assert agents.stub.count == 3
    assert agents.tools() == ["look_up a"]
    usage = run.describe().steps["research"].usage
    assert (usage.calls, usage.replayed) == (4, 8)


def test_a_missing_input_asks_nothing(agents: Agents) -> None:

    run = agents.orchestrator.start(CLASSIFY, {"words": "Fine."})

    with pytest.raises(WorkflowFailedError, match=r"asked nothing.*text: the context has no such key"):
        run.result(timeout=SOON)
    assert agents.stub.count == 0


def test_an_agent_in_a_map_answers_for_each_item(agents: Agents) -> None:
    for number in range(10):
        agents.stub.when(f"Why {number}?").reply(
            react_agent(("look_up", {"word": f"w{number}"}), answer=f"A{number}", sources=[])
        )

    run = agents.orchestrator.start(EACH, {"questions": [{"question": f"Why {number}?"} for number in range(10)]})

    run.result(timeout=SOON)
    results = agents.orchestrator.store.results(run.transaction_id)
    assert [results[f"each[{number}]"]["answer"] for number in range(10)] == [f"A{number}" for number in range(10)]
    assert agents.stub.count == 30


def test_code_that_a_model_writes_calls_tools_in_its_sandbox(agents: Agents) -> None:
    agents.stub.reply(
        fields(reasoning="Look.", code="```python\nfound = look_up(word='k')\nprint(found)\n```"),
        fields(reasoning="Count.", code="```python\nSUBMIT(answer=len(found) + look_up_later(word='z')['found'])\n```"),
    )

    run = agents.orchestrator.start(CODE, {"question": "How many?"})

    assert run.result(timeout=SOON)["doubled"] == 4
    assert agents.tools() == ["look_up k", "look_up_later z"]
