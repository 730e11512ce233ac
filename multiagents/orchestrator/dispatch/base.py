"""The port through which attempts go out, and how a command becomes a dispatch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from multiagents.clock import to_ms
from multiagents.events import CommandEvent, CompensationEvent
from multiagents.names import Correlation, Direction
from multiagents.retry import RetryPolicy
from multiagents.state_store.records import OUTBOX_GRACE_MS, Delivery, Dispatch, attempt_key_of
from multiagents.workflow.definition import Definition, StepDefinition, StepKind
from multiagents.workflow.state.run_state import RunState

#: Whoever commits that a run of its own is to be started, or undone, does it; the sweep looks after that time.
CHILD_GRACE_MS = 5_000


def outbox_grace_ms(lease: float) -> int:
    """After how long (ms) an attempt that nobody claimed is published again, for a lease in seconds: two of them."""
    return min(OUTBOX_GRACE_MS, round(2 * lease * 1000))


def task_of(definition: Definition, correlation: Correlation, *, probe: bool) -> tuple[StepDefinition, str]:
    """The step that an attempt belongs to, and the worker that makes it."""
    step = definition.steps[correlation.step]
    return step, step.worker_of(correlation.direction, probe=probe)


class Dispatcher(ABC):
    """Gets attempts to workers. ``atomic`` says whether the commit itself can push the message."""

    #: the broker is the store's own Redis database: messages go out inside the commit
    atomic: bool

    @abstractmethod
    def address(
        self,
        definition: Definition,
        correlation: Correlation,
        *,
        losses: int = 0,
        probe: bool = False,
        first: bool = False,
    ) -> Dispatch:
        """An attempt as a dispatch that goes out at once: pushed by the commit, or through the outbox.

        Args:
            definition: what the run follows.
            correlation: the attempt.
            losses: how many attempts of the step were lost; from two on the quarantine queue takes it, if consumed.
            probe: it goes to the step's probe in the place of its worker; so it is wherever that is asked here.
            first: it starts a run, and may wait behind what runs under way have to send.
        """

    @abstractmethod
    def retry_policy(
        self, definition: Definition, correlation: Correlation, *, probe: bool = False
    ) -> RetryPolicy | None:
        """The policy of the attempt's worker, where it is known here: for attempts that end without their worker."""

    def has_worker(self, worker: str) -> bool:  # noqa: ARG002 - of none is it known
        """Whether this process can run a worker."""
        return False

    def timeout_of(self, worker: str) -> float | None:  # noqa: ARG002 - as above
        """The time limit that a worker has of its own, where it is known here: seconds, 0 is none."""
        return None

    def workers_here(self) -> dict[str, dict[str, Any]]:
        """What a worker process announces of its workers, for those who send steps and have not imported them."""
        return {}

    @abstractmethod
    def publish(
        self,
        definition: Definition,
        correlation: Correlation,
        target: str,
        *,
        probe: bool = False,
        first: bool = False,
    ) -> None:
        """Publish an attempt through the broker's own client (the outbox)."""

    @abstractmethod
    def backlog(self, target: str) -> int:
        """How many messages wait in a queue; -1 when the broker cannot tell."""

    @abstractmethod
    def is_deserted(self, target: str) -> bool:
        """Whether a broker list or queue is a quarantine to which no worker listens any more, as far as is known."""

    @abstractmethod
    def link(self, definition: Definition, correlation: Correlation, *, probe: bool = False) -> Any:
        """The attempt as a Celery signature, for the task of the undo before it to carry as its link."""

    @abstractmethod
    def orchestration(self, transaction_id: str, *, first: bool = False) -> tuple[str, str, str] | None:
        """The orchestrator's message for a run, to be pushed by a commit; None where commits cannot push."""

    @abstractmethod
    def send_orchestration(self, transaction_id: str, *, first: bool = False) -> None:
        """Publish the orchestrator's message through the broker's own client."""

    @abstractmethod
    def orchestration_link(self, transaction_id: str) -> Any:
        """The orchestrator's message as a Celery signature."""


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
    if link and undo:
        return Dispatch(name, attempt_key, Delivery.LINK, close_ms=close_ms)
    correlation = Correlation(command.transaction_id, name, direction, command.attempt)
    ready = dispatcher.address(definition, correlation, losses=activity.losses, probe=probe, first=first)
    if close_ms or step.schedule_to_start:
        start_within = round((step.schedule_to_start or 0) * 1000)
        return ready._replace(close_ms=close_ms, start_within_ms=start_within)
    return ready
