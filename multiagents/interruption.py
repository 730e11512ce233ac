"""What was put into user code from outside, told from what it raised itself.

What a step raises is its own word, whatever class it has: a library's panic, ``sys.exit()``, ``MemoryError``. It has
failed, and that is recorded at once. A signal, a limit around it, a greenlet that is killed say nothing of the step:
how far it came nobody knows, and whoever has put that in wants this code to end.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from types import CodeType

__all__ = ["Interruption", "causes_of", "child_is_ending", "is_interrupted"]

#: Celery's own, raised in the main thread of a worker that is told to stop (solo, gevent).
_SHUTDOWNS = ("WorkerShutdown", "WorkerTerminate")


class Interruption(BaseException):
    """Stops a function from within: a ``BaseException``, so that its ``except Exception`` does not swallow it."""


def is_interrupted(error: BaseException) -> bool:
    """Whether an error that came out of user code, or what led to it, was put in from outside.

    Args:
        error: what came out. An error that a ``finally`` has raised over an interruption counts as that.
    """
    handlers = _signal_handlers() if threading.current_thread() is threading.main_thread() else frozenset()
    return any(_is_put_in(cause, handlers) for cause in causes_of(error))


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and all that led to it."""
    waiting, seen = [error], set()
    while waiting:
        cause = waiting.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__context__, cause.__cause__]


def _is_put_in(error: BaseException, handlers: frozenset[CodeType]) -> bool:
    kind = type(error)
    if isinstance(error, Interruption):
        return True
    if kind is SystemExit and child_is_ending():
        return True
    if kind.__name__ in _SHUTDOWNS and kind.__module__ == "celery.exceptions":
        return _worker_is_ending()
    if kind.__name__ == "GreenletExit":
        return True
    if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return threading.current_thread() is threading.main_thread()
    frames = error.__traceback__ if handlers else None
    while frames is not None:
        if frames.tb_frame.f_code in handlers:
            return True
        frames = frames.tb_next
    return False


def _signal_handlers() -> frozenset[CodeType]:
    """The code of every signal handler that is installed here: what one of them raises comes out of whatever runs."""
    # An alarm is a clock that code of this very process has set.
    numbers = signal.valid_signals() - {signal.SIGALRM}
    found = (getattr(signal.getsignal(number), "__code__", None) for number in numbers)
    return frozenset(code for code in found if code is not None)


def child_is_ending() -> bool:
    """Whether a signal has told this child of a prefork pool to end: billiard notes it, and raises ``SystemExit``."""
    common = sys.modules.get("billiard.common")
    return bool(getattr(common, "_should_have_exited", (False,))[0])


def _worker_is_ending() -> bool:
    """Whether this worker has been told to stop."""
    state = sys.modules.get("celery.worker.state")
    return any(getattr(state, flag, None) not in (None, False) for flag in ("should_stop", "should_terminate"))
