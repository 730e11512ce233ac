"""Time limits for ordinary functions, on every pool.

How a function that takes too long is stopped depends on the pool:

- prefork and solo run it in the main thread: an alarm signal raises inside it;
- gevent raises inside it when it next yields to the hub;
- threads cannot be stopped: the run moves on at the limit, the late result is refused, and the slot stays taken.

Coroutines have their own way, on every pool alike: see `multiagents.worker_sdk.execution.event_loop`.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from multiagents.exceptions import TerminalError, WorkerError
from multiagents.interruption import Interruption, causes_of
from multiagents.worker_sdk.execution import threads

#: A function that swallows the alarm is interrupted again after so many seconds.
REPEAT_AFTER = 5.0


class StepTimeoutError(WorkerError):
    """A worker took longer than its time limit; what it did until then may have taken effect."""

    def __init__(self, worker: str, seconds: float) -> None:
        self.worker = worker
        self.seconds = seconds
        super().__init__(
            f'worker "{worker}" was stopped at its time limit of {seconds:g} s; make it faster, or give the worker or '
            f"its step a longer timeout= (seconds; 0 is none)"
        )


class TooLateError(TerminalError):
    """An attempt came to its worker when the time for all attempts of its step was over; the worker did not run."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        super().__init__(
            f'worker "{worker}" was not called: its step\'s schedule_to_close had passed before the attempt began; '
            f"give the step more time, or its queue more workers"
        )


class LimitReached(Interruption):
    """Raised inside the function when its time is over."""


def pool_of_caller() -> str:
    """The kind of Celery pool that the caller runs in, as far as stopping a function goes.

    Returns:
        ``"gevent"``; ``"main"`` for the main thread (prefork, solo); else ``"threads"``.
    """
    if threads.under_gevent():
        return "gevent"
    return "main" if threading.current_thread() is threading.main_thread() else "threads"


def call(function: Callable[[], Any], *, worker: str, seconds: float, pool: str) -> Any:
    """Call a function and stop it after a time, if the pool can.

    Args:
        function: what to call.
        worker: the worker's name, for the error.
        seconds: the limit; 0 is none.
        pool: what `pool_of_caller` says.

    Raises:
        StepTimeoutError: when the limit was reached and the function did not return a value all the same.
    """
    if not seconds or pool == "threads":
        return function()
    if pool == "gevent":
        return _in_greenlet(function, worker, seconds)
    return _with_alarm(function, worker, seconds)


def interrupt(function: Callable[[], Any], *, seconds: float, error: BaseException, pool: str) -> Any:
    """Call a function and raise an error inside it, once, after a time, if the pool can.

    Args:
        function: what to call.
        seconds: when.
        error: what is raised inside it; what comes of that is the function's.
        pool: what `pool_of_caller` says.
    """
    if pool == "threads":
        return function()
    if pool == "gevent":
        from multiagents.worker_sdk.execution.gevent import call_with_timeout

        return call_with_timeout(function, seconds, error)
    return _Alarm(seconds, error).call(function)


def _in_greenlet(function: Callable[[], Any], worker: str, seconds: float) -> Any:
    from multiagents.worker_sdk.execution.gevent import call_with_timeout

    started = time.monotonic()
    reached = LimitReached()
    try:
        return call_with_timeout(function, seconds, reached)
    except LimitReached as error:
        if error is not reached:
            raise
        raise StepTimeoutError(worker, seconds) from None
    except BaseException as error:
        # An error that came of being stopped (a `finally` that failed) is still a time-out: its effect is unknown.
        if time.monotonic() - started >= seconds and _caused_by(error, reached):
            raise StepTimeoutError(worker, seconds) from error
        raise


def _with_alarm(function: Callable[[], Any], worker: str, seconds: float) -> Any:
    alarm = _Alarm(seconds)
    try:
        return alarm.call(function)
    except LimitReached as error:
        if error is not alarm.reached:
            raise
        raise StepTimeoutError(worker, seconds) from None
    except BaseException as error:
        if alarm.fired and _caused_by(error, alarm.reached):
            raise StepTimeoutError(worker, seconds) from error
        raise


def _caused_by(error: BaseException, cause: BaseException) -> bool:
    return any(found is cause for found in causes_of(error))


#: Who is to be rung; with nobody there, and no timer wound, our handler stays where it is: putting one in and taking it
#: out again for every step would cost more than all else here.
_listeners: list[Callable[[int, FrameType | None], None]] = []


def _ring_last(signum: int, frame: FrameType | None) -> None:
    if _listeners:
        _listeners[-1](signum, frame)


def _listen(ring: Callable[[int, FrameType | None], None]) -> Any:
    """Have the alarm ring here; returns whose handler was in its place, None for nobody's."""
    before = signal.getsignal(signal.SIGALRM)
    if before is not _ring_last:
        signal.signal(signal.SIGALRM, _ring_last)
    _listeners.append(ring)
    return None if before is _ring_last or not callable(before) else before


def _stop_listening(before: Any) -> None:
    _listeners.pop()
    if before is not None:
        signal.signal(signal.SIGALRM, before)


class _Alarm:
    """The process's one alarm clock, lent to one call. Whoever had set it before is still woken in time."""

    __slots__ = ("_armed", "_before", "_before_at", "_due_at", "_once", "_outer", "_seconds", "fired", "reached")

    def __init__(self, seconds: float, once: BaseException | None = None) -> None:
        self._seconds = seconds
        self._armed = False
        self._before: Any = None
        self._before_at = 0.0
        self._due_at = 0.0
        self.fired = False
        self._once = once is not None
        #: that of a call around this one
        self._outer: Any = None
        self.reached: BaseException = LimitReached() if once is None else once

    def call(self, function: Callable[[], Any]) -> Any:
        self._outer = _listeners[-1] if _listeners else None
        self._before = _listen(self._ring)
        now = time.monotonic()
        self._due_at = now + self._seconds
        interval = 0.0
        try:
            try:
                self._armed = True
                # Winding tells what was wound before, so nobody need be asked for it.
                remaining, interval = self._wind(now)
                if remaining:
                    self._before_at = now + remaining
                    self._wind(now)
                return function()
            finally:
                # From here on a late ring does nothing: it would otherwise raise in code that is not the function's.
                self._armed = False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            _stop_listening(self._before)
            if self._before_at:
                signal.setitimer(signal.ITIMER_REAL, max(self._before_at - time.monotonic(), 0.001), interval)

    def _wind(self, now: float) -> tuple[float, float]:
        """Have it ring at the sooner of the two times; returns what was wound before: seconds left, and interval."""
        next_at = min(self._due_at, self._before_at or self._due_at)
        seconds = 0.0 if next_at == math.inf else max(next_at - now, 0.001)
        return signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT_AFTER)

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._before_at and now >= self._before_at:
            self._before_at = 0.0
            self._wind(now)
            before = self._before or self._outer
            if callable(before):
                before(signum, frame)
        if self._armed and now >= self._due_at:
            self.fired = True
            if self._once:
                self._armed, self._due_at = False, math.inf
                if self._before_at:
                    self._wind(now)
            raise self.reached
