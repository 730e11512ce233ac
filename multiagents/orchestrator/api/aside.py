"""Short reads for coroutines, in a few threads of ours: an event loop's own may all be taken by its user."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TypeVar

_T = TypeVar("_T")

#: How many reads are under way at once, whoever waits for them; each takes a round trip or two.
THREADS = 4


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="multiagents-read")


# After a fork the threads are the parent's.
os.register_at_fork(after_in_child=_threads.cache_clear)


async def aside(read: Callable[[], _T]) -> _T:
    """Do as `asyncio.to_thread`, but never behind others' work."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_threads(), partial(context.run, read))
