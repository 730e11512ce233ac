"""What a step needs of gevent, where gevent is there: waiting that lets other greenlets run, and a time limit."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import get_hub

from multiagents.worker_sdk.execution import threads


class HubWaiter:
    """Let one greenlet wait for another thread: the thread wakes it through the hub, which goes on meanwhile."""

    def __init__(self) -> None:
        self._event = Event()
        self._watcher = get_hub().loop.async_()
        self._watcher.start(self._event.set)

    def wait(self, timeout: float | None) -> bool:
        """Wait until `wake`; False when ``timeout`` seconds went by before it."""
        return bool(self._event.wait(timeout))

    def wake(self) -> None:
        """End the wait. May be called from any thread."""
        self._watcher.send_ignoring_arg(None)

    def close(self, *, woken: bool) -> None:
        """Give back the watcher; to be called in the greenlet that waited.

        Args:
            woken: whether `wake` was called. If not, it may still be, and a closed watcher must not be sent to.
        """
        self._watcher.stop()
        if woken:
            self._watcher.close()


def call_with_timeout(call: Callable[[], Any], seconds: float, reached: BaseException) -> Any:
    """Call, and raise ``reached`` inside when it has not returned after ``seconds`` and yields to the hub."""
    with gevent.Timeout(seconds, reached):
        return call()


class AbandonedError(Exception):
    """The greenlet for which something ran beside it waits no more: it was interrupted."""


class _Call:
    """A call that one thread makes and another waits for."""

    __slots__ = ("_done", "_error", "_function", "_result")

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = threads.new_lock()
        self._done.acquire()

    def make(self) -> None:
        """Make it."""
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            self._error = error
        self._done.release()

    def refuse(self) -> None:
        """Make it never."""
        self._error = AbandonedError("nobody waits for this any more")
        self._done.release()

    def outcome(self) -> Any:
        """What it has come to, once it was made; this holds the whole thread."""
        with self._done:
            if self._error is None:
                return self._result
            raise self._error


class Beside:
    """Let a function that does not yield to the hub run in a thread of its own, while one greenlet waits for it."""

    def __init__(self) -> None:
        self._loop = get_hub().loop
        self._news = Event()
        self._told: deque[_Call] = deque()
        self._is_left = False

    def here(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function as the one that runs beside is to call it: it runs in the greenlet that waits.

        Raises:
            AbandonedError: when none does.
        """

        def called(*args: Any, **keywords: Any) -> Any:
            call = _Call(partial(function, *args, **keywords))
            self._tell(call)
            if self._is_left:
                raise AbandonedError(f"nobody waits for {function!r} any more")
            return call.outcome()

        return called

    def run(self, function: Callable[[], Any]) -> Any:
        """Call it, and return what it returns. Who is interrupted leaves it behind: it ends by itself."""
        end = _Call(partial(contextvars.copy_context().run, function))

        def main() -> None:
            end.make()
            self._tell(end)

        threads.start_daemon(main, "multiagents-beside")
        try:
            while True:
                self._news.wait()
                self._news.clear()
                while self._told:
                    call = self._told.popleft()
                    if call is end:
                        return end.outcome()
                    call.make()
        finally:
            self._is_left = True
            for call in self._told:
                if call is not end:
                    call.refuse()

    def _tell(self, call: _Call) -> None:
        self._told.append(call)
        self._loop.run_callback_threadsafe(self._news.set)
