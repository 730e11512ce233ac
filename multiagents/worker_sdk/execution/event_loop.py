"""One event loop for all coroutines of a process, in a thread of its own.

A loop a call would break every pooled client ("Event loop is closed"), so workers share one. It is started by the first
coroutine, after the fork, and *created* inside its own thread, which under gevent has to be a real one. The caller
waits; its context variables are seen by the coroutine.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
from collections.abc import Awaitable
from typing import Any, Protocol

from multiagents.exceptions import WorkerError
from multiagents.worker_sdk.execution import threads
from multiagents.worker_sdk.execution.timeouts import StepTimeoutError

#: Seconds that a coroutine has after its limit to end by itself; then the caller no longer waits for it.
GRACE = 5.0


class Waiter(Protocol):
    """One wait for another thread."""

    def wait(self, timeout: float | None) -> bool:
        """Wait until `wake`; False when the time went by before it."""

    def wake(self) -> None:
        """End the wait. May be called from any thread."""

    def close(self, *, woken: bool) -> None:
        """Give back what the wait took; ``woken`` says whether `wake` was called."""


class _LockWaiter:
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threads.new_lock()
        self._lock.acquire()

    def wait(self, timeout: float | None) -> bool:
        return self._lock.acquire(True, -1 if timeout is None else timeout)

    def wake(self) -> None:
        self._lock.release()

    def close(self, *, woken: bool) -> None:
        pass


def _new_waiter() -> Waiter:
    if not threads.under_gevent():
        return _LockWaiter()
    from multiagents.worker_sdk.execution.gevent import HubWaiter

    return HubWaiter()


class _Call:
    """One awaitable on its way through the loop."""

    __slots__ = ("awaitable", "cancelled", "context", "error", "result", "seconds", "task", "waiter", "worker")

    def __init__(self, awaitable: Awaitable[Any], seconds: float, worker: str) -> None:
        self.awaitable = awaitable
        self.seconds = seconds
        self.worker = worker
        self.context = contextvars.copy_context()
        self.waiter = _new_waiter()
        self.task: asyncio.Task[None] | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.cancelled = False

    def start(self) -> None:
        """Begin; runs in the loop's thread."""
        self.task = asyncio.get_running_loop().create_task(self._run(), context=self.context)

    def cancel(self) -> None:
        """Stop; runs in the loop's thread."""
        if self.task is not None:
            self.task.cancel()

    async def _run(self) -> None:
        limit: asyncio.Timeout | None = None
        try:
            if self.seconds:
                async with asyncio.timeout(self.seconds) as limit:
                    self.result = await self.awaitable
            else:
                self.result = await self.awaitable
        except asyncio.CancelledError as error:
            self.error = WorkerError(f'worker "{self.worker}" cancelled the task it runs in; let the coroutine return')
            self.error.__cause__ = error
        except BaseException as error:  # noqa: BLE001 - below
            # Nothing may leave this coroutine: a SystemExit that did would end the loop, and every step in it.
            if limit is not None and limit.expired():
                self.error = StepTimeoutError(self.worker, self.seconds)
                self.error.__cause__ = error if not isinstance(error, TimeoutError) else None
            else:
                self.error = error
        finally:
            if not self.cancelled:
                self.waiter.wake()


class LoopThread:
    """An event loop that runs in its own thread until it is closed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ident = 0
        self._closing = False
        self._failure: BaseException | None = None
        ready = threads.new_lock()
        ready.acquire()
        self._ended = threads.new_lock()
        self._ended.acquire()
        self._ready = ready
        threads.start_daemon(self._main, "multiagents-loop")
        ready.acquire()
        if self._loop is None:
            raise WorkerError(
                f"the event loop for coroutine workers did not start: {self._failure!r}"
            ) from self._failure

    def _main(self) -> None:
        try:
            self._ident = threads.ident()
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            self._loop = loop
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for the thread
            self._failure = error
            return
        finally:
            self._ready.release()
        try:
            while not self._closing:  # a coroutine may stop it: the others go on
                loop.run_forever()
            self._wind_up(loop)
        finally:
            loop.close()
            self._ended.release()

    @staticmethod
    def _wind_up(loop: asyncio.AbstractEventLoop) -> None:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=1))
        loop.run_until_complete(loop.shutdown_asyncgens())

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in the loop's own thread, where waiting for the loop would be for ever."""
        return self._ident == threads.ident()

    def run(self, awaitable: Awaitable[Any], seconds: float, worker: str) -> Any:
        """Await in the loop and return what it returns; the caller's thread (or greenlet) waits.

        Raises:
            StepTimeoutError: when it takes longer than ``seconds`` (0 is without limit).
        """
        loop = self._loop
        assert loop is not None
        call = _Call(awaitable, seconds, worker)
        try:
            loop.call_soon_threadsafe(call.start)
            if not call.waiter.wait(seconds + GRACE if seconds else None):
                raise StepTimeoutError(worker, seconds)  # noqa: TRY301 - leaves the call as an interrupt does
        except BaseException:
            # The caller was interrupted (Ctrl-C, a soft time limit, a killed greenlet): nobody waits any more.
            self._abandon(call)
            raise
        call.waiter.close(woken=True)
        error, result = call.error, call.result
        del call
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # else the traceback keeps this frame, and the frame the traceback

    def _abandon(self, call: _Call) -> None:
        assert self._loop is not None
        call.cancelled = True
        call.waiter.close(woken=False)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call.cancel)

    def close(self, timeout: float = 2.0) -> None:
        """Cancel what still runs, end the thread, and wait for that at most ``timeout`` seconds."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        self._closing = True
        with contextlib.suppress(RuntimeError):  # it has just closed
            loop.call_soon_threadsafe(loop.stop)
        self._ended.acquire(True, timeout)


_shared: LoopThread | None = None
_starting = threads.new_lock()


def run(awaitable: Awaitable[Any], *, seconds: float = 0.0, worker: str = "") -> Any:
    """Await in the loop of this process, which the first call starts.

    Args:
        awaitable: what to await. It sees the context variables of the caller.
        seconds: time limit; 0 is none.
        worker: the worker's name, for errors.

    Raises:
        StepTimeoutError: when the limit was reached; the coroutine is cancelled.
    """
    global _shared
    shared = _shared
    if shared is None:
        with _starting:
            shared = _shared
            if shared is None:
                shared = _shared = LoopThread()
    if not shared.is_current:
        return shared.run(awaitable, seconds, worker)
    # A coroutine that runs a step in its own process (task_always_eager) cannot wait for the loop it stands in.
    nested = LoopThread()
    try:
        return nested.run(awaitable, seconds, worker)
    finally:
        nested.close()


def close() -> None:
    """End the loop of this process, if there is one; the next coroutine starts another."""
    global _shared
    shared, _shared = _shared, None
    if shared is not None:
        shared.close()


def _forget_after_fork() -> None:
    # Threads do not survive a fork; the child must not wait for its parent's loop.
    global _shared, _starting
    _shared = None
    _starting = threads.new_lock()


os.register_at_fork(after_in_child=_forget_after_fork)
