"""What a step needs of gevent, where gevent is there: waiting that lets other greenlets run, and a time limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import get_hub


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
