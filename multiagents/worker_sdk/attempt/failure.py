"""What a worker raised: what it means for the attempt, and what is told of it in the store and to Celery."""

from __future__ import annotations

import asyncio
import os
import pickle
from pathlib import Path
from typing import Any, NamedTuple

from multiagents.error_report import message_of, qualified_name, report
from multiagents.events import ErrorInfo, ErrorKind
from multiagents.exceptions import (
    MultiAgentsError,
    NeedsAttentionError,
    OutcomeUnknownError,
    TerminalError,
    WorkerError,
)
from multiagents.interruption import causes_of
from multiagents.plain_json import plain
from multiagents.retry import RetryPolicy
from multiagents.worker_sdk.execution import timeouts

#: Celery's time limits, by name: this module does not load Celery.
_TIME_LIMITS = {"billiard.exceptions.SoftTimeLimitExceeded", "billiard.exceptions.TimeLimitExceeded"}
_NOT_THE_WORKERS = tuple(f"{Path(file).resolve().parent}{os.sep}" for file in (Path(__file__).parent, asyncio.__file__))


class Classified(NamedTuple):
    """What an error means for the attempt."""

    kind: ErrorKind
    retryable: bool


#: Bytes of JSON that are kept of an error's details.
MAX_DETAILS = 16 * 1024


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
    return Classified(ErrorKind.TIMEOUT if is_time_out(error) else ErrorKind.FAILED, retryable)


def is_time_out(error: BaseException) -> bool:
    """Whether a time limit has stopped the step, also where an error has come of its being stopped."""
    if isinstance(error, timeouts.StepTimeoutError):
        return True
    return any(qualified_name(type(cause)) in _TIME_LIMITS for cause in causes_of(error))


def is_its_word(error: BaseException) -> bool:
    """Whether the worker says itself what is known of its effect."""
    return isinstance(error, TerminalError | OutcomeUnknownError)


def describe(error: BaseException, attempt: int) -> ErrorInfo:
    """The error as data that any store takes: bounded, valid UTF-8, and without the library's own frames."""
    told = report(error, attempt=attempt, hidden=_NOT_THE_WORKERS)
    details = error.details if isinstance(error, TerminalError) else None
    attention = isinstance(error, NeedsAttentionError)
    if details is None and not attention:
        return told
    return told.model_copy(update={"details": _written(details), "attention": attention})


def _written(details: Any) -> Any:
    """Details as they are kept; what cannot be is told of, and never costs the error that they belong to."""
    try:
        return plain(details, "the details of an error", max_bytes=MAX_DETAILS)
    except MultiAgentsError as error:
        return {"left_out": str(error)}


def as_told_to_celery(worker: str, error: BaseException) -> Exception:
    """What the task of a failed attempt ends with.

    Celery takes some errors for an order: `MemoryError`, ``SystemExit`` and the like end its process or the whole
    worker, and ``Ignore``, ``Reject`` and ``Retry`` are about a message that the engine has answered already.
    """
    if isinstance(error, Exception) and not _is_order(type(error)) and _is_harmless(error):
        return error
    told = WorkerError(f'worker "{worker}" raised {qualified_name(type(error))}: {message_of(error)}')
    told.__cause__ = error
    return told


def _is_order(kind: type) -> bool:
    return any(base.__name__ in ("TaskPredicate", "MemoryError") for base in kind.__mro__)


def _is_harmless(error: Exception) -> bool:
    """Whether Celery, which shows it and sends it to its main process, can at worst fail to do so."""
    try:
        repr(error), str(error), pickle.loads(pickle.dumps(error))  # noqa: S301 - made here, just now
    except Exception:  # noqa: BLE001 - whatever its author wrote; Celery expects as much
        return True
    except BaseException:  # noqa: BLE001 - as above
        return False
    return True
