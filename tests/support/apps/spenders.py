"""The app under test for what agents may spend; its models are the stub whose address is in the environment."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import dspy
import redis
from celery import Celery

from multiagents import Budget, Limit, RetryPolicy, WorkflowBuilder, dspy_worker, init_app, tool
from multiagents.address import Address
from multiagents.redis import pool_of
from tests.support.apps.agents import API_BASE

#: Dollars for a million tokens.
PRICES = {"openai/stub-*": {"input": 1.0, "output": 10.0}}
LIMITS = {
    "openai/metered-*": {"tokens_per_minute": 120_000},
    "openai/narrow-*": {"concurrency": 2},
    "openai/single-*": {"concurrency": 1, "requests_per_minute": 6_000},
}
SETTINGS = {"lease": 2.0, "sweep_interval": 0.3, "schedule_to_start": 10.0}
BASE = os.environ.get(API_BASE, "")
SOON = RetryPolicy(max_attempts=3, initial_interval=0.05, jitter=False)


def model(name: str) -> dict[str, Any]:
    return {"model": f"openai/{name}", "api_base": BASE, "api_key": "no-secret"}


def make_app(broker: str | None, **settings: Any) -> Celery:
    made = Celery("spenders", broker=broker, set_as_current=False)
    made.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
    init_app(made, {**SETTINGS, "lm_prices": PRICES, "lm_limits": LIMITS, **settings})
    return made


app = make_app(os.environ.get("CELERY_BROKER_URL"))
#: What a call may cost at most is a few thousandths of a dollar for the question, and 0.01 for the answer.
ASK: dict[str, Any] = {"signature": "question -> answer", "max_tokens": 1_000, "retry": SOON, "lm_retry": SOON}


@dspy_worker("thrifty", budget=Budget("tenant:{tenant}", usd=0.03, per="day"), model=model("stub-1"), **ASK)
def thrifty(context: dict[str, Any]) -> None:
    client = redis.Redis.from_pool(pool_of(Address.parse(os.environ["MULTIAGENTS_REDIS_URL"]), decode_responses=True))
    if context.get("crashes") and client.incr("crashed") <= context["crashes"]:
        raise RuntimeError("after the answer")


@dspy_worker("unpriced", budget=Budget("all", usd=1), model=model("nobody-knows"), **ASK)
def unpriced(answer: str) -> None:
    assert answer


@dspy_worker("counted", budget=Budget("all", tokens=10_000), model=model("nobody-knows"), **ASK)
def counted(answer: str) -> None:
    assert answer


@dspy_worker("falls_back", budget=Budget("all", usd=1), model=[model("stub-down"), model("stub-up")], **ASK)
def falls_back(answer: str) -> None:
    assert answer


LIMITED = {
    name: WorkflowBuilder(f"limited-{name}")
    .add_step("it", dspy_worker(f"limited_{name}", model=model(f"{name}-1"), **ASK)(lambda answer: None))
    .build()
    for name in ("metered", "narrow", "single")
}


class Twice(dspy.Module):
    """Asks two things at once."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        answers = await asyncio.gather(
            self.ask.acall(question=question), self.ask.acall(question=f"{question} Really?")
        )
        return dspy.Prediction(answer=" ".join(each.answer for each in answers))


#: So much is there for one call at a time.
ONE_AT_A_TIME = Budget("of the run", usd=0.016)
AT_ONCE = {
    name: WorkflowBuilder(f"at-once-{name}")
    .add_step("it", dspy_worker(f"at_once_{name}", module=Twice, max_tokens=1_000, **about)(lambda answer: None))
    .build()
    for name, about in {
        "limit": {"model": model("single-1")},
        "budget": {"model": model("stub-1"), "budget": ONE_AT_A_TIME},
    }.items()
}


@tool("call_bank", limit=Limit("bank:{account}", rate=1, per=4))
def call_bank(account: str) -> str:
    """Call the bank."""
    return f"{account} is fine"


@dspy_worker("banker", "question -> answer", reasoning="react", tools=[call_bank], model=model("stub-1"), retry=SOON)
def banker(answer: str) -> None:
    assert answer


BANK = WorkflowBuilder("bank").add_step("it", "banker").build()


@tool("look_up", idempotent=True)
def look_up(word: str) -> str:
    """Look a word up."""
    return f"about {word}"


#: Of this budget, the first answer of a test uses up all.
SMALL = Budget("of the run", tokens=20_000, per="run")
MODES = ("predict", "chain_of_thought", "react", "program_of_thought", "codeact")
BY_MODE = {
    mode: dspy_worker(
        f"by_{mode}",
        reasoning=mode,
        tools=[look_up] if mode in ("react", "codeact") else [],
        budget=SMALL,
        model=model("stub-1"),
        **ASK,
    )(lambda answer: None)
    for mode in MODES
}

THRIFTY = WorkflowBuilder("thrifty").add_step("it", "thrifty").build()
ONE = {name: WorkflowBuilder(f"one-{name}").add_step("it", name).build() for name in ("unpriced", "counted")}
FALLS_BACK = WorkflowBuilder("spend-falls-back").add_step("it", "falls_back").build()
TWO = {
    mode: WorkflowBuilder(f"two-{mode}").add_step("first", "by_predict").add_step("it", f"by_{mode}").build()
    for mode in MODES
}
