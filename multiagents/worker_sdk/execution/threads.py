"""Threads and locks of the operating system, also where gevent has replaced Python's.

gevent turns ``threading`` into greenlets of one thread. A greenlet cannot renew a lease while a step computes, and an
event loop in one makes every other ``asyncio.run`` of the process fail. What must really run beside the rest comes from
here.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol


class Lock(Protocol):
    """What is used of a lock."""

    def acquire(self, blocking: bool = ..., timeout: float = ..., /) -> bool:  # noqa: FBT001 - Python's own
        """Take it; False when the time went by before."""

    def release(self) -> None:
        """Give it back, from any thread."""

    def __enter__(self) -> bool: ...
    def __exit__(self, *exc_info: object) -> None: ...


def under_gevent() -> bool:
    """Whether gevent has replaced the threads of this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _original(name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    return getattr(_thread, name) if monkey is None else monkey.get_original("_thread", name)


def new_lock() -> Lock:
    """A lock that holds the whole thread, not a greenlet."""
    lock: Lock = _original("allocate_lock")()
    return lock


def ident() -> int:
    """The number of the thread this runs in; greenlets of one thread share it."""
    number: int = _original("get_ident")()
    return number


def start_daemon(target: Callable[[], None], name: str) -> None:
    """Run ``target`` in a thread of its own that does not keep the process alive."""
    if under_gevent():
        _original("start_new_thread")(target, ())
    else:
        threading.Thread(target=target, name=name, daemon=True).start()
