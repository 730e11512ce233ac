"""One run, as its users hold it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from multiagents.clock import from_ms, to_ms
from multiagents.events import ErrorInfo, Event
from multiagents.exceptions import WorkflowFailedError
from multiagents.names import Correlation, Direction, parse_origin
from multiagents.orchestrator.api.delete import delete
from multiagents.orchestrator.api.operations import Verbs
from multiagents.orchestrator.api.search import set_attributes
from multiagents.orchestrator.engine.children import child_of
from multiagents.state_store.base import Delivery, InFlight, Payloads, Snapshot, merge
from multiagents.state_store.records.search_attributes import decode
from multiagents.workflow.decider.timers import deadline_of, later
from multiagents.workflow.definition.map_items import item_name, map_of
from multiagents.workflow.state.run_state import Activity, ActivityStatus, RunStatus, StepStatus


@dataclass(frozen=True)
class AttemptView:
    """Doing a step, or undoing it, as users see it.

    Attributes:
        status: where it stands.
        attempts: how many attempts were made, lost ones included.
        worker: the Celery node of the last attempt.
        result: what it returned.
        error: why the last attempt failed.
        started_at: when the last attempt began.
        finished_at: when it was over.
        task_id: the Celery task id of the last attempt.
        due_at: when what it waits for is over by itself: its sleep, its limit, the pause before its retry.
    """

    status: StepStatus
    attempts: int = 0
    worker: str | None = None
    result: Any = None
    error: ErrorInfo | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    task_id: str | None = None
    due_at: datetime | None = None


@dataclass(frozen=True)
class StepView(AttemptView):
    """A step as users see it.

    Attributes:
        compensation: the same for its undo, or None when there was none.
        child: the id of the run it started, if it is one.
        abandoned: a person has given its undo up for good (`Run.abandon`).
        taken_over_from: the run that did it, if this one is a fork that took it over.
        probing: its last attempt was its probe, which was asked whether the step took effect (rule S3).
    """

    compensation: AttemptView | None = None
    child: str | None = None
    abandoned: bool = False
    taken_over_from: str | None = None
    probing: bool = False


@dataclass(frozen=True)
class WorkflowState:
    """A run as it stands.

    Attributes:
        transaction_id: the run.
        status: where it stands.
        workflow: the definition's name.
        version: the definition's version.
        input: what it was started with.
        context: the input, merged with the results of all finished steps.
        error: what turned it back; errors of undos are its causes.
        started_at: when it was started.
        finished_at: when it ended.
        steps: every step of the definition, in its order.
        effects: step -> what is known of its effect (rule S28): ``live``, ``undone`` or ``unknown``; steps without one
            are left out.
        attributes: what it is found by.
        deadline: when it is to be over, if it has a deadline.
        forked_from: the run that it was forked from, if it is a fork.
    """

    transaction_id: str
    status: RunStatus
    workflow: str
    version: str
    input: dict[str, Any]
    context: dict[str, Any]
    error: ErrorInfo | None
    started_at: datetime | None
    finished_at: datetime | None
    steps: Mapping[str, StepView] = field(default_factory=dict)
    effects: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    deadline: datetime | None = None
    forked_from: str | None = None


class Run(Verbs):
    """A handle on a run; making one asks nothing of the store.

    Attributes:
        transaction_id: the run's id.
    """

    @property
    def status(self) -> RunStatus:
        """Where the run stands now.

        Raises:
            WorkflowNotFoundError: when there is no such run.
        """
        return self._orchestrator.store.load(self.transaction_id).state.status

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the end and return the final context.

        Args:
            timeout: seconds to wait at most; None waits as long as it takes.

        Raises:
            WorkflowFailedError: when the run ended otherwise than as completed.
            TimeoutError: when it has not ended in time; it goes on.
            RuntimeError: when called inside a worker's task, as Celery's ``get()`` does: it would hold up a worker.
        """
        self._orchestrator.assert_may_wait()
        status = self._orchestrator.store.wait_for_end(self.transaction_id, timeout)
        if status is not RunStatus.COMPLETED:
            seen = self.describe()
            raise WorkflowFailedError(
                self.transaction_id,
                seen.status.value,
                seen.error,
                {name: step.status.value for name, step in seen.steps.items()},
            )
        snapshot = self._orchestrator.store.load(self.transaction_id)
        return _context(snapshot, self._orchestrator.store.payloads(self.transaction_id))

    async def wait(self, timeout: float | None = None) -> dict[str, Any]:  # noqa: ASYNC109 - as `result` has it
        """Do as `result`, without holding up the event loop."""
        return await asyncio.to_thread(self.result, timeout)

    def describe(self) -> WorkflowState:
        """The run as it stands: its status, data and steps.

        Raises:
            WorkflowNotFoundError: when there is no such run.
        """
        store = self._orchestrator.store
        snapshot = store.load(self.transaction_id)
        payloads = store.payloads(self.transaction_id)
        state = snapshot.state
        return WorkflowState(
            transaction_id=self.transaction_id,
            status=state.status,
            workflow=state.workflow,
            version=state.version,
            input=payloads.input,
            context=_context(snapshot, payloads),
            error=state.error,
            started_at=None if state.started_at is None else from_ms(state.started_at),
            finished_at=None if state.finished_at is None else from_ms(state.finished_at),
            steps={name: _step_view(snapshot, payloads, name) for name in snapshot.definition.steps},
            effects=_effects(snapshot),
            attributes={name: decode(stored) for name, stored in snapshot.attributes.items()},
            deadline=_as_time_goes(snapshot, deadline_of(snapshot.definition, state)),
            forked_from=state.forked_from or None,
        )

    def history(self) -> list[Event]:
        """Every event of the run, oldest first."""
        return self._orchestrator.store.history(self.transaction_id)

    def archive(self, *, keep: int = 1) -> int:
        """Move the oldest events of the run out of Redis, to ``multiagents_history_archive``.

        `history` and `watch` go on giving all of them, for as long as the run is kept. What is archived stays archived.

        Args:
            keep: how many of the newest events stay, at least 1.

        Returns:
            how many were moved.

        Raises:
            ConfigurationError: when there is no archive.
            WorkflowNotFoundError: when there is no such run.
            StateStoreError: when the archive or the store did not answer; what was not moved is where it was.
        """
        return self._orchestrator.store.archive(self.transaction_id, keep)

    def watch(self, *, poll: float = 0.2) -> Iterator[Event]:
        """Follow the run's events, from the first to the end.

        Args:
            poll: seconds between two looks while nothing happens.
        """
        seen = 0
        while True:
            ended = self.status.is_end
            for event in self._orchestrator.store.history(self.transaction_id, seen):
                seen += 1
                yield event
            if ended:
                return
            time.sleep(poll)

    def set_attributes(
        self, attributes: Mapping[str, Any], *, reason: str | None = None, actor: str | None = None
    ) -> None:
        """Set what the run is found by; durable when this returns, and safe to repeat. It may be over.

        Args:
            attributes: name -> str (at most 256 characters, found as it is), int, float or datetime with a time zone
                (found by range), or None to remove it. At most 32 for a run.
            reason: why, for the history.
            actor: who, for the history.

        Raises:
            WorkflowError: when a name or a value cannot be used, or there are too many.
            WorkflowNotFoundError: when there is no such run.

        >>> run.set_attributes({"customer": "c-1", "amount": 12.5, "basket": None})  # doctest: +SKIP
        """
        set_attributes(self._orchestrator.store, self.transaction_id, attributes, reason=reason, actor=actor)

    def delete(self, *, reason: str | None = None, actor: str | None = None) -> None:
        """Erase the run, which is over, with its data, its history and its dead letters; it cannot be had back.

        What remains is who did it, when and why: `Orchestrator.deleted`. Its id and its key are free again, and the
        steps of a run that takes them have the same idempotency keys, as nothing remembers this one; a start with
        ``on_conflict="replace_ended"`` gives new ones. Its events on the bus stay until the stream is trimmed. The runs
        that are its steps are erased before it; one that was detached is not.

        Args:
            reason: why, for the list of what was deleted.
            actor: who, for that list.

        Raises:
            WorkflowNotFoundError: when there is no such run, or no more.
            WorkflowNotEndedError: when it, or a child of it, is not over.

        >>> run.delete(reason="the customer asked for it", actor="ann")  # doctest: +SKIP
        """
        delete(self._orchestrator.store, self.transaction_id, reason=reason, actor=actor)

    def __repr__(self) -> str:
        return f"<Run {self.transaction_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.transaction_id == self.transaction_id

    def __hash__(self) -> int:
        return hash(self.transaction_id)


def _context(snapshot: Snapshot, payloads: Payloads) -> dict[str, Any]:
    return merge(dict(payloads.input), payloads.results, snapshot.definition.graph.order)


def _effects(snapshot: Snapshot) -> dict[str, str]:
    state, found = snapshot.state, {}
    for name, step in snapshot.definition.steps.items():
        effect = state.step(name).effect if step.is_work else None
        if effect is not None:
            # The items of a map that was undone in one go are undone with it.
            whole = map_of(name)
            in_bulk = whole is not None and state.step(whole).effect == "undone"
            found[name] = "undone" if in_bulk else effect
    return found


def _step_view(snapshot: Snapshot, payloads: Payloads, name: str) -> StepView:
    step = snapshot.state.step(name)
    in_flight = snapshot.in_flight.get(name)
    status = step.status
    if (
        in_flight is not None
        and in_flight.delivery in (Delivery.CLAIMED, Delivery.CHILD)
        and in_flight.direction is Direction.DO
    ):
        status = StepStatus.RUNNING
    elif name in snapshot.definition.sizes and step.do.status is ActivityStatus.IDLE:
        status = _of_its_items(snapshot, name)
    is_child = snapshot.definition.steps[name].workflow is not None and (step.do.attempt > 0 or step.origin)
    undo = None
    if step.undo.status is not ActivityStatus.IDLE:
        undo = AttemptView(**_activity(snapshot, name, Direction.UNDO, step.undo, in_flight), status=status)
    return StepView(
        **_activity(snapshot, name, Direction.DO, step.do, in_flight),
        status=status,
        result=payloads.results.get(name, {} if step.do.status is ActivityStatus.SUCCEEDED else None),
        compensation=undo,
        child=child_of(snapshot, name) if is_child else None,
        abandoned=step.abandoned,
        taken_over_from=parse_origin(step.origin)[0] if step.origin else None,
        probing=step.do.probing,
    )


def _of_its_items(snapshot: Snapshot, name: str) -> StepStatus:
    """Where a map stands whose items are on their way."""
    state = snapshot.state
    items = [state.step(item_name(name, index)).do for index in range(snapshot.definition.sizes[name])]
    if any(item.is_over for item in items):
        return StepStatus.FAILED
    begun = any(item.attempt for item in items) and not state.status.is_end
    return StepStatus.RUNNING if begun else StepStatus.NOT_STARTED


def _activity(
    snapshot: Snapshot, name: str, direction: Direction, activity: Activity, in_flight: InFlight | None
) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "attempts": activity.attempt,
        "worker": activity.worker,
        "error": activity.error,
        "started_at": None if activity.started_at is None else from_ms(activity.started_at),
        "finished_at": None if activity.finished_at is None else from_ms(activity.finished_at),
    }
    if activity.attempt:
        seen["task_id"] = str(Correlation(snapshot.state.transaction_id, name, direction, activity.attempt))
    if in_flight is not None and in_flight.direction is direction:
        seen["due_at"] = _as_time_goes(snapshot, in_flight.timer_ms or None)
        if in_flight.delivery is Delivery.CLAIMED:
            seen |= {"worker": in_flight.worker, "started_at": from_ms(in_flight.since_ms), "finished_at": None}
    return seen


def _as_time_goes(snapshot: Snapshot, due: int | None) -> datetime | None:
    """When a timer is due, if a paused run whose timers stand still is resumed now."""
    if due is None:
        return None
    stopped_at = snapshot.state.stopped_at
    return from_ms(due if stopped_at is None else later(due, stopped_at, to_ms(snapshot.now)))
