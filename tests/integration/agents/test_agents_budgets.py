"""What agents may spend: it is set aside before a call and settled after it, and what is not there is not spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from multiagents import Budget, Run, WorkflowBuilder, WorkflowFailedError, dspy_worker, init_app, tool
from multiagents.state_store.records import Amount, Balance, CallState
from multiagents.testing import wait_until
from multiagents.testing.lm_stub import LMStub, fields, react, server_error, text
from multiagents.worker_sdk.registry import workers
from tests.support.agents_kit import Agents
from tests.support.apps import spenders
from tests.support.apps.spenders import FALLS_BACK, MODES, ONE, THRIFTY, TWO

SOON = 60.0
#: What each call of these tests costs, and what the budget of a tenant is, in millionths of a dollar.
COST, LIMIT = 2_000, 30_000
#: The longest answer there may be costs so much.
LONGEST = 10_000
DAYS = Budget("days", tokens=20_000, per="day")
DAILY = (
    WorkflowBuilder("daily")
    .add_step("it", dspy_worker("daily", "question -> answer", max_tokens=100, budget=DAYS)(lambda answer: None))
    .build()
)


INNER = Budget("inner", tokens=20_000)
dspy_worker("inner", "question -> answer", max_tokens=100, budget=INNER)(lambda answer: None)


@tool("ask_inner", idempotent=True)
def ask_inner(question: str) -> str:
    """Ask another agent."""
    return str(workers["inner"].fn({"question": question})["answer"])


NESTED = (
    WorkflowBuilder("nested")
    .add_step(
        "it", dspy_worker("nested", "question -> answer", reasoning="react", tools=[ask_inner])(lambda answer: None)
    )
    .build()
)


def answer(tokens: int = 1_000) -> Any:
    return fields(answer="So.").with_usage(input_tokens=tokens, output_tokens=COST // 10 - 100)


@pytest.fixture(scope="module")
def warm(new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    with (
        LMStub() as stub,
        Agents(new_redis_url(), tmp_path_factory.mktemp("spenders"), stub, spenders.__name__) as made,
    ):
        made.worker("threads", concurrency=10)
        yield made


@pytest.fixture
def agents(warm: Agents) -> Iterator[Agents]:
    warm.stub.reset()
    warm.redis.delete("crashed")
    warm.stub.answer_with(lambda _: answer())
    yield warm
    warm.show()


@pytest.fixture
def own(redis_url: str, tmp_path: Path, lm_stub: LMStub) -> Iterator[Agents]:
    with Agents(redis_url, tmp_path, lm_stub, spenders.__name__) as made:
        lm_stub.answer_with(lambda _: answer())
        yield made
        made.show()


def ends(*runs: Run) -> list[str]:
    wait_until(lambda: all(run.status in ("completed", "failed", "compensated") for run in runs), SOON, "the ends")
    return [run.status for run in runs]


def waits_of(run: Run) -> list[tuple[str, str]]:
    return [(each.kind, each.name) for each in run.describe().steps["it"].waiting_for]


def test_twenty_agents_at_once_never_spend_more_than_their_budget(agents: Agents) -> None:
    runs = [agents.orchestrator.start(THRIFTY, {"question": "Why?", "tenant": "many"}) for _ in range(20)]

    states = ends(*runs)

    afforded = states.count("completed")
    balance = agents.orchestrator.budget("tenant:many")
    assert balance == Balance(Amount(afforded * COST, afforded * 1_100))
    assert agents.stub.count == afforded
    # As many as there was money for: those who found it set aside for others waited, and were not refused.
    assert afforded * COST + LONGEST < LIMIT + COST
    assert afforded * COST + LONGEST + COST + 2_000 > LIMIT
    refused = [run.describe().steps["it"] for run in runs if run.status != "completed"]
    errors = {step.error.type.rpartition(".")[2] for step in refused if step.error is not None}
    assert errors == {"BudgetExceededError"}
    told = refused[0].error
    assert told is not None
    assert 'budget "tenant:many" of $0.03 per day: $' in told.message
    assert told.details["spent"]["usd"] == balance.spent.usd
    assert {step.attempts for step in refused} == {1}


def test_S37_who_finds_a_budget_set_aside_for_others_waits_without_a_worker(agents: Agents) -> None:
    agents.stub.hold()
    first = [agents.orchestrator.start(THRIFTY, {"question": "Why?", "tenant": "busy"}) for _ in range(2)]
    agents.stub.wait_for(2, timeout=SOON)

    last = agents.orchestrator.start(THRIFTY, {"question": "Why?", "tenant": "busy"})

    wait_until(lambda: waits_of(last) == [("limit", "tenant:busy")], SOON, "the wait")
    agents.stub.release()
    assert ends(*first, last) == ["completed"] * 3
    step = last.describe().steps["it"]
    assert (step.attempts, step.usage.calls, step.usage.possibly_paid_twice) == (1, 1, 0)
    assert agents.orchestrator.budget("tenant:busy") == Balance(Amount(3 * COST, 3 * 1_100))


def test_what_is_replayed_is_not_paid_again(agents: Agents) -> None:
    run = agents.orchestrator.start(THRIFTY, {"question": "Why?", "tenant": "replayed", "crashes": 1})

    assert ends(run) == ["completed"]

    assert agents.orchestrator.budget("tenant:replayed") == Balance(Amount(COST, 1_100))
    usage = run.describe().steps["it"].usage
    assert (usage.calls, usage.replayed, usage.usd) == (1, 1, COST / 1_000_000)
    told = [event.usage for event in run.history() if event.type in ("error", "result") and event.step == "it"]
    assert [(used["calls"], used["replayed"], used["usd"]) for used in told] == [(1, 0, 0.002), (1, 1, 0.002)]


def test_a_call_whose_worker_was_killed_counts_as_paid_and_so_does_the_one_in_its_place(own: Agents) -> None:
    victim = own.worker()
    own.stub.hold()
    run = own.orchestrator.start(THRIFTY, {"question": "Why?", "tenant": "killed"})
    own.stub.wait_for(1, timeout=SOON)
    bound = own.orchestrator.budget("tenant:killed").reserved

    victim.kill()
    own.stub.release()
    own.worker()

    assert ends(run) == ["completed"]
    assert LONGEST < bound.micro_usd < LONGEST + 2_000
    assert own.orchestrator.budget("tenant:killed") == Balance(bound.plus(Amount(COST, 1_100)))
    assert run.describe().steps["it"].usage.possibly_paid_twice == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_budget_reaches_through_every_way_of_reasoning(agents: Agents, mode: str) -> None:
    tokens = {"input_tokens": 25_000 if mode in ("predict", "chain_of_thought") else 1, "output_tokens": 1}
    agents.stub.reply(fields(answer="So.").with_usage(**tokens))
    used_up = {"input_tokens": 25_000, "output_tokens": 1}
    if mode == "react":
        agents.stub.reply(text(react("Look.", "look_up", {"word": "a"}).text).with_usage(**used_up))
    elif mode == "codeact":
        code = "```python\nprint(look_up(word='a'))\n```"
        agents.stub.reply(fields(reasoning="Look.", code=code).with_usage(**used_up))
    elif mode == "program_of_thought":
        agents.stub.reply(fields(reasoning="Think.", code="```python\nprint(1)\n```").with_usage(**used_up))

    run = agents.orchestrator.start(TWO[mode], {"question": "Why?"})

    with pytest.raises(WorkflowFailedError, match=r'budget "of the run" of 20,000 tokens per run: 25,00\d tokens'):
        run.result(timeout=SOON)
    assert agents.stub.count == (1 if mode in ("predict", "chain_of_thought") else 2)
    step = run.describe().steps["it"]
    assert (step.attempts, step.status) == (1, "failed")
    assert [call.state for call in run.calls("it")][-1:] == [CallState.WITHHELD]


def test_where_money_is_limited_an_unknown_price_is_refused_and_where_tokens_are_it_is_not(agents: Agents) -> None:
    refused = agents.orchestrator.start(ONE["unpriced"], {"question": "Why?"})
    counted = agents.orchestrator.start(ONE["counted"], {"question": "Why?"})

    with pytest.raises(WorkflowFailedError, match="nobody knows the price of openai/nobody-knows; nothing was asked"):
        refused.result(timeout=SOON)
    assert counted.result(timeout=SOON)["answer"] == "So."
    assert agents.stub.count == 1
    assert refused.describe().steps["it"].attempts == 1


def test_each_day_has_a_budget_of_its_own(lm_stub: LMStub) -> None:
    lm_stub.answer_with(lambda _: answer(25_000))
    app = Celery("days", set_as_current=False)
    app.conf.task_always_eager = True
    app.conf.multiagents_lm = {"model": "openai/x", "api_base": lm_stub.openai_base, "api_key": "x"}
    orchestrator = init_app(app)

    ends = [orchestrator.start(DAILY, {"question": "Why?"}).status for _ in range(2)]
    tables, began = orchestrator.store._tables, time.time()  # type: ignore[attr-defined]
    tables.clock = lambda: time.time() + 86_400
    ends.append(orchestrator.start(DAILY, {"question": "Why?"}).status)

    assert ends == ["completed", "failed", "completed"]
    yesterday = orchestrator.budget("days", at=datetime.fromtimestamp(began, UTC))
    assert yesterday.spent == orchestrator.budget("days").spent == Amount(0, 25_100)


def test_an_agent_that_another_one_calls_keeps_to_its_own_budget(lm_stub: LMStub) -> None:
    lm_stub.reply(react("Ask.", "ask_inner", {"question": "Why?"}), answer(25_000))
    lm_stub.reply(react("Again.", "ask_inner", {"question": "Why not?"}))
    app = Celery("nested", set_as_current=False)
    app.conf.task_always_eager = True
    app.conf.multiagents_lm = {"model": "openai/x", "api_base": lm_stub.openai_base, "api_key": "x"}
    orchestrator = init_app(app)

    run = orchestrator.start(NESTED, {"question": "Why?"})

    assert run.status == "failed"
    error = run.describe().steps["it"].error
    assert error is not None
    assert 'budget "inner" of 20,000 tokens per run: 25,' in error.message
    assert lm_stub.count == 3


def test_a_key_that_cannot_be_filled_is_refused_before_anything_is_asked(agents: Agents) -> None:
    run = agents.orchestrator.start(THRIFTY, {"question": "Why?"})

    with pytest.raises(WorkflowFailedError, match='takes "tenant" from the context, which does not have it'):
        run.result(timeout=SOON)
    assert agents.stub.count == 0


def test_a_model_that_is_down_costs_nothing_and_the_one_in_its_place_what_it_costs(agents: Agents) -> None:
    agents.stub.when("Why?", model="stub-down").reply(server_error(500))

    run = agents.orchestrator.start(FALLS_BACK, {"question": "Why?"})

    assert ends(run) == ["completed"]
    assert agents.stub.count == 4
    assert run.describe().steps["it"].usage.usd == COST / 1_000_000
