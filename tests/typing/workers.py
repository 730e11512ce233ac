"""``@worker``: with arguments and without, on ``def`` and ``async def``; what it makes can be asked and called."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, assert_type

from multiagents import Limit, RetryPolicy, celery_task, dspy_worker, worker
from multiagents.agents import AgentTask
from multiagents.worker_sdk import WorkerTask


@worker
def bare(context: dict[str, Any]) -> dict[str, Any]:
    return context


@worker()
def called(context: dict[str, Any]) -> None: ...


@worker(
    "charge_card",
    retry=RetryPolicy(max_interval=timedelta(minutes=1)),
    timeout=timedelta(seconds=30),
    heartbeat_timeout=5.0,
    queue="bank",
)
def typed(amount: int, card: str = "") -> dict[str, str]:
    return {"charge": f"{amount} of {card}"}


@worker(
    limit=Limit("bank", rate=10, per=timedelta(minutes=1)),
    retry_attempts=3,
    retry_delay=timedelta(seconds=1),
    rate_limit="10/m",
    acks_late=True,
)
async def asynchronous(amount: int) -> int:
    return amount


def what_is_made() -> None:
    assert_type(bare, WorkerTask)
    assert_type(called, WorkerTask)
    assert_type(typed, WorkerTask)
    assert_type(asynchronous, WorkerTask)
    assert_type(celery_task("shop.reserve", retry=RetryPolicy(), timeout=3), WorkerTask)
    assert_type(worker("a"), Callable[[Callable[..., Any]], WorkerTask])


def what_it_can_be_asked() -> None:
    assert_type(bare.worker_name, str)
    assert_type(bare.step_timeout, float | None)
    assert_type(bare.retry_policy, RetryPolicy | None)
    bare({"total": 5})
    typed(amount=5)


def what_a_policy_takes() -> None:
    RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=1), non_retryable=ValueError)
    RetryPolicy(max_interval=60, non_retryable=(ValueError, "shop.errors.CardDeclined"))

    RetryPolicy(initial_interval="1 s")  # type: ignore[arg-type]
    RetryPolicy(attempts=3)  # type: ignore[call-arg]
    RetryPolicy(non_retryable=7)  # type: ignore[arg-type]


def what_is_refused() -> None:
    worker(7)  # type: ignore[call-overload]
    worker("a", retry=3)  # type: ignore[call-overload]
    worker("a", timeout="30 s")  # type: ignore[call-overload]
    worker("a", queue=7)  # type: ignore[call-overload]
    worker("a", limit=10)  # type: ignore[call-overload]
    worker("a", retry_attempts="3")  # type: ignore[call-overload]
    worker("a", RetryPolicy())  # type: ignore[call-overload]


@dspy_worker("classify", signature="text -> mood: str")
def agent(context: dict[str, Any]) -> None: ...


def what_an_agent_tells() -> None:
    assert_type(agent, AgentTask)
    assert_type(agent.get_optimization_data(), dict[str, Any])
    assert_type(agent.get_optimization_data(100), dict[str, Any])
    assert_type(agent.export_examples("examples.jsonl"), int)

    agent.export_examples()  # type: ignore[call-arg]
