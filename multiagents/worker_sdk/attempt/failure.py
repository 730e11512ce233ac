"""What a worker raised, as data: kind, whether to retry, and an error that can be stored and read."""

from __future__ import annotations

import asyncio
import os
import traceback
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from multiagents.events import ErrorInfo, ErrorKind
from multiagents.exceptions import OutcomeUnknownError, TerminalError
from multiagents.retry import RetryPolicy
from multiagents.worker_sdk.execution import timeouts

#: Bytes that are kept of a traceback (its end), and of a message (its beginning).
MAX_TRACEBACK = 16 * 1024
MAX_MESSAGE = 4 * 1024

#: Celery's time limits, by name: this module does not load Celery.
_TIME_LIMITS = {"billiard.exceptions.SoftTimeLimitExceeded", "billiard.exceptions.TimeLimitExceeded"}
_NOT_THE_WORKERS = tuple(f"{Path(file).resolve().parent}{os.sep}" for file in (Path(__file__).parent, asyncio.__file__))


class Classified(NamedTuple):
    """What an error means for the attempt."""

    kind: ErrorKind
    retryable: bool


def classify(error: BaseException, policy: RetryPolicy | None) -> Classified:
    """Say what kind of end an error is, and whether trying again may help.

    Args:
        error: what the worker raised, or what its arguments or result were refused with.
        policy: the retry policy in force; None for the default.
    """
    retryable = policy is None or policy.retries(error)
    if isinstance(error, OutcomeUnknownError):
        return Classified(ErrorKind.UNKNOWN, False)
    if isinstance(error, TerminalError):
        return Classified(ErrorKind.FAILED, False)
    if isinstance(error, timeouts.StepTimeoutError) or qualified_name(type(error)) in _TIME_LIMITS:
        return Classified(ErrorKind.TIMEOUT, retryable)
    return Classified(ErrorKind.FAILED, retryable)


def describe(error: BaseException, attempt: int) -> ErrorInfo:
    """The error as data that any store takes: bounded, valid UTF-8, and without the library's own frames."""
    try:
        message = str(error)
    except Exception as failure:  # noqa: BLE001 - whatever its author wrote
        message = f"(its message could not be read: {type(failure).__name__})"
    return ErrorInfo(
        type=qualified_name(type(error)), message=_head(message), traceback=_formatted(error), attempt=attempt
    )


def qualified_name(kind: type) -> str:
    """``ValueError``, ``shop.errors.CardDeclined``."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _formatted(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, _without_our_frames(error.__traceback__))
    except Exception as failure:  # noqa: BLE001 - rendering calls repr() and str() of foreign objects
        return f"(the traceback could not be rendered: {type(failure).__name__})"
    text = "".join(lines).encode(errors="replace")
    if len(text) > MAX_TRACEBACK:
        left_out = b"... (its beginning is left out)\n"
        text = left_out + text[len(left_out) - MAX_TRACEBACK :]
    return text.decode(errors="ignore")


def _without_our_frames(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is not ours: the worker's own."""
    first = frames
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_NOT_THE_WORKERS):
        first = first.tb_next
    return first


def _head(text: str) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= MAX_MESSAGE:
        return encoded.decode()
    return encoded[:MAX_MESSAGE].decode(errors="ignore") + " ..."
