"""Which queues workers listen to."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

logger = logging.getLogger(__name__)

#: Seconds for which it is taken as known which queues are consumed: asking takes half a second.
CONSUMED_FOR = 10.0


class ConsumedQueues:
    """What the workers say when they are asked, kept for a while: one broadcast serves many steps.

    Args:
        app: the Celery app.
        seconds: for how long an answer is kept, at most `CONSUMED_FOR`.
    """

    def __init__(self, app: Any, seconds: float) -> None:
        self._app = app
        self._seconds = min(CONSUMED_FOR, seconds)
        #: when workers were asked, and what they said
        self._known: tuple[float, frozenset[str] | None] = (-math.inf, None)

    def has(self, queue: str) -> bool | None:
        """Whether a worker listens to a queue; None when no worker has answered, so that nobody knows."""
        asked, consumed = self._known
        if time.monotonic() - asked > self._seconds:
            consumed = self._ask()
            self._known = time.monotonic(), consumed
        return None if consumed is None else queue in consumed

    def _ask(self) -> frozenset[str] | None:
        try:
            # Not one of the pool's connections: it would be left waiting for replies, and a pool child that is forked
            # later would hang in closing it.
            with self._app.connection_for_write() as connection:
                active = self._app.control.inspect(timeout=0.5, connection=connection).active_queues()
        except Exception:
            logger.debug("the workers did not tell which queues they consume", exc_info=True)
            return None
        return frozenset(found["name"] for queues in active.values() for found in queues) if active else None
