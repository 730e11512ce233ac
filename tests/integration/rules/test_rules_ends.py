"""``on_end``: a worker is told of every end of a run, once each, on real workers."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import RetryPolicy, WorkflowBuilder
from multiagents.testing import wait_until
from tests.support.scenario import Scenario

ORDER = (
    WorkflowBuilder("told_order", on_end="echo")
    .add_step("reserve", "play", compensation="undo")
    .add_step("charge", "play", retry=RetryPolicy(max_attempts=1))
    .build()
)


def told(rules: Scenario, run: Any) -> list[dict[str, Any]]:
    """What the worker was told of the ends of a run, oldest first."""
    page = rules.orchestrator.list("told_order.on_end", limit=1_000)
    runs = [each for each in page if each.transaction_id.startswith(f"{run.transaction_id}:on_end:")]
    return [each.describe().context.get("on_end_saw") for each in reversed(runs)]


@pytest.mark.parametrize(
    ("script", "status", "error"),
    [({}, "completed", None), ({"charge": ["declined"]}, "compensated", "the card was declined")],
)
def test_the_worker_is_told_how_a_run_has_ended(
    rules: Scenario, script: dict[str, Any], status: str, error: str | None
) -> None:
    run = rules.start(ORDER, {"id": 7}, **script)
    rules.end(run)
    wait_until(lambda: [each and each["status"] for each in told(rules, run)] == [status], 20, "the end to be told")

    [seen] = told(rules, run)

    assert (seen["transaction_id"], seen["workflow"], seen["context"]["id"]) == (run.transaction_id, "told_order", 7)
    assert (seen["error"] and seen["error"]["message"]) == error


def test_each_end_of_a_run_is_told_once(rules: Scenario) -> None:
    run = rules.start(ORDER)
    rules.end(run)
    wait_until(lambda: [each and each["status"] for each in told(rules, run)] == ["completed"], 20, "the first end")

    run.compensate(reason="returned")
    run.compensate(reason="returned, asked twice")

    wait_until(
        lambda: [each and each["status"] for each in told(rules, run)] == ["completed", "compensated"], 20, "both ends"
    )
