"""The app under test for agents: its model is the stub whose address is in the environment."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Literal

import dspy
import redis
from celery import Celery
from pydantic import BaseModel

from multiagents import (
    NeedsAttentionError,
    RetryPolicy,
    WorkflowBuilder,
    current_step,
    current_tool,
    dspy_worker,
    init_app,
    mcp_tools,
    tool,
    worker,
)
from multiagents.address import Address
from multiagents.redis import pool_of

#: Where the stub speaks OpenAI's wire.
API_BASE = "AGENTS_API_BASE"
SETTINGS = {"lease": 2.0, "sweep_interval": 0.3, "schedule_to_start": 10.0}

# As the guide has it: a module of the user's own says which LM.
if base := os.environ.get(API_BASE):
    dspy.configure(lm=dspy.LM("openai/gpt-stub", api_base=base, api_key="no-secret", num_retries=3))


def make_app(broker: str | None, **settings: Any) -> Celery:
    made = Celery("agents", broker=broker, set_as_current=False)
    made.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
    init_app(made, {**SETTINGS, **settings})
    return made


app = make_app(os.environ.get("CELERY_BROKER_URL"))


def _client() -> redis.Redis:
    url = os.environ.get("MULTIAGENTS_REDIS_URL") or app.conf.broker_url
    return redis.Redis.from_pool(pool_of(Address.parse(url), decode_responses=True, socket_timeout=40))


def _note(call: str) -> None:
    client = _client()
    client.rpush("tools", f"{call}|{current_tool().idempotency_key}")
    while client.exists("hold-tools") and client.llen("tools") == int(client.get("hold-tools") or 0):
        time.sleep(0.02)
    client.close()


@tool("look_up")
def look_up(word: str) -> list[str]:
    """Look a word up."""
    _note(f"look_up {word}")
    return [f"about {word}"]


@tool("look_up_later")
async def look_up_later(word: str) -> dict[str, Any]:
    """Look a word up, some time."""
    await asyncio.to_thread(_note, f"look_up_later {word}")
    return {"word": word, "found": 1}


@tool("fails")
def fails(word: str) -> str:
    """Fail."""
    _note(f"fails {word}")
    raise LookupError(f"no {word}")


@tool("once", idempotent=False)
def once(word: str) -> str:
    """Do what must not be done twice."""
    _note(f"once {word}")
    return "done"


@tool("rarely", max_calls=2)
def rarely(word: str) -> str:
    """Do what is rarely done."""
    _note(f"rarely {word}")
    return "done"


@tool("pay", approval=True)
def pay(amount: int) -> str:
    """Pay."""
    _note(f"pay {amount}")
    return f"paid {amount}"


@tool("spend", approval=lambda amount: amount > 100, approval_timeout=1.0)
def spend(amount: int) -> str:
    """Spend."""
    _note(f"spend {amount}")
    return f"spent {amount}"


@worker("cancel_booking")
def cancel_booking(context: dict[str, Any]) -> None:
    """Undo a booking, and note what it was told of it."""
    step, client = current_step(), _client()
    told = {"step": step.step, "context": context, "key": step.idempotency_key, "outcome": step.outcome}
    client.rpush("undone", json.dumps({**told, "result": step.result}))
    client.close()


@tool("flight", compensation=cancel_booking)
def flight(city: str) -> dict[str, str]:
    """Book a flight."""
    _note(f"flight {city}")
    return {"booking": f"flight to {city}"}


@tool("hotel", compensation="cancel_booking")
async def hotel(city: str) -> dict[str, str]:
    """Book a hotel."""
    await asyncio.to_thread(_note, f"hotel {city}")
    return {"booking": f"hotel in {city}"}


@tool("villa", compensation=cancel_booking, approval=True)
def villa(city: str) -> dict[str, str]:
    """Book a villa, if somebody agrees."""
    _note(f"villa {city}")
    return {"booking": f"villa in {city}"}


@dspy_worker(
    "planner",
    signature="wish -> answer: str",
    tools=[flight, hotel, villa],
    reasoning="react",
    max_iters=8,
    retry=RetryPolicy(max_attempts=1),
)
def planner(answer: str) -> None:
    assert answer


@worker("cancel_plan")
def cancel_plan(context: dict[str, Any]) -> None:
    client = _client()
    client.rpush("undone", json.dumps({"step": current_step().step}))
    client.close()


@dspy_worker(
    "researcher",
    signature="question -> answer: str, sources: list[str]",
    tools=[look_up, look_up_later, fails, once, pay, rarely, spend],
    reasoning="react",
    max_iters=8,
    retry=RetryPolicy(max_attempts=3, initial_interval=0.05, jitter=False),
    lm_retry=RetryPolicy(max_attempts=3, initial_interval=0.05, jitter=False),
)
async def researcher(context: dict[str, Any]) -> dict[str, Any]:
    if context.get("crashes") and _client().incr("crashed") <= context["crashes"]:
        raise RuntimeError("after the answer")
    return {"length": len(context["sources"])}


class Person(BaseModel):
    name: str
    age: int


@dspy_worker(
    "classify",
    signature="text -> mood: Literal['good', 'bad'], confidence: float, person: Person",
    retry=RetryPolicy(max_attempts=2, initial_interval=0.05, jitter=False),
    lm_retry=RetryPolicy(max_attempts=3, initial_interval=0.05, jitter=False),
)
def classify(mood: Literal["good", "bad"], person: Person) -> None:
    assert isinstance(person, Person)
    assert mood in ("good", "bad")


@dspy_worker("coder", signature="question -> answer: int", reasoning="codeact", tools=[look_up, look_up_later, pay])
def coder(answer: int) -> dict[str, Any]:
    return {"doubled": 2 * answer}


@dspy_worker("thinker", signature="question -> answer: str, agreed: bool", reasoning="chain_of_thought")
async def thinker(answer: str, agreed: bool) -> None:
    assert agreed, answer


class Twice(dspy.Module):
    """Asks the same twice, at once; it has nothing that is no coroutine."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        answers = await asyncio.gather(self.ask.acall(question=question), self.ask.acall(question=question))
        return dspy.Prediction(answers=sorted(each.answer for each in answers))


@dspy_worker("twice", module=Twice)
def twice(answers: list[str]) -> dict[str, Any]:
    return {"number": len(answers)}


@dspy_worker("prompted", on_divergence="park", retry=RetryPolicy(max_attempts=2, initial_interval=0.05, jitter=False))
def prompted(context: dict[str, Any]) -> dict[str, Any]:
    """Ask for itself, and each time something else, as who has a clock in the prompt does."""
    client = _client()
    steady = client.exists("steady")
    answer = dspy.Predict("question -> answer")(
        question=f"{context['question']} {'' if steady else time.time()}"
    ).answer
    if not steady:
        raise RuntimeError("after the answer")
    return {"answer": answer}


@dspy_worker(
    "falls_back",
    signature="question -> answer",
    model=[{"model": f"openai/{name}", "api_base": base, "api_key": "no-secret"} for name in ("first", "second")],
    lm_retry=RetryPolicy(max_attempts=2, initial_interval=0.05, jitter=False),
)
def falls_back(answer: str) -> None:
    assert answer


@dspy_worker(
    "shopper",
    signature="question -> answer",
    reasoning="react",
    tools=[
        mcp_tools(
            command=[sys.executable, str(Path(__file__).parents[1] / "mcp_server.py")],
            env={"MCP_SEEN": os.environ.get("MCP_SEEN", "")},
            approval=lambda arguments: arguments.get("word") == "dear",
        )
    ],
)
def shopper(answer: str) -> None:
    assert answer


@dspy_worker(
    "shopper_by_http",
    signature="question -> answer",
    reasoning="react",
    tools=[mcp_tools(url=os.environ.get("MCP_URL", "http://127.0.0.1:1/mcp"))],
    retry=RetryPolicy(max_attempts=10, initial_interval=0.5, max_interval=0.5),
)
def shopper_by_http(answer: str) -> None:
    assert answer


QUICK = RetryPolicy(max_attempts=3, initial_interval=0.05, jitter=False)
TELLS: dict[str, Any] = {"signature": "question -> reasoning: str, answer: str", "stream": True, "retry": QUICK}


@dspy_worker("teller", lm_retry=QUICK, **TELLS)
def teller(context: dict[str, Any]) -> None:
    if context.get("crashes") and _client().incr("crashed") <= context["crashes"]:
        raise RuntimeError("after the answer")


@dspy_worker(
    "gemini_teller",
    model={"model": "gemini/gemini-3.8-flash", "api_base": f"{base}beta", "api_key": "no-secret"},
    **TELLS,
)
async def gemini_teller(answer: str) -> None:
    assert answer


@dspy_worker(
    "telling_researcher",
    signature="question -> answer: str, sources: list[str]",
    tools=[look_up, look_up_later, fails],
    reasoning="react",
    max_iters=8,
    stream=True,
)
async def telling_researcher(context: dict[str, Any]) -> dict[str, Any]:
    return {"length": len(context["sources"])}


@dspy_worker("telling_twice", module=Twice, stream=True)
def telling_twice(answers: list[str]) -> None:
    assert answers


@dspy_worker("doubter", signature="question -> answer: str", retry=RetryPolicy(max_attempts=1))
def doubter(answer: str) -> None:
    if answer == "unsure":
        raise NeedsAttentionError("a person is to say")


@worker("fail_after")
def fail_after(context: dict[str, Any]) -> None:
    raise RuntimeError("the saga goes back")


@worker("forget_it")
def forget_it(context: dict[str, Any]) -> None:
    """Nothing is left of the answer."""


ONCE = RetryPolicy(max_attempts=1)
RESEARCH = WorkflowBuilder("research").add_step("research", "researcher").build()
RESEARCH_PARKED = WorkflowBuilder("research-parked").add_step("research", "researcher", on_unknown="park").build()
RESEARCH_THEN_FAIL = (
    WorkflowBuilder("research-then-fail")
    .add_step("research", "researcher", compensation="forget_it")
    .add_step("fail", "fail_after", retry=ONCE)
    .build()
)
DOUBT = WorkflowBuilder("doubt").add_step("first", "doubter").add_step("it", "doubter").build()
RESEARCH_BRIEFLY = WorkflowBuilder("research-briefly", retention=0.5).add_step("research", "researcher").build()
CLASSIFY = WorkflowBuilder("classify-it").add_step("classify", "classify").build()
CODE = WorkflowBuilder("code-it").add_step("code", "coder").build()
THINK = WorkflowBuilder("think").add_step("think", "thinker").build()
TWICE = WorkflowBuilder("ask-twice").add_step("twice", "twice").build()
PROMPTED = WorkflowBuilder("prompted").add_step("it", "prompted").build()
FALLS_BACK = WorkflowBuilder("falls-back").add_step("it", "falls_back").build()
TELL = WorkflowBuilder("tell").add_step("it", "teller").build()
TELL_GEMINI = WorkflowBuilder("tell-gemini").add_step("it", "gemini_teller").build()
TELL_RESEARCH = WorkflowBuilder("tell-research").add_step("it", "telling_researcher").build()
TELL_TWICE = WorkflowBuilder("tell-twice").add_step("it", "telling_twice").build()
PLAN = WorkflowBuilder("plan-it").add_step("plan", "planner").build()
TRIP = (
    WorkflowBuilder("trip")
    .add_step("plan", "planner", compensation="cancel_plan")
    .add_step("pay", "fail_after", retry=ONCE)
    .build()
)
EACH = WorkflowBuilder("research-each").add_map("each", "researcher", over="questions").build()
SHOP = WorkflowBuilder("shop").add_step("it", "shopper").build()
SHOP_BY_HTTP = WorkflowBuilder("shop-by-http").add_step("it", "shopper_by_http").build()
