"""``@dspy_worker`` makes an agent's task, which tells what it has learned; `optimize` gives the run of a saga."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

from multiagents import Run, dspy_worker, optimize, tool
from multiagents.agents.agent_task import AgentTask
from multiagents.agents.programs import Program


@dspy_worker("classify", signature="text -> mood: str")
def classify(context: dict[str, Any]) -> None: ...


@tool("price", idempotent=True)
def price(item: str) -> float:
    return float(len(item))


@tool
def stock(item: str) -> int:
    return len(item)


def a_tool_stays_the_function_that_it_was() -> None:
    assert_type(price("book"), float)
    assert_type(stock("book"), int)
    as_a_value: Callable[[str], float] = price
    assert_type(as_a_value("book"), float)


def exact(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(example.mood == prediction.mood)


def what_it_has_learned() -> None:
    assert_type(classify, AgentTask)
    assert_type(classify.programs(), list[Program])
    assert_type(classify.rollback(reason="too slow", actor="ann"), int)
    classify.promote(2)
    classify.promote(2, 0.1, reason="it is better", actor="ann")


def what_an_optimization_is_told() -> None:
    assert_type(optimize(classify, metric=exact), Run)
    optimize("classify", metric="shop.metrics:exact", optimizer="gepa", budget=200, threshold=0.02, approve=True)
    optimize(classify, metric="judge", canary_share=0.2, canary_runs=10, examples=[{"inputs": {}, "outputs": {}}])
