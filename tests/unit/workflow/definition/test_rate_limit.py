"""`Limit`, and where it may be said."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import Limit, Step, WorkflowBuilder, worker
from multiagents.exceptions import DefinitionError, WorkerError
from multiagents.worker_sdk import workers
from multiagents.workflow.definition import Definition


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key": ""}, "key=''; expected what is limited"),
        ({"key": "bank:{", "rate": 1}, "expected fields such as in"),
        ({"key": "bank"}, "limits nothing; give it a concurrency=, a rate= or both"),
        ({"key": "bank", "concurrency": 0}, "concurrency=0; expected a whole number of at least 1"),
        ({"key": "bank", "concurrency": 1.5}, "concurrency=1.5"),
        ({"key": "bank", "rate": 0}, "rate=0; expected a number above 0"),
        ({"key": "bank", "rate": float("inf")}, "rate=inf"),
        ({"key": "bank", "rate": 1, "per": 0}, "per=0; expected a number of seconds above 0"),
    ],
)
def test_a_limit_that_limits_nothing_or_wrongly_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        Limit(**given)

    assert said in str(refused.value)


def test_a_steps_limit_is_data_that_reads_back() -> None:
    limit = Limit("bank:{customer}", concurrency=2, rate=5, per=60)
    built = WorkflowBuilder("limited").add_step("pay", limit=limit).build(register=False)

    data = built.to_dict()["steps"][0]

    assert data["limit"] == {"key": "bank:{customer}", "concurrency": 2, "rate": 5, "per": 60}
    assert Definition.from_dict(built.to_dict()).steps["pay"].limit == limit
    assert repr(Step("pay", limit=Limit("bank", rate=1))).startswith("Step('pay', limit=Limit(key='bank'")


def test_what_is_no_limit_is_refused() -> None:
    with pytest.raises(DefinitionError, match="limit=5; expected a Limit, such as"):
        WorkflowBuilder("limited").add_step("pay", limit=5).build(register=False)  # type: ignore[arg-type]
    with pytest.raises(WorkerError, match="limit must be a Limit, got 5"):
        worker("limit.refused", limit=5)  # type: ignore[call-overload]


def test_a_worker_may_have_a_limit() -> None:
    @worker("limit.worker", limit=Limit("bank", concurrency=2))
    def pay(context: dict[str, Any]) -> None: ...

    assert workers["limit.worker"].limit == Limit("bank", concurrency=2)
    assert pay.name == "limit.worker"
