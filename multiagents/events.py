"""The five events: everything that is said about a run.

A *command* asks a worker to do a step, a *compensation* to undo one; a *result* or an *error* answers either of them; a
*status* says what became of the run, or of a step nobody was asked to do. Events are facts: frozen, matched by
``correlation_id`` alone, and read leniently: a field or a version that this release does not know is kept, not dropped.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, Literal, Self
from uuid import uuid4

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from multiagents.clock import to_ms
from multiagents.exceptions import DecodeError
from multiagents.names import Correlation, Direction
from multiagents.plain_json import plain
from multiagents.public_model import PublicModel
from multiagents.retry import RetryPolicy

__all__ = [
    "CommandEvent",
    "CompensationEvent",
    "ErrorEvent",
    "ErrorInfo",
    "ErrorKind",
    "Event",
    "ResultEvent",
    "StatusEvent",
    "event_from_json",
]


def new_id() -> str:
    return uuid4().hex


def _now() -> datetime:
    return datetime.now(UTC)


class ErrorKind(StrEnum):
    """What kind of end an attempt came to; it decides between a definite failure and an unknown outcome (rule S1b)."""

    #: the worker raised: a definite failure
    FAILED = "failed"
    #: it took longer than its limit: a failed attempt whose effect is unknown
    TIMEOUT = "timeout"
    #: its worker died or its lease ran out: retried apart from the policy (rule S1a)
    LOST = "lost"
    #: it ran, and what came of it could not be told or recorded
    UNKNOWN = "unknown"
    #: a probe found that the step did not take effect: a definite failure of the step (rule S3)
    NO_EFFECT = "no_effect"


class ErrorInfo(PublicModel):
    """An error as data: what a worker raised, or what was found about an attempt that no worker answered."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    message: str
    traceback: str | None = None
    #: the attempt that failed, from 1
    attempt: int = 1
    #: errors of compensations and of probes: attached to the original, never in its place (rule S19)
    causes: tuple[ErrorInfo, ...] = ()
    #: what the worker told of it as data (``TerminalError(..., details=...)``)
    details: Any = None
    #: the worker has said that a person has to look before anything follows from it
    attention: bool = False


class Event(PublicModel):
    """What every event has.

    Attributes:
        id: unique; a repeated publication keeps it.
        transaction_id: the run.
        correlation_id: the attempt this belongs to, ``<transaction>/<step>/<do|undo>/<attempt>``; empty for the run
            itself.
        causation_id: id of the event that led to this one.
        timestamp: the store's clock when the event was taken in; None until then.
        occurred_at: the producer's own clock.
        step: the step's name, or None for the run itself.
        attempt: which attempt of the step, from 1; 0 for none.
        payload: the data: a result, an input.
        digest: hash of a payload that is stored elsewhere (in the run's context).
        late: why it changed nothing when it came, or not what it would have (rule S23), in words; its payload is here
            then. None for what came in time.
        nonce: of a command, and of what answers it: what tells the run from others that have had its id (rule S32).
            A foreign producer sends it back with the correlation id. An outcome without it counts only for an attempt
            that is out and that no worker has claimed.
        lesson: what the attempt leaves to learn from, on its way into the store; the history and the bus have it not.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    version: int = 1
    id: str = Field(default_factory=new_id)
    transaction_id: str
    correlation_id: str = ""
    causation_id: str | None = None
    timestamp: datetime | None = None
    occurred_at: datetime = Field(default_factory=_now)
    step: str | None = None
    attempt: int = 0
    payload: Any = None
    digest: str | None = None
    late: str | None = None
    nonce: str | None = None
    lesson: Any = Field(default=None, exclude=True, repr=False)

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Make an event of values that are known to be right: without validation, most of what making one costs.

        Args:
            fields: at least ``id``, ``transaction_id``, ``occurred_at`` and what its kind asks for.
        """
        event = cls.__new__(cls)
        defaults, names = _layout(cls)
        # What pydantic keeps of a model, as `model_construct` sets it.
        set_attribute = object.__setattr__
        set_attribute(event, "__dict__", {**defaults, **fields})
        set_attribute(event, "__pydantic_fields_set__", names)
        set_attribute(event, "__pydantic_extra__", {})
        set_attribute(event, "__pydantic_private__", None)
        return event

    @property
    def direction(self) -> Direction:
        """Whether this is about doing the step or about undoing it."""
        if self.correlation_id and self.correlation_id.rsplit("/", 2)[-2:-1] == ["undo"]:
            return Direction.UNDO
        return Direction.DO

    @property
    def at(self) -> datetime:
        """The time that counts: the store's, else the producer's."""
        return self.timestamp or self.occurred_at

    def to_json(self) -> str:
        """The event as JSON, without empty fields."""
        return self.model_dump_json(exclude_none=True)

    @classmethod
    def from_json(cls, data: str | bytes) -> Event:
        """Read an event of any of the five kinds (of just this kind, when called on one of them).

        Raises:
            DecodeError: when it is not JSON, or not an event.
        """
        event = event_from_json(data)
        if not isinstance(event, cls):
            raise DecodeError(f"expected a {cls.__name__}, got a {type(event).__name__}: {_short(data)}")
        return event


@cache
def _layout(kind: type[Event]) -> tuple[dict[str, Any], set[str]]:
    """The fields of a kind of event: name -> default, and the names alone, which all events of a kind share."""
    return {name: field.default for name, field in kind.model_fields.items()}, set(kind.model_fields)


def _end_of(correlation: Correlation, at: datetime) -> dict[str, Any]:
    """What the outcome of an attempt says of the attempt; told twice, it is the same event."""
    correlation_id = str(correlation)
    return {
        "id": f"{correlation_id}/end",
        "transaction_id": correlation.transaction_id,
        "correlation_id": correlation_id,
        "timestamp": at,
        "occurred_at": at,
        "step": correlation.step,
        "attempt": correlation.attempt,
        "nonce": correlation.nonce or None,
    }


class CommandEvent(Event):
    """Ask a worker to do a step.

    Attributes:
        worker: the worker's name.
        delay: seconds to wait before it is dispatched (the back-off of a retry).
        payload: the answer of the step's ``inputs``, if it has one: what the worker gets in place of the context.
        probe: the worker is the step's probe, asked whether the step took effect (rule S3).
    """

    type: Literal["command"] = "command"
    worker: str = ""
    delay: float = 0.0
    probe: bool = False


class CompensationEvent(Event):
    """Ask a worker to undo a step.

    Attributes:
        worker: the compensation's name.
        delay: seconds to wait before it is dispatched.
        outcome: what is to be undone: ``succeeded``, ``unknown`` or ``failed`` (rule S4).
    """

    type: Literal["compensation"] = "compensation"
    worker: str = ""
    delay: float = 0.0
    outcome: str = "succeeded"


class ResultEvent(Event):
    """Say that an attempt succeeded; ``payload`` is its result.

    Anyone may publish one on the bus: another language, a webhook. It advances the run if its ``correlation_id`` is the
    one that the step waits for.

    Attributes:
        worker: who ran it (a Celery node name), if known.
        started_at: when it began.
        attributes: what the run is to be found by from now on; written with the outcome. From JSON a time is a text.
        usage: of an agent: what the calls of its step have used by then, all attempts together.
    """

    type: Literal["result"] = "result"
    worker: str | None = None
    started_at: datetime | None = None
    attributes: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None

    @classmethod
    def about(
        cls,
        correlation: Correlation,
        payload: Any = None,
        *,
        at: datetime,
        worker: str | None = None,
        started_at: datetime | None = None,
        attributes: dict[str, Any] | None = None,
        lesson: Any = None,
        usage: dict[str, Any] | None = None,
    ) -> Self:
        """The success of an attempt, at a time of the store's clock; its ids follow from those of the attempt."""
        return cls.of(
            **_end_of(correlation, at),
            payload=payload,
            worker=worker,
            started_at=started_at,
            attributes=attributes,
            lesson=lesson,
            usage=usage,
        )


class ErrorEvent(Event):
    """Say that an attempt did not succeed.

    Attributes:
        error: what happened.
        kind: a definite failure, or an outcome nobody knows.
        retryable: False when trying again will not help.
        retry_policy: the worker's own policy; the step's goes before it.
        retry_in: seconds after which the worker itself asks to be tried again; it goes before every policy.
        worker: who ran it, if known.
        started_at: when it began, if it did.
        attributes: what the run is to be found by from now on; written with the outcome. From JSON a time is a text.
        usage: of an agent: what the calls of its step have used by then, all attempts together.
    """

    type: Literal["error"] = "error"
    error: ErrorInfo
    kind: ErrorKind = ErrorKind.FAILED
    retryable: bool = True
    retry_policy: RetryPolicy | None = None
    retry_in: float | None = None
    worker: str | None = None
    started_at: datetime | None = None
    attributes: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None

    @classmethod
    def about(
        cls,
        correlation: Correlation,
        error: ErrorInfo,
        *,
        at: datetime,
        kind: ErrorKind = ErrorKind.FAILED,
        retryable: bool = True,
        retry_policy: RetryPolicy | None = None,
        retry_in: float | None = None,
        worker: str | None = None,
        started_at: datetime | None = None,
        attributes: dict[str, Any] | None = None,
        lesson: Any = None,
        usage: dict[str, Any] | None = None,
    ) -> Self:
        """The failure of an attempt, at a time of the store's clock; its ids follow from those of the attempt."""
        return cls.of(
            **_end_of(correlation, at),
            error=error,
            kind=kind,
            retryable=retryable,
            retry_policy=retry_policy,
            retry_in=retry_in,
            worker=worker,
            started_at=started_at,
            attributes=attributes,
            lesson=lesson,
            usage=usage,
        )


class StatusEvent(Event):
    """Say what became of the run, or of a step that nobody was asked to do.

    Attributes:
        status: a run's status; with ``step``, a step's.
        reason: why, in words.
        actor: who asked for it.
        error: the error that led to it, if one did.
        compensation: of the call of a tool: the worker that undoes it.
    """

    type: Literal["status"] = "status"
    status: str
    reason: str | None = None
    actor: str | None = None
    error: ErrorInfo | None = None
    compensation: str | None = None


_KINDS: dict[str, type[Event]] = {
    "command": CommandEvent,
    "compensation": CompensationEvent,
    "result": ResultEvent,
    "error": ErrorEvent,
    "status": StatusEvent,
}
_MAPPING = TypeAdapter(dict[str, Any])


def event_from_json(data: str | bytes) -> Event:
    """Read one of the five events from JSON.

    >>> event_from_json('{"type": "result", "transaction_id": "order-1", "payload": {"ok": true}}').payload
    {'ok': True}

    Raises:
        DecodeError: when it is not JSON, not one of the five, or lacks what its kind needs.
    """
    try:
        mapping = _MAPPING.validate_json(data)
    except ValidationError as error:
        raise DecodeError(f"an event must be a JSON object, got {_short(data)}: {error.errors()[0]['msg']}") from None
    event = event_from_dict(plain(mapping, "an event", error=DecodeError))
    for moment in (event.timestamp, event.occurred_at, getattr(event, "started_at", None)):
        try:
            moment is None or to_ms(moment)
        except (ValueError, OverflowError) as error:
            raise DecodeError(f"an event has the time {moment}, which is beyond the calendar ({error})") from None
    return event


def event_from_dict(mapping: dict[str, Any]) -> Event:
    """Read one of the five events from a mapping, as `event_from_json` does."""
    kind = _KINDS.get(str(mapping.get("type")))
    if kind is None:
        raise DecodeError(
            f"event type {mapping.get('type')!r} is not known; expected one of {', '.join(_KINDS)}: "
            f"{_short(str(mapping))}"
        )
    try:
        return kind.model_validate(mapping)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DecodeError(f"a {kind.__name__} was not understood: {where}: {first['msg']}") from None


def correlation_of(event: Event) -> Correlation | None:
    """The attempt that an event belongs to, or None when it is about the run itself."""
    return Correlation.parse(event.correlation_id) if event.correlation_id else None


def _short(data: str | bytes) -> str:
    text = data if isinstance(data, str) else data.decode(errors="replace")
    return text if len(text) <= 120 else f"{text[:117]}..."
