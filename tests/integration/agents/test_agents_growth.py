"""The journal of a long conversation takes what the conversation takes, not what each request repeats of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import Celery

from multiagents import WorkflowBuilder, dspy_worker, init_app, tool
from multiagents.testing.lm_stub import LMStub, react_agent

pytest.importorskip("dspy")

#: About what a page of a search result has.
PAGE = "all that there is to be said of it, and more. " * 22


@tool("read_page")
def read_page(word: str) -> str:
    """Read a page."""
    return f"{word}: {PAGE}"


@dspy_worker("long_reader", signature="question -> answer", tools=[read_page], reasoning="react", max_iters=250)
def long_reader(context: dict[str, Any]) -> None:
    pass


FLOW = WorkflowBuilder("long-reader").add_step("read", long_reader).build()


def size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False))


@pytest.mark.parametrize("turns", [50, pytest.param(200, marks=pytest.mark.full)])
def test_the_journal_of_a_long_conversation_takes_little_more_than_the_conversation(
    lm_stub: LMStub, redis_url: str, turns: int
) -> None:
    app = Celery("long", broker=redis_url, set_as_current=False)
    app.conf.update(task_always_eager=True, multiagents_redis_url=redis_url)
    app.conf.multiagents_lm = {"model": "openai/gpt-x", "api_base": lm_stub.openai_base, "api_key": "x"}
    orchestrator = init_app(app)
    calls_of_tools = [("read_page", {"word": f"w{number}"}) for number in range(turns)]
    lm_stub.when("Why?").reply(react_agent(*calls_of_tools, answer="So."))

    run = orchestrator.start(FLOW, {"question": "Why?"})

    assert run.result()["answer"] == "So."
    calls = run.calls("read")
    assert len(calls) == 2 * turns + 2
    asked = max(size(call.request) for call in calls if call.kind == "lm")
    answered = sum(size(call.answer) for call in calls)
    arguments = sum(size(call.request) for call in calls if call.kind == "tool")
    kept = orchestrator.store.journal._client.hgetall(orchestrator.keys.of_run(run.transaction_id).journal)
    took = sum(len(name) + len(text) for name, text in kept.items())
    print(f"\n    {turns} turns: {took / (asked + answered + arguments):.2f} times the conversation")
    assert took < 1.2 * (asked + answered + arguments)
