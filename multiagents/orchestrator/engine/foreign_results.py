"""Results that foreign producers publish on the bus; what a worker of ours answers is read where it runs.

What ends a wait or an approval has to fit it as a signal has to: an approval is given by a clear yes, whoever brings it
(rule S31).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multiagents.events import CommandEvent, ErrorEvent, ErrorInfo, ErrorKind, ResultEvent
from multiagents.exceptions import DecodeError, ResolutionError, WorkflowError
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.engine.signals import checked
from multiagents.plain_json import plain
from multiagents.state_store import StateStore
from multiagents.state_store.records import Snapshot
from multiagents.workflow.decider import Answer, answer_of, rejected, resolved
from multiagents.workflow.definition import StepDefinition, StepKind


def as_reported(
    store: StateStore, snapshot: Snapshot, event: ResultEvent | ErrorEvent, max_bytes: int
) -> ResultEvent | ErrorEvent:
    """A published outcome, as what it says of its step: the answer of a probe, or to an approval, is read.

    Args:
        store: where the run's history is; asked only about an attempt that is not the step's last.
        snapshot: the run.
        event: its correlation id is of this run.
        max_bytes: how large data may be as JSON.

    Raises:
        DecodeError: when it does not fit the wait that it is to end; the step waits on.
    """
    attempt = Correlation.parse(event.correlation_id)
    own = snapshot.definition.steps.get(attempt.step)
    if isinstance(event, ResultEvent):
        try:
            plain(event.payload, f"the result of step {attempt.step!r} that was published", max_bytes=max_bytes)
        except WorkflowError as error:
            return _unkept(own, event, error)
    if own is not None and own.awaits_signal and isinstance(event, ResultEvent):
        return _as_signal(own, event, max_bytes, store.policy.redact)
    probe = None if own is None or attempt.direction is Direction.UNDO else own.resolve_with
    if probe is None or not isinstance(event, ResultEvent) or not _asked_probe(store, snapshot, attempt):
        return event
    try:
        return resolved(event, probe)
    except ResolutionError as error:
        facts = {name: value for name, value in event if name not in ("type", "payload", "digest")}
        shown = ErrorInfo(type="multiagents.exceptions.ResolutionError", message=str(error), attempt=attempt.attempt)
        return ErrorEvent(**facts, retryable=False, error=shown)


def _unkept(own: StepDefinition | None, event: ResultEvent, error: WorkflowError) -> ErrorEvent:
    """A result that cannot be kept: something was done, and nobody knows what it came to (rule S1b)."""
    if own is not None and own.awaits_signal:
        raise DecodeError(f"a result of step {own.name!r} was not taken: {error}; the step waits on")
    facts = {name: value for name, value in event if name not in ("type", "payload", "digest")}
    told = ErrorInfo(type="multiagents.exceptions.WorkflowError", message=str(error), attempt=event.attempt)
    return ErrorEvent(**facts, kind=ErrorKind.UNKNOWN, retryable=False, error=told)


def _as_signal(
    own: StepDefinition, event: ResultEvent, max_bytes: int, redact: Callable[[Any], Any] | None
) -> ResultEvent | ErrorEvent:
    data, refusal = checked(own, event.payload, event.payload, max_bytes)
    if refusal is not None:
        raise DecodeError(f"a result of step {own.name!r} was not taken: {refusal}; the step waits on")
    if own.kind is StepKind.APPROVAL and answer_of(data) is not Answer.YES:
        facts = {name: value for name, value in event if name not in ("type", "payload", "digest")}
        shown = None if redact is None else redact(data)
        return ErrorEvent(**facts, retryable=False, error=rejected(own.name, data, shown=shown))
    return event.model_copy(update={"payload": data})


def _asked_probe(store: StateStore, snapshot: Snapshot, attempt: Correlation) -> bool:
    if attempt.attempt == snapshot.state.step(attempt.step).do.attempt:
        return snapshot.state.is_probe(attempt)
    return any(
        isinstance(event, CommandEvent) and event.probe and event.correlation_id == str(attempt)
        for event in store.history(attempt.transaction_id)
    )
