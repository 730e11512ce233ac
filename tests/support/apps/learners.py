"""Agents that have something to learn: their model, a stub, answers well only where it is shown how."""

from __future__ import annotations

import os
from typing import Any, Literal

import dspy
from celery import Celery

from multiagents import RetryPolicy, TerminalError, WorkflowBuilder, dspy_worker, init_app, tool, worker
from multiagents.testing.lm_stub import Reply, fields
from multiagents.testing.lm_stub import text as text_of
from multiagents.testing.lm_stub.request import LMRequest
from tests.support.apps.agents import API_BASE, SETTINGS

if base := os.environ.get(API_BASE):
    dspy.configure(lm=dspy.LM("openai/gpt-stub", api_base=base, api_key="no-secret", num_retries=3))


def make_app(broker: str | None, **settings: Any) -> Celery:
    made = Celery("learners", broker=broker, set_as_current=False)
    made.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
    init_app(made, {**SETTINGS, **settings})
    return made


app = make_app(os.environ.get("CELERY_BROKER_URL"))

#: What is right, by a word in what is asked.
RIGHT = {"awful": "bad", "nice": "good"}


def right(text: str) -> str:
    return next(mood for word, mood in RIGHT.items() if word in text)


def answer(request: LMRequest) -> Reply:
    """Be a model that says ``good`` to everything, unless it is shown what is bad, or told to be strict."""
    text = request.text
    if "new_instruction" in text:
        return text_of('{"reasoning": "It is too kind.", "new_instruction": "Be strict."}')  # GEPA asks for JSON
    if "proposed_instruction" in text:
        return fields(proposed_instruction="Be strict.")
    asked = text.rpartition("[[ ## text ## ]]\n")[2].partition("\n")[0]
    knows = "[[ ## mood ## ]]\nbad" in text or "Be strict." in text
    return fields(mood=right(asked) if knows and asked else "good")


ONCE = RetryPolicy(max_attempts=1)


def reacts(context: dict[str, Any], mood: Literal["good", "bad"]) -> None:
    if context.get("strict") and mood != right(context["text"]):
        raise TerminalError("that is wrong")
    if context.get("sulks") and mood == "bad":
        raise TerminalError("that is nothing to say to people")


#: Two that are the same, but for what they have learned.
mood_of = dspy_worker("mood_of", signature="text -> mood: Literal['good', 'bad']", retry=ONCE)(reacts)
temper_of = dspy_worker("temper_of", signature="text -> mood: Literal['good', 'bad']", retry=ONCE)(reacts)


@dspy_worker("bounded", signature="text -> mood: Literal['good', 'bad']", max_tokens=100)
def bounded(context: dict[str, Any]) -> None:
    """Ask, with as many tokens at most as a budget has to know."""


@tool("harmful")
def harmful(word: str) -> str:
    """Do harm."""
    return word


@dspy_worker("with_tools", signature="text -> mood: str", reasoning="react", tools=[harmful])
def with_tools(context: dict[str, Any]) -> None:
    """Ask with a tool that does harm."""


@dspy_worker("mood_judge", signature="example, answer -> verdict: str")
def mood_judge(verdict: str) -> dict[str, Any]:
    return {"score": float(verdict == "right")}


@worker("judge_mood")
def judge_mood(example: dict[str, Any], prediction: dict[str, Any]) -> dict[str, Any]:
    return {"score": float(example["mood"] == prediction["mood"]), "feedback": f"it is {example['mood']}"}


@worker("plain_worker")
def plain_worker(context: dict[str, Any]) -> None:
    """Ask nothing."""


def exact(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(example.mood == prediction.mood)


def broken(example: Any, prediction: Any) -> bool:
    raise LookupError("there is no such thing")


def opposite(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(example.mood != prediction.mood)


EXAMPLES = [
    {"inputs": {"text": f"{word} {number}"}, "outputs": {"mood": mood}}
    for number in range(6)
    for word, mood in RIGHT.items()
]
MOOD = WorkflowBuilder("mood").add_step("ask", mood_of).build()
TEMPER = WorkflowBuilder("temper").add_step("ask", temper_of).build()
