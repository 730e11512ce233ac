"""The events that the core itself says: commands, compensations and statuses.

They are built without a clock: whoever asks says what time it is. Their ids follow from what they name, so that saying
the same thing again gives the same id.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from multiagents.events import CommandEvent, CompensationEvent, ErrorInfo, StatusEvent
from multiagents.names import DEFAULT_QUEUE, Correlation, Direction
from multiagents.workflow.decider.unknown_outcomes import asks_probe
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import Parent, RunState, RunStatus

__all__ = [
    "NOT_YET",
    "command",
    "compensation",
    "start_event",
    "status",
]


#: The time of what was only asked for, to see what is due.
NOT_YET = datetime.min.replace(tzinfo=UTC)


def start_event(
    definition: Definition,
    transaction_id: str,
    *,
    now: datetime,
    max_lost: int = 5,
    parent: Parent | None = None,
    nonce: str = "",
    home: str = DEFAULT_QUEUE,
) -> StatusEvent:
    """The first fact of a run: which definition it follows, and the settings it is pinned to.

    Args:
        definition: what the run follows (rule S26).
        transaction_id: the run.
        now: the store's clock.
        max_lost: losses after which a step's outcome is unknown (rule S1a).
        parent: the attempt that this run is, if it is a child.
        nonce: what tells the run from others that have had its id (rule S32).
        home: the default queue of the app whose run it is.
    """
    return StatusEvent(
        id=f"{transaction_id}/running",
        transaction_id=transaction_id,
        timestamp=now,
        occurred_at=now,
        status=RunStatus.RUNNING,
        payload={
            "workflow": definition.name,
            "version": definition.version,
            "definition": definition.content_hash,
            "max_lost": max_lost,
            **({"parent": list(parent)} if parent else {}),
            **({"nonce": nonce} if nonce else {}),
            **({"home": home} if home != DEFAULT_QUEUE else {}),
        },
    )


def command(definition: Definition, state: RunState, name: str, at: datetime, delay: float = 0.0) -> CommandEvent:
    """Ask for the next attempt of a step, after ``delay`` seconds; its probe makes it where nobody knows (rule S3)."""
    own, step = definition.steps[name], state.step(name)
    probe = asks_probe(own, step, forward=state.cause is None)
    attempt = step.do.attempt + 1
    correlation_id = str(Correlation(state.transaction_id, name, Direction.DO, attempt))
    return CommandEvent.of(
        id=correlation_id,
        transaction_id=state.transaction_id,
        correlation_id=correlation_id,
        timestamp=at,
        occurred_at=at,
        step=name,
        attempt=attempt,
        worker=(own.resolve_with or "") if probe else own.worker,
        delay=delay,
        probe=probe,
        nonce=state.nonce or None,
    )


def compensation(
    definition: Definition, state: RunState, name: str, at: datetime, delay: float = 0.0
) -> CompensationEvent:
    """Ask for the next attempt of a step's undo, after ``delay`` seconds."""
    step = state.step(name)
    attempt = step.undo.attempt + 1
    correlation_id = str(Correlation(state.transaction_id, name, Direction.UNDO, attempt))
    return CompensationEvent.of(
        id=correlation_id,
        transaction_id=state.transaction_id,
        correlation_id=correlation_id,
        timestamp=at,
        occurred_at=at,
        step=name,
        attempt=attempt,
        worker=definition.steps[name].compensation or "",
        delay=delay,
        outcome=step.outcome or "",
        nonce=state.nonce or None,
    )


def status(
    state: RunState,
    status: str,
    at: datetime,
    *,
    step: str | None = None,
    event_id: str | None = None,
    reason: str | None = None,
    actor: str | None = None,
    error: ErrorInfo | None = None,
    payload: Mapping[str, object] | None = None,
    late: str | None = None,
) -> StatusEvent:
    """Say what becomes of the run, or of a step nobody is asked to do.

    Args:
        state: the run.
        status: what is said.
        at: the store's clock.
        step: the step that it is about, if it is about one.
        event_id: of the event; None: what it says can be said but once of the run, or the step.
        reason: why, in words.
        actor: who asked for it.
        error: the error that led to it.
        payload: what it brings.
        late: why it changes nothing.
    """
    return StatusEvent.of(
        id=event_id or f"{state.transaction_id}/{status}" + (f"/{step}" if step else ""),
        transaction_id=state.transaction_id,
        timestamp=at,
        occurred_at=at,
        step=step,
        status=str(status),
        reason=reason,
        actor=actor,
        error=error,
        payload=payload,
        late=late,
    )
