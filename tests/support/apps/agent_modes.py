"""The app under test for what strikes agents of every mode: one agent for each, and tools of both kinds.

Calls are told apart by a word, which is the test's own for each run. A tool that is *shut* for a word waits until it is
not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from multiagents import RetryPolicy, Step, TerminalError, WorkflowBuilder, current_tool, dspy_worker, tool, worker
from multiagents.agents.reasoning import Reasoning
from tests.support.apps.agents import _client, app, make_app

__all__ = ["app", "make_app"]


def called(word: str) -> str:
    """Where the calls with a word are noted, as tool and idempotency key."""
    return f"called:{word}"


def shut(tool: str, word: str) -> str:
    """What is there as long as calls of a tool with a word are not to come back."""
    return f"shut:{tool}:{word}"


def _looks(word: str) -> Iterator[bool]:
    """Note a call, and then whether it is to wait."""
    client = _client()
    call = current_tool()
    client.rpush(called(word), f"{call.name}|{call.idempotency_key}")
    try:
        while client.exists(shut(call.name, word)):
            yield True
    finally:
        client.close()


def _wait(word: str) -> str:
    for _ in _looks(word):
        time.sleep(0.02)
    return "found"


async def _wait_later(word: str) -> str:
    for _ in _looks(word):
        await asyncio.sleep(0.02)
    return "found"


@tool("look")
def look(word: str) -> str:
    """Look."""
    return _wait(word)


@tool("look_later")
async def look_later(word: str) -> str:
    """Look, some time."""
    return await _wait_later(word)


@tool("dare", approval=True)
def dare(word: str) -> str:
    """Do what a person has to approve."""
    return _wait(word)


@tool("dare_later", approval=True)
async def dare_later(word: str) -> str:
    """Do it, some time."""
    return await _wait_later(word)


@tool("dawdle", timeout=0.3)
def dawdle(word: str) -> str:
    """Take too long."""
    return _wait(word)


@tool("dawdle_later", timeout=0.3)
async def dawdle_later(word: str) -> str:
    """Take too long, some time."""
    return await _wait_later(word)


TOOLS = [look, look_later, dare, dare_later, dawdle, dawdle_later]
ONCE = RetryPolicy(max_attempts=1)


def _agent(mode: Reasoning) -> Any:
    @dspy_worker(
        f"by_{mode}",
        signature="question -> answer: str",
        reasoning=mode,
        tools=TOOLS if mode.takes_tools else (),
        max_iters=8,
    )
    def agent(answer: str) -> None:
        assert answer

    return agent


def _flow(name: str, mode: Reasoning, **options: Any) -> Any:
    return WorkflowBuilder(f"{name}-{mode}").add_step("it", f"by_{mode}", **options).build()


@worker("count_rounds")
def count_rounds(context: dict[str, Any]) -> dict[str, Any]:
    return {"round": context.get("round", 0) + 1}


@worker("refuse_it")
def refuse_it(context: dict[str, Any]) -> None:
    raise TerminalError("the saga goes back")


def _asking(what: str) -> Any:
    return lambda ctx: {"question": f"{ctx['question']}-{what}."}


AGENTS = {mode: _agent(mode) for mode in Reasoning}
FLOWS = {mode: _flow("by", mode) for mode in Reasoning}
HURRIED = {mode: _flow("hurried", mode, timeout=4.0, retry=ONCE, on_unknown="compensate") for mode in Reasoning}
#: Shapes of workflows with agents in them, by name: the workflow, and how many agents have an answer in the end.
ITEMS = 50
SHAPES = {
    "branches": (
        WorkflowBuilder("shape-branches")
        .add_parallel("both", [Step(name, "by_react", inputs=_asking(name)) for name in ("left", "right")])
        .build(),
        2,
    ),
    "map": (
        WorkflowBuilder("shape-map")
        .add_map(
            "each",
            "by_react",
            over=lambda ctx: [{"question": f"{ctx['question']}-{number}."} for number in range(ITEMS)],
        )
        .build(),
        ITEMS,
    ),
    "loop": (
        WorkflowBuilder("shape-loop")
        .add_loop(
            "rounds",
            [Step("ask", "by_react", inputs=_asking("round")), Step("count", "count_rounds")],
            until=lambda ctx: ctx["round"] >= 3,
            max_iterations=5,
        )
        .build(),
        3,
    ),
    "child": (
        WorkflowBuilder("shape-child")
        .add_child(
            "child", WorkflowBuilder("shape-in-child").add_step("it", "by_react").build(), inputs=_asking("child")
        )
        .build(),
        1,
    ),
    "undo": (
        WorkflowBuilder("shape-undo")
        .add_step("reserve", "count_rounds", compensation="by_react", inputs=_asking("undo"))
        .add_step("fail", "refuse_it")
        .build(),
        1,
    ),
}
