"""Results that foreign producers publish on the bus; what a worker of ours answers is read where it runs."""

from __future__ import annotations

from multiagents.events import CommandEvent, ErrorEvent, ErrorInfo, ResultEvent
from multiagents.exceptions import ResolutionError
from multiagents.names import Correlation, Direction
from multiagents.state_store import StateStore
from multiagents.state_store.records import Snapshot
from multiagents.workflow.decider import resolved


def as_reported(store: StateStore, snapshot: Snapshot, event: ResultEvent | ErrorEvent) -> ResultEvent | ErrorEvent:
    """A published outcome, as what it says of its step: the answer of a probe is read, all else stays as it is.

    Args:
        store: where the run's history is; asked only about an attempt that is not the step's last.
        snapshot: the run.
        event: its correlation id is of this run.
    """
    attempt = Correlation.parse(event.correlation_id)
    own = snapshot.definition.steps.get(attempt.step)
    probe = None if own is None or attempt.direction is Direction.UNDO else own.resolve_with
    if probe is None or not isinstance(event, ResultEvent) or not _asked_probe(store, snapshot, attempt):
        return event
    try:
        return resolved(event, probe)
    except ResolutionError as error:
        facts = {name: value for name, value in event if name not in ("type", "payload", "digest")}
        shown = ErrorInfo(type="multiagents.exceptions.ResolutionError", message=str(error), attempt=attempt.attempt)
        return ErrorEvent(**facts, retryable=False, error=shown)


def _asked_probe(store: StateStore, snapshot: Snapshot, attempt: Correlation) -> bool:
    if attempt.attempt == snapshot.state.step(attempt.step).do.attempt:
        return snapshot.state.is_probe(attempt)
    return any(
        isinstance(event, CommandEvent) and event.probe and event.correlation_id == str(attempt)
        for event in store.history(attempt.transaction_id)
    )
