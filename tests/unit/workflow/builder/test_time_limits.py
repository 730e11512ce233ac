"""A time limit may be a timedelta wherever one is taken; the same data is kept of it as of its seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from multiagents import (
    Approval,
    Limit,
    Lock,
    RetryPolicy,
    Sleep,
    Step,
    Wait,
    WorkflowBuilder,
)
from multiagents.clock import LONGEST
from multiagents.exceptions import DefinitionError, WorkerError
from multiagents.worker_sdk.registry import workers
from multiagents.worker_sdk.worker import worker

#: What takes a time -> what makes it of one, and answers JSON-ready data that it stands in.
TAKERS: dict[str, Callable[[Any], Any]] = {
    "workflow deadline": lambda time: WorkflowBuilder("w", deadline=time).add_step("a").build(register=False).to_dict(),
    "workflow retention": lambda time: WorkflowBuilder("w", retention=time)
    .add_step("a")
    .build(register=False)
    .to_dict(),
    "step timeout": lambda time: built(Step("a", timeout=time)),
    "step schedule_to_start": lambda time: built(Step("a", schedule_to_start=time)),
    "step schedule_to_close": lambda time: built(Step("a", schedule_to_close=time)),
    "step heartbeat_timeout": lambda time: built(Step("a", heartbeat_timeout=time)),
    "wait timeout": lambda time: WorkflowBuilder("w").add_wait("a", timeout=time).build(register=False).to_dict(),
    "approval": lambda time: WorkflowBuilder("w").add_approval("a", time).build(register=False).to_dict(),
    "sleep": lambda time: WorkflowBuilder("w").add_sleep("a", time).build(register=False).to_dict(),
    "lock lease": lambda time: WorkflowBuilder("w").add_lock("a", "k", lease=time).build(register=False).to_dict(),
    "lock timeout": lambda time: WorkflowBuilder("w").add_lock("a", "k", timeout=time).build(register=False).to_dict(),
    "wait in a branch": lambda time: built(Wait("a", timeout=time)),
    "approval in a branch": lambda time: built(Approval("a", timeout=time)),
    "sleep in a branch": lambda time: built(Sleep("a", time)),
    "lock in a branch": lambda time: built(Lock("a", "k", lease=time, timeout=time)),
    "limit": lambda time: Limit("bank", rate=5, per=time).to_dict(),
    "retry initial_interval": lambda time: RetryPolicy(initial_interval=time).to_dict(),
    "retry max_interval": lambda time: RetryPolicy(max_interval=time).to_dict(),
}


def built(element: Any) -> Any:
    return WorkflowBuilder("w").add_parallel("both", [element, "b"]).build(register=False).to_dict()


@pytest.mark.parametrize("takes", TAKERS.values(), ids=TAKERS)
def test_a_timedelta_is_the_same_as_its_seconds(takes: Callable[[Any], Any]):
    assert takes(timedelta(hours=1, milliseconds=500)) == takes(3600.5)
    assert json.dumps(takes(timedelta(hours=1))) == json.dumps(takes(3600))


@pytest.mark.parametrize("takes", TAKERS.values(), ids=TAKERS)
@pytest.mark.parametrize("time", [timedelta(seconds=-1), timedelta(seconds=LONGEST + 1), "an hour"], ids=str)
def test_a_time_that_cannot_be_waited_is_refused_however_it_is_given(takes: Callable[[Any], Any], time: Any):
    with pytest.raises((DefinitionError, ValueError)):
        takes(time)


def test_a_workers_times_may_be_timedeltas():
    worker(
        "times_as_timedeltas",
        timeout=timedelta(minutes=2),
        heartbeat_timeout=timedelta(seconds=5),
        retry_delay=timedelta(milliseconds=250),
    )(lambda context: context)

    made = workers.get("times_as_timedeltas")
    assert made is not None
    assert (made.step_timeout, made.heartbeat_timeout) == (120.0, 5.0)
    assert made.retry_policy == RetryPolicy(initial_interval=0.25)
    with pytest.raises(WorkerError, match=r"timeout must be .* at least 0, got datetime\.timedelta"):
        worker("never", timeout=timedelta(-1))
