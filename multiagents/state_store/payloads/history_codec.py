"""How events are kept in a run's history: short, because a finished run keeps all of them.

What the key or the other fields say already is left out: the transaction, its nonce, the correlation id, an id that
follows from them, and every default. A field that this release does not know is kept as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from multiagents.clock import from_ms, to_ms
from multiagents.events import CommandEvent, CompensationEvent, Event, event_from_dict
from multiagents.exceptions import DecodeError
from multiagents.names import Correlation, Direction

_SHORT = {
    "type": "t",
    "step": "s",
    "attempt": "a",
    "timestamp": "at",
    "occurred_at": "o",
    "worker": "w",
    "started_at": "b",
    "status": "st",
    "payload": "p",
    "digest": "g",
    "causation_id": "c",
    "correlation_id": "r",
    "id": "i",
    "error": "e",
    "kind": "k",
    "retryable": "y",
    "retry_policy": "q",
    "retry_in": "f",
    "reason": "m",
    "actor": "u",
    "compensation": "cw",
    "delay": "d",
    "outcome": "x",
    "version": "v",
    "attributes": "n",
    "late": "l",
    "usage": "$",
}
_LONG: dict[str, str] = {short: long for long, short in _SHORT.items()}
_TIMES = ("timestamp", "occurred_at", "started_at")
_MODELS = ("error", "retry_policy")
_UNDO = "z"


def pack(event: Event) -> str:
    """One event as a short JSON object."""
    values = event.__dict__
    fields: dict[str, Any] = {"t": values["type"]}
    for name, short, default, written in _layout(type(event)):
        value = values[name]
        # Mostly an event occurred when it was written down, and says so by saying nothing of it.
        if value is not None and value != default and not (name == "occurred_at" and value == values["timestamp"]):
            fields[short] = value if written is None else written(value)
    if fields.get("o") == fields.get("at"):
        fields.pop("o", None)
    correlation_id, step, attempt = values["correlation_id"], values["step"], values["attempt"]
    if step is not None and correlation_id and attempt:
        head = f"{values['transaction_id']}/{step}/"
        if correlation_id == f"{head}do/{attempt}":
            del fields["r"]
        elif correlation_id == f"{head}undo/{attempt}":
            del fields["r"]
            if not isinstance(event, CompensationEvent):
                fields[_UNDO] = 1
    elif not correlation_id and attempt:
        fields["r"] = ""
    if fields.get("i") == _derived_id(event):
        del fields["i"]
    if event.model_extra:
        fields["+"] = event.model_extra
    return to_json(fields, inf_nan_mode="constants").decode()


def _dumped(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude_defaults=True)


def _as_dict(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


#: How the fields are written whose values are not written as they are.
_WRITTEN: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_TIMES, to_ms),
    **dict.fromkeys(_MODELS, _dumped),
    "payload": _as_dict,
}


@cache
def _layout(kind: type[Event]) -> tuple[tuple[str, str, Any, Callable[[Any], Any] | None], ...]:
    """The fields that are written: name, short name, default, and how."""
    return tuple(
        (name, _SHORT.get(name, name), info.default, _WRITTEN.get(name))
        for name, info in kind.model_fields.items()
        if name not in ("type", "transaction_id", "nonce", "lesson")
    )


def unpack(transaction_id: str, record: str, nonce: str | None = None) -> Event:
    """The inverse of `pack`.

    Args:
        transaction_id: the run.
        record: the event, as it is kept.
        nonce: of the run; what asks for an attempt has it.

    Raises:
        DecodeError: when the record is not an event.
    """
    try:
        read: Any = from_json(record)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise DecodeError(
            f"an entry in the history of run {transaction_id!r} was not understood: {record!r:.120}; expected a JSON "
            f"object"
        )
    short: dict[str, Any] = read
    extra = short.pop("+", {})
    undo = bool(short.pop(_UNDO, 0))
    fields: dict[str, Any] = {_LONG.get(name, name): value for name, value in short.items()}
    fields["transaction_id"] = transaction_id
    undo = undo or fields.get("type") == "compensation"
    if fields.get("step") and fields.get("attempt") and "correlation_id" not in fields:
        direction = Direction.UNDO if undo else Direction.DO
        fields["correlation_id"] = str(Correlation(transaction_id, fields["step"], direction, fields["attempt"]))
    if "occurred_at" not in fields and "timestamp" in fields:
        fields["occurred_at"] = fields["timestamp"]
    if nonce and fields.get("type") in ("command", "compensation"):
        fields["nonce"] = nonce
    for name in _TIMES:
        if name in fields:
            fields[name] = from_ms(fields[name])
    event = event_from_dict({**extra, **fields})
    return event if "id" in fields else event.model_copy(update={"id": _derived_id(event)})


def _derived_id(event: Event) -> str:
    """The id of an event that can only happen once."""
    if isinstance(event, CommandEvent | CompensationEvent):
        return event.correlation_id
    if event.type in ("result", "error"):
        return f"{event.correlation_id}/end"
    status = getattr(event, "status", event.type)
    return f"{event.transaction_id}/{status}" + (f"/{event.step}" if event.step else "")
