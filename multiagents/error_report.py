"""What user code raised, as data that any store takes: bounded, valid UTF-8, whatever its author wrote."""

from __future__ import annotations

import traceback
from types import TracebackType

from multiagents.events import ErrorInfo

__all__ = ["MAX_MESSAGE", "MAX_TRACEBACK", "message_of", "qualified_name", "report"]

#: Bytes that are kept of a traceback (its end), of a message and of a type (their beginning).
MAX_TRACEBACK = 16 * 1024
MAX_MESSAGE = 4 * 1024
MAX_TYPE = 512


def report(error: BaseException, *, attempt: int = 1, hidden: tuple[str, ...] = ()) -> ErrorInfo:
    """The error as data.

    Args:
        error: what was raised.
        attempt: the attempt that failed, from 1.
        hidden: what the paths of files begin with whose frames are left out at the head of the traceback.
    """
    return ErrorInfo(
        type=qualified_name(type(error)),
        message=_head(message_of(error), MAX_MESSAGE),
        traceback=_formatted(error, hidden),
        attempt=attempt,
    )


def qualified_name(kind: type) -> str:
    """``ValueError``, ``shop.errors.CardDeclined``."""
    name = str(kind.__qualname__) if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return _head(name, MAX_TYPE)


def message_of(error: BaseException) -> str:
    """What an error says."""
    try:
        return str(error)
    except BaseException as failure:  # noqa: BLE001 - whatever its author wrote
        return f"(its message could not be read: {type(failure).__name__})"


def _formatted(error: BaseException, hidden: tuple[str, ...]) -> str:
    try:
        lines = traceback.format_exception(type(error), error, _without(error.__traceback__, hidden))
        text = "".join(lines).encode(errors="replace")
    except BaseException as failure:  # noqa: BLE001 - rendering calls repr() and str() of foreign objects
        return f"(the traceback could not be rendered: {type(failure).__name__})"
    if len(text) > MAX_TRACEBACK:
        left_out = b"... (its beginning is left out)\n"
        text = left_out + text[len(left_out) - MAX_TRACEBACK :]
    return text.decode(errors="ignore")


def _without(frames: TracebackType | None, hidden: tuple[str, ...]) -> TracebackType | None:
    """The traceback from the first frame on that is not hidden."""
    first = frames
    while first is not None and hidden and first.tb_frame.f_code.co_filename.startswith(hidden):
        first = first.tb_next
    return first


def _head(text: str, limit: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[:limit].decode(errors="ignore") + " ..."
