"""Plain JSON: what can be written can be read, by whoever reads it, in whatever it is wrapped meanwhile.

Everything that a run keeps comes in through `plain`: its input, results, signals, what people supply, what user code
answers, events from outside. What it lets through is text, numbers, true, false, null, lists and mappings of text, at
most `MAX_DEPTH` levels deep. What is more than that is written as such where its text says all there is of it:

- what kombu's JSON carries: Decimal, UUID, date, time, datetime as their text, bytes as base64, what has ``__json__``,
  and types that were registered with ``kombu.utils.json.register_type``;
- enums, sets (as sorted lists), Pydantic models, dataclasses, and what else Pydantic writes: timedelta, Path and so on.

It is read back by Pydantic, where a parameter or a result is annotated. All else is refused, by its place.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from typing import Any
from uuid import UUID

from pydantic_core import PydanticSerializationError, from_json, to_jsonable_python

from multiagents.exceptions import MultiAgentsError, WorkflowError

__all__ = ["MAX_DEPTH", "MAX_WORDS", "canonical", "check_words", "digest", "dumps", "plain", "tidied"]

#: How deep lists and mappings may be nested. What reads them takes twice that, so they may be wrapped as deep again: in
#: events, lists of a map's results, contexts of children.
MAX_DEPTH = 100
#: What Python writes and reads of a whole number without being told otherwise, in digits.
MAX_DIGITS = 4300

#: Characters of what people say.
MAX_WORDS = 4096

#: In how many lists a text is read that may be deep: what reads JSON here goes down 201 levels.
_WRAPPED = MAX_DEPTH + 1
_TOO_LARGE = 10**MAX_DIGITS
#: Keys of a place that are shown, from its beginning.
_SHOWN = 8
_EXPECTED = (
    "expected text, finite numbers, True, False, None, lists and dicts with text as keys, what Celery's JSON takes "
    "(Decimal, UUID, dates, bytes, types that were registered), sets, enums, dataclasses and Pydantic models"
)

# Made once: `json.dumps` makes an encoder for every call that asks for anything but its defaults.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode
_encode_sorted = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False, sort_keys=True).encode


def dumps(value: Any) -> str:
    """Plain JSON as the store keeps it."""
    return _encode(value)


def canonical(value: Any) -> str:
    """Plain JSON in the one form that all equal values have, whatever the order of their keys.

    >>> canonical({"b": 1, "a": [2]}) == canonical({"a": [2], "b": 1})
    True
    """
    return _encode_sorted(value)


def digest(payload: Any) -> str:
    """A short hash of a payload, to compare it without keeping it twice; the same for all that are equal."""
    return sha256(canonical(payload).encode()).hexdigest()[:16]


def plain(value: Any, what: str, *, max_bytes: int = 0, error: type[MultiAgentsError] = WorkflowError) -> Any:
    """A value as plain JSON; a copy, which nobody else can change.

    Args:
        value: anything.
        what: what it is, as the beginning of a sentence: ``the input of run 'order-1'``.
        max_bytes: how large it may be, in bytes; 0 is without limit.
        error: what is raised.

    Raises:
        MultiAgentsError: when it cannot be written, or is too large. The message names the place, and shows no value.

    >>> from decimal import Decimal
    >>> plain({"total": Decimal("9.90"), "tags": {"b", "a"}}, "the input")
    {'total': '9.90', 'tags': ['a', 'b']}
    >>> plain({"lines": [{"price": float("nan")}]}, "the input")
    Traceback (most recent call last):
    multiagents.exceptions.WorkflowError: the input cannot be written as JSON: lines[0].price is nan, ...
    """
    try:
        text = _encode(value)
        if max_bytes and len(text) > max_bytes:
            read = value  # nothing more is done with so much
        else:
            read = from_json(text) if text.count("[") + text.count("{") <= MAX_DEPTH else _read_wrapped(text)
    except (TypeError, ValueError, RecursionError):
        read = None
    else:
        if read != value:  # a key that is no text, a tuple: what is read is not what was given
            read = None
    if read is None and value is not None:
        try:
            read = _walked(value, ())
            text = _encode(read)
        except _NotPlain as refused:
            where = _shown(refused.place)
            raise error(f"{what} cannot be written as JSON: {where} {refused.why}; {_EXPECTED}") from None
    if max_bytes:
        size = len(text) if text.isascii() else len(text.encode())
        if size > max_bytes:
            raise error(
                f"{what} is {size:,} bytes of JSON, more than the {max_bytes:,} of multiagents_max_payload_bytes; keep "
                f"the data elsewhere and give where it is, or raise the setting"
            )
    return read


def _read_wrapped(text: str) -> Any:
    """Read JSON that may be nested deep, and that others will read when it is wrapped.

    Raises:
        ValueError: when it is nested too deep for that.
    """
    read = from_json("[" * _WRAPPED + text + "]" * _WRAPPED)
    for _ in range(_WRAPPED):
        read = read[0]
    return read


def check_words(**words: str | None) -> None:
    """See that what people say (a reason, an actor, a key) can be kept.

    Raises:
        WorkflowError: when it is no text, no UTF-8, or too long.

    >>> check_words(reason="the customer asked for it", actor=None)
    """
    for name, said in words.items():
        if said is None:
            continue
        if not isinstance(said, str):
            raise WorkflowError(f"{name}={said!r:.80} is {_type(said)}; expected text, or None")
        if len(said) > MAX_WORDS:
            raise WorkflowError(
                f"{name}= has {len(said):,} characters ({said[:20]!a}...); expected {MAX_WORDS:,} at most: say where "
                f"the rest is"
            )
        try:
            said.encode()
        except UnicodeEncodeError:
            raise WorkflowError(
                f"{name}={said[:80]!a} has half a surrogate pair, which is no UTF-8; leave it out"
            ) from None


class _NotPlain(Exception):  # noqa: N818 - never leaves this module
    """A place in a value that cannot be written, and why."""

    def __init__(self, place: tuple[Any, ...], why: str) -> None:
        self.place = place
        self.why = why
        super().__init__(why)


def _walked(value: Any, place: tuple[Any, ...]) -> Any:
    """The value as plain JSON, looked at piece by piece: for what the encoder does not take as it is."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return _text(str.__str__(value), place)
    if isinstance(value, int):
        if not -_TOO_LARGE < value < _TOO_LARGE:
            raise _NotPlain(place, f"is a whole number of more than {MAX_DIGITS} digits")
        return int(value)
    if isinstance(value, float):
        if value - value != 0:
            raise _NotPlain(place, f"is {float(value)}, which is no number in JSON")
        return float(value)
    if len(place) >= MAX_DEPTH:
        raise _NotPlain(place, f"is nested more than {MAX_DEPTH} levels deep, or holds itself")
    if isinstance(value, Mapping):
        return {_key(key, place): _walked(inner, (*place, str(key))) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_walked(inner, (*place, index)) for index, inner in enumerate(value)]
    if isinstance(value, set | frozenset):
        return _sorted([_walked(inner, (*place, index)) for index, inner in enumerate(value)])
    return _walked(_written(value, place), place)


def _written(value: Any, place: tuple[Any, ...]) -> Any:
    """What stands for a value of a type that JSON does not have; it may have to be looked at again."""
    match value:
        case bytes() | bytearray() | memoryview():
            return b64encode(value).decode()
        case datetime() | date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case Decimal():
            if not value.is_finite():
                raise _NotPlain(place, f"is {value}, which is no number in JSON")
            return str(value)
        case Enum():
            return value.value
        case Iterator():
            raise _NotPlain(place, f"is {_type(value)}, which can be read only once: make it a list")
    from multiagents.kombu import written

    try:
        return written(value)
    except TypeError:
        pass
    try:
        return tidied(value, to_jsonable_python(value, bytes_mode="base64"))
    except (PydanticSerializationError, UnicodeDecodeError, ValueError, TypeError, RecursionError) as error:
        problem = "" if "unknown type" in str(error) else f", which Pydantic does not write ({error})"
        raise _NotPlain(place, f"is {_type(value)}{problem}") from None


def _sorted(items: list[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:  # of several types
        return sorted(items, key=canonical)


def tidied(value: Any, written: Any) -> Any:
    """What Pydantic has written of a value: lists that were sets in order, as theirs differs, and keys as text.

    Raises:
        ValueError: when two keys have the same text.
    """
    if isinstance(value, set | frozenset) and isinstance(written, list):
        return _sorted(written)
    if isinstance(written, dict):
        parts = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
        tidy = {_as_key(key): tidied(parts.get(key), part) for key, part in written.items()}
        if len(tidy) < len(written):
            raise ValueError(f"keys that are the same as text: {', '.join(map(repr, written)):.80}")
        return tidy
    if isinstance(written, list) and isinstance(value, list | tuple):
        return [tidied(part, item) for part, item in zip(value, written, strict=False)]
    return written


def _as_key(key: Any) -> Any:
    """A key of a mapping whose annotation says what it is: read back as that."""
    if isinstance(key, bool):
        return str(key).lower()
    return str(key) if isinstance(key, int | float) else key


def _key(key: Any, place: tuple[Any, ...]) -> str:
    if not isinstance(key, str):
        raise _NotPlain((*place, key), f"has a key that is {_type(key)} and not text: two such keys can become one")
    return _text(str.__str__(key), place)


def _text(value: str, place: tuple[Any, ...]) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _NotPlain(place, "is text with half a surrogate pair, which is no UTF-8") from None
    return value


def _type(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _shown(place: tuple[Any, ...]) -> str:
    """A place as it is written in Python and in paths: ``order.lines[3]['unit price']``."""
    shown = ""
    for part in place[:_SHOWN]:
        if isinstance(part, str) and part.isidentifier():
            shown += f".{part}" if shown else part
        else:
            shown += f"[{part!a:.80}]"
    return (shown + ("..." if len(place) > _SHOWN else "")) or "it"
