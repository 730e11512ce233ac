"""A run as users see it, made of what the store has of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from multiagents.clock import from_ms, to_ms
from multiagents.events import ErrorInfo
from multiagents.names import Correlation, Direction, parse_origin
from multiagents.orchestrator.api.waiting import Waiting
from multiagents.orchestrator.engine import child_of
from multiagents.state_store.payloads import Payloads, merge
from multiagents.state_store.records import Delivery, InFlight, Snapshot, StepUsage, decode_attribute
from multiagents.workflow.decider import all_results, deadline_of, later
from multiagents.workflow.definition import item_name, maker_of, map_of
from multiagents.workflow.state import Activity, ActivityStatus, RunStatus, StepStatus


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
        waiting_for: what it waits for, in words, while nobody is at it: a worker, a queue, a signal, a person, ...
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
    waiting_for: tuple[Waiting, ...] = ()


@dataclass(frozen=True)
class StepView(AttemptView):
    """A step as users see it.

    Attributes:
        compensation: the same for its undo, or None when there was none.
        child: the id of the run it started, if it is one.
        abandoned: a person has given its undo up for good (`Run.abandon`).
        taken_over_from: the run that did it, if this one is a fork that took it over.
        probing: its last attempt was its probe, which was asked whether the step took effect (rule S3).
        has_result: whether it has succeeded, so that ``result`` is what it returned, and not None for want of one.
        detail: what the last heartbeat of the step, or of its undo, said (``current_step().heartbeat(detail)``).
        usage: what its calls of models and tools have used, if it has made any, all attempts together.
    """

    compensation: AttemptView | None = None
    child: str | None = None
    abandoned: bool = False
    taken_over_from: str | None = None
    probing: bool = False
    has_result: bool = False
    detail: Any = None
    usage: StepUsage | None = None


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
        effects: step -> what is known of its effect (rule S28): ``pending`` (nobody has begun it), ``live``, ``undone``
            or ``unknown``; steps without one are left out.
        live: of a run that did not end as completed, the steps whose effects are live, or may be, though none of them
            says that it needs no undo (``no_compensation``).
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
    live: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    deadline: datetime | None = None
    forked_from: str | None = None

    @property
    def failed_step(self) -> str | None:
        """The step whose error turned the run back; None where none's did, as when it was cancelled."""
        if self.error is None:
            return None
        of = _about(self.error)
        return next((name for name, step in self.steps.items() if step.error and _about(step.error) == of), None)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data: times as ISO text, steps and errors as dicts."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


def _about(error: ErrorInfo) -> tuple[str, str, int]:
    """What is the same of an error whatever was attached to it later."""
    return error.type, error.message, error.attempt


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return value


def workflow_state(
    snapshot: Snapshot,
    payloads: Payloads,
    waiting: Mapping[str, tuple[Waiting, ...]],
    usage: Mapping[str, StepUsage],
) -> WorkflowState:
    """The run as it stands.

    Args:
        snapshot: the run.
        payloads: its data.
        waiting: what its steps wait for.
        usage: what the calls of its steps have used.
    """
    state = snapshot.state
    results = all_results(snapshot.definition, state, payloads.results)
    return WorkflowState(
        transaction_id=state.transaction_id,
        status=state.status,
        workflow=state.workflow,
        version=state.version,
        input=payloads.input,
        context=context_of(snapshot, payloads),
        error=state.error,
        started_at=_moment(state.started_at),
        finished_at=_moment(state.finished_at),
        steps={
            name: _step_view(snapshot, results, name, waiting.get(name, ()), usage.get(name))
            for name in snapshot.definition.steps
        },
        effects=_effects(snapshot),
        live=left_live(snapshot),
        attributes={name: decode_attribute(stored) for name, stored in snapshot.attributes.items()},
        deadline=_as_time_goes(snapshot, deadline_of(snapshot.definition, state)),
        forked_from=state.forked_from or None,
    )


def context_of(snapshot: Snapshot, payloads: Payloads) -> dict[str, Any]:
    """The input, merged with the results of all finished steps in the definition's order."""
    definition = snapshot.definition
    return merge(definition, dict(payloads.input), payloads.results, definition.graph.order)


def left_live(snapshot: Snapshot) -> tuple[str, ...]:
    """The steps of a run that is over, and not completed, whose effects nobody has undone, or may not have."""
    if not may_leave_live(snapshot.state.status):
        return ()
    steps = snapshot.definition.steps
    effects = _effects(snapshot).items()
    return tuple(n for n, effect in effects if effect in ("live", "unknown") and steps[n].no_compensation is None)


def may_leave_live(status: RunStatus) -> bool:
    """Whether a run in this status is over, and not as it was meant to be."""
    return status.is_end and status is not RunStatus.COMPLETED


def _effects(snapshot: Snapshot) -> dict[str, str]:
    state, found = snapshot.state, {}
    for name, step in snapshot.definition.steps.items():
        effect = state.step(name).effect if step.may_have_effect else None
        if effect == "unknown" and _nobody_has_begun(snapshot, name):
            effect = "pending"
        elif effect == "unknown" and _nobody_undoes(snapshot, name):
            effect = "live"
        if effect is not None:
            # The items of a map that was undone in one go are undone with it.
            whole = map_of(name)
            in_bulk = whole is not None and state.step(whole).effect == "undone"
            found[name] = "undone" if in_bulk else effect
    return found


def _nobody_has_begun(snapshot: Snapshot, name: str) -> bool:
    """Whether a step is on its way to a worker, and no attempt before may have taken effect."""
    found = snapshot.in_flight.get(name)
    return _is_on_its_way(snapshot.state.step(name).do, found) and not (found and snapshot.is_begun(found))


def _nobody_undoes(snapshot: Snapshot, name: str) -> bool:
    """Whether what a step did is there for certain, for its undo is on its way to a worker, too."""
    step = snapshot.state.step(name)
    return step.outcome == "succeeded" and _is_on_its_way(step.undo, snapshot.in_flight.get(name))


def _is_on_its_way(activity: Activity, in_flight: InFlight | None) -> bool:
    if not activity.in_flight or activity.in_doubt or in_flight is None:
        return False
    return in_flight.delivery not in (Delivery.CLAIMED, Delivery.CHILD, Delivery.EXTERNAL)


def _step_view(
    snapshot: Snapshot, results: Mapping[str, Any], name: str, waiting: tuple[Waiting, ...], usage: StepUsage | None
) -> StepView:
    step = snapshot.state.step(name)
    in_flight = snapshot.in_flight.get(name)
    status = step.status
    if (
        in_flight is not None
        and in_flight.delivery in (Delivery.CLAIMED, Delivery.CHILD)
        and in_flight.direction is Direction.DO
    ):
        status = StepStatus.RUNNING
    elif step.called is not None and status is StepStatus.SCHEDULED:
        status = _of_its_maker(snapshot, name)
    elif name in snapshot.definition.sizes and step.do.status is ActivityStatus.IDLE:
        status = _of_its_items(snapshot, name)
    is_child = snapshot.definition.steps[name].workflow is not None and (step.do.attempt > 0 or step.origin)
    undo = None
    if step.undo.status is not ActivityStatus.IDLE:
        undo = AttemptView(**_activity(snapshot, name, Direction.UNDO, step.undo, in_flight), status=status)
    return StepView(
        **_activity(snapshot, name, Direction.DO, step.do, in_flight),
        status=status,
        result=results.get(name),
        has_result=name in results,
        compensation=undo,
        child=child_of(snapshot, name) if is_child else None,
        abandoned=step.abandoned,
        taken_over_from=parse_origin(step.origin)[0] if step.origin else None,
        probing=step.do.probing,
        detail=snapshot.detail_of(name),
        waiting_for=waiting,
        usage=usage,
    )


def _of_its_maker(snapshot: Snapshot, name: str) -> StepStatus:
    """Where the call of a tool stands that nobody has answered: its agent may go on, or come again."""
    maker = snapshot.in_flight.get(maker_of(name))
    goes_on = maker is not None and maker.delivery is Delivery.CLAIMED and maker.direction is Direction.DO
    return StepStatus.RUNNING if goes_on else StepStatus.UNKNOWN


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
        "started_at": _moment(activity.started_at),
        "finished_at": _moment(activity.finished_at),
    }
    if activity.attempt and (direction is Direction.UNDO or snapshot.state.step(name).called is None):
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


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else from_ms(milliseconds)
