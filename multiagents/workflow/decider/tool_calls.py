"""Calls of tools that are undone as steps are (rule S36).

The rules:

1. A call is a step from the write that begins it on. Nobody is ever asked to do it: its agent makes the call, as often
   as it takes, and that is one attempt to do it. What it came to is told as of any attempt.
2. As long as the attempt that makes it may go on, its outcome is open. Where a run goes back and that attempt is over,
   nobody knows it: the call may have taken effect, and is undone.
3. What the tool raised is a definite failure, which its step's ``compensate_on_failure`` is for (rule S3); that it
   took too long, that it said that it does not know, or that its result cannot be kept, is in doubt (rule S1b).
4. The calls of a step are undone newest first, then the step (`multiagents.workflow.decider.compensation.turn_of`).
   No call has a say in which way the run goes: what its tool raised, the model is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from multiagents.clock import to_ms
from multiagents.events import Event, StatusEvent
from multiagents.names import Correlation
from multiagents.workflow.decider.facts import Fact
from multiagents.workflow.definition import Definition, maker_of
from multiagents.workflow.state import ACTIVITY, Activity, ActivityStatus, CalledTool, RunState, StepState, Trigger

__all__ = ["call_begun", "called_event", "given_up", "is_new_call", "with_call"]


def called_event(correlation: Correlation, call: str, compensation: str, at: datetime) -> StatusEvent:
    """The fact that an attempt calls a tool that has a compensation.

    Args:
        correlation: the attempt.
        call: the name of the call, as a step.
        compensation: the worker that undoes it.
        at: the store's clock.
    """
    return StatusEvent.of(
        id=f"{correlation.transaction_id}/{Fact.CALLED}/{call}",
        transaction_id=correlation.transaction_id,
        correlation_id=str(correlation),
        timestamp=at,
        occurred_at=at,
        step=call,
        attempt=correlation.attempt,
        status=str(Fact.CALLED),
        compensation=compensation,
    )


def call_begun(compensation: str, number: int, at: datetime) -> StepState:
    """The state of a call that is under way.

    Args:
        compensation: the worker that undoes it.
        number: the how manieth of its step it is, of those that are to be undone.
        at: the store's clock.
    """
    status = ACTIVITY[ActivityStatus.IDLE, Trigger.COMMAND]
    return StepState(Activity(status, 1, scheduled_at=to_ms(at)), called=CalledTool(compensation, number))


def is_new_call(definition: Definition, event: Event) -> bool:
    """Whether an event brings the call of a tool, which is not among the steps yet."""
    return (
        isinstance(event, StatusEvent)
        and event.compensation is not None
        and event.step is not None
        and maker_of(event.step) in definition.steps
    )


def with_call(state: RunState, event: StatusEvent) -> RunState:
    """The run with one more call among its steps: one that begins, or one that a fork takes over."""
    name, maker = event.step or "", maker_of(event.step or "")
    number = 1 + sum(maker_of(call) == maker for call in state.called)
    step = call_begun(event.compensation or "", number, event.at)
    if event.status == Fact.TAKEN_OVER:
        facts = event.payload
        if facts["outcome"] == "succeeded":
            status = ACTIVITY[ActivityStatus.IDLE, Trigger.TAKEOVER]
            step = step._replace(do=Activity(status, finished_at=to_ms(event.at)))
        step = step._replace(origin=facts.get("origin", ""))
    after = state.with_step(name, step)
    return after._replace(called={**state.called, name: CalledTool(event.compensation or "", number)})


def given_up(definition: Definition, state: RunState) -> Iterator[str]:
    """The calls that nobody will tell the outcome of: the attempt that has made them is over (rule 2)."""
    for name in definition.called:
        if state.step(name).do.in_flight and not state.step(maker_of(name)).do.in_flight:
            yield name
