"""What agents may spend, and how much they and their tools ask at once."""

from __future__ import annotations

from typing import Any, assert_type

from multiagents import Budget, Limit, Orchestrator, dspy_worker, tool


@dspy_worker("thrifty", "q -> a", max_tokens=9, budget=[Budget("all", usd=5, per="day"), Budget("all", tokens=10)])
def thrifty(context: dict[str, Any]) -> None: ...


def what_is_spent(orchestrator: Orchestrator) -> None:
    balance = orchestrator.budget("all", per="month")
    assert_type(balance.spent.usd, float)
    assert_type(balance.reserved.tokens, int)


def what_a_limit_is_given_to() -> None:
    tool("call_bank", limit=Limit("bank:{account}", rate=5, per=60))


def what_is_refused() -> None:
    Budget("all", 5)  # type: ignore[call-arg]
    Budget("all", usd="5")  # type: ignore[arg-type]
    dspy_worker("a", "q -> a", budget=5)  # type: ignore[arg-type]
    tool("a", limit=5)  # type: ignore[call-overload]
