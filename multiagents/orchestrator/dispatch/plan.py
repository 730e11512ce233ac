"""How a command becomes a dispatch: a message, a timer, a lock to ask for, a run to start, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from multiagents.clock import to_ms
from multiagents.events import CommandEvent, CompensationEvent
from multiagents.names import Direction
from multiagents.orchestrator.dispatch.base import Dispatcher
from multiagents.state_store.records import Delivery, Dispatch, attempt_key_of
from multiagents.workflow.definition import Definition, StepDefinition, StepKind
from multiagents.workflow.state import RunState

#: Whoever commits that a run of its own is to be started, or undone, does it; the sweep looks after that time.
CHILD_GRACE_MS = 5_000


def plan_dispatches(
    dispatcher: Dispatcher,
    definition: Definition,
    state: RunState,
    commands: Sequence[CommandEvent | CompensationEvent],
    *,
    now: datetime,
    default_timeout: float,
    may_link: bool = False,
    first: bool = False,
) -> list[Dispatch]:
    """How each command goes out.

    Args:
        dispatcher: where to.
        definition: what the run follows.
        state: the run after the commands.
        commands: what goes out.
        now: the store's clock.
        default_timeout: seconds, for steps that name no time limit.
        may_link: an undo has just succeeded in this process: a single next undo goes as its link.
        first: they start the run.
    """
    link = may_link and len(commands) == 1 and not commands[0].delay
    return [
        _plan(dispatcher, definition, state, command, now=now, default_timeout=default_timeout, link=link, first=first)
        for command in commands
    ]


def _plan(
    dispatcher: Dispatcher,
    definition: Definition,
    state: RunState,
    command: CommandEvent | CompensationEvent,
    *,
    now: datetime,
    default_timeout: float,
    link: bool,
    first: bool,
) -> Dispatch:
    undo, probe = isinstance(command, CompensationEvent), isinstance(command, CommandEvent) and command.probe
    direction = Direction.UNDO if undo else Direction.DO
    name = command.step or ""
    step, activity = definition.steps[name], state.step(name).activity(direction)
    attempt_key = attempt_key_of(direction, command.attempt)
    close_ms = 0
    if step.schedule_to_close and not (undo or probe):
        close_ms = (activity.scheduled_at or to_ms(now)) + round(step.schedule_to_close * 1000)
    if command.delay:
        return Dispatch(name, attempt_key, Delivery.TIMER, delay_ms=round(command.delay * 1000), close_ms=close_ms)
    if step.kind is StepKind.CHILD and (not undo or step.is_undone_as_child):
        return Dispatch(name, attempt_key, Delivery.CHILD, delay_ms=CHILD_GRACE_MS)
    if step.kind is StepKind.SLEEP:
        seconds: Any = command.payload["seconds"] if isinstance(command.payload, Mapping) else step.seconds
        return Dispatch(name, attempt_key, Delivery.SLEEP, delay_ms=round(float(seconds) * 1000))
    if step.kind is StepKind.LOCK:
        # Its key was told with the first attempt, and is kept with the run's data.
        key = command.payload["key"] if isinstance(command.payload, Mapping) else ""
        closes = to_ms(now) + round(step.timeout * 1000) if step.timeout else 0
        return Dispatch(name, attempt_key, Delivery.LOCK, target=key, close_ms=closes)
    if (step.external or step.awaits_signal) and not (undo or probe):
        limit = step.timeout if step.timeout is not None or step.awaits_signal else default_timeout
        limit_ms = to_ms(now) + round(limit * 1000) if limit else 0
        return Dispatch(
            name, attempt_key, Delivery.EXTERNAL, close_ms=min(filter(None, (close_ms, limit_ms)), default=0)
        )
    within = start_within_ms(step, close_ms, to_ms(now)) if close_ms or step.schedule_to_start else 0
    if link and undo:
        return Dispatch(name, attempt_key, Delivery.LINK, close_ms=close_ms, start_within_ms=within)
    correlation = state.correlation(name, direction, command.attempt)
    ready = dispatcher.address(
        definition, correlation, losses=activity.losses, probe=probe, first=first, home=state.home
    )
    return ready._replace(close_ms=close_ms, start_within_ms=within) if within else ready


def start_within_ms(step: StepDefinition, close_ms: int, now_ms: int) -> int:
    """How long the message of an attempt may stay unclaimed (ms): what its step says of that, and of its end; 0 is any.

    Only steps with a limit of their own have an entry in ``due`` for it. What counts by default is found by looking.
    """
    if not (close_ms or step.schedule_to_start):
        return 0
    limits = [round(step.schedule_to_start * 1000)] if step.schedule_to_start else []
    return max(1, min([*limits, close_ms - now_ms] if close_ms else limits))
