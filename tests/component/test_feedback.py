"""What people say of what a run's agents have done, where there is nothing to say it of; over memory and Redis."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import Orchestrator, WorkflowBuilder, WorkflowNotFoundError
from multiagents.exceptions import WorkflowError

ORDER = WorkflowBuilder("judged-order").add_step("reserve", "reserve_stock").build(register=False)


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), float("inf"), "good", None])
def test_a_score_is_a_number_from_0_to_1(orchestrator: Orchestrator, score: Any) -> None:
    run = orchestrator.start(ORDER, {}, "order-1")

    with pytest.raises(WorkflowError, match=r"expected a number from 0 \(of no use\) to 1 .*; nothing was noted"):
        run.feedback(score)


def test_who_judges_a_run_without_agents_is_told_so(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(ORDER, {}, "order-1")

    with pytest.raises(WorkflowError, match="no agent has done a step of it yet"):
        run.feedback(1)


def test_who_judges_no_run_is_told_so(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(ORDER, {}, "order-1")
    run.terminate()
    run.delete()

    with pytest.raises(WorkflowNotFoundError):
        run.feedback(1)
