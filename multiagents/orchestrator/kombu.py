"""Producers for a broker that commits cannot push to. They are kept open: connecting costs more than a message."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from kombu import Connection, Producer
from kombu.pools import ProducerPool

#: How many producers a process holds at most; whoever needs another one waits.
LIMIT = 10


class Producers:
    """The producers of a process; a forked child makes its own.

    Args:
        connect: makes the connection that is cloned for each of them; it need not be open.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._pid = 0
        self._pool: ProducerPool | None = None

    def acquire(self) -> AbstractContextManager[Producer]:
        """A producer, to be used in a ``with`` block."""
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                self._pool = ProducerPool(self._connect().Pool(limit=LIMIT), limit=LIMIT)
                self._pid = os.getpid()
            pool = self._pool
        producer: AbstractContextManager[Producer] = pool.acquire(block=True)
        return producer
