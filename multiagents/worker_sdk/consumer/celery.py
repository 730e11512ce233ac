"""What a worker process does for messages of the engine in Celery's own terms: acknowledging them, and the hard limit.

Celery arms a timer for the hard time limit of every message, and one that is cancelled stays in memory until it would
have rung. With an hour's limit that is an hour's worth of messages. So the engine's messages arm none: whoever runs
beyond its hard limit is found by looking at what runs, now and then.
"""

from __future__ import annotations

import time
from typing import Any

from celery import bootsteps
from celery.concurrency.prefork import TaskPool
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request

from multiagents.names import HEADER

logger = get_logger(__name__)

#: Seconds between two looks at what runs.
LOOK_EVERY = 2.0


class StepRequest(Request):
    """Treat the engine's messages as it needs, and messages of a plain ``.delay()`` as Celery would.

    Celery decides by the task, we have to by the message: one task serves both.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: seconds after which its process is killed; None is never, or Celery's own timer does it
        self.hard_limit: float | None = None
        if HEADER in self.request_dict and not self.task.time_limit:
            self.hard_limit, self.time_limits = self.time_limits[0], (None, None)

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Take note that the pool has begun; `acknowledge` may be called twice."""
        super().on_accepted(pid, time_accepted)
        if HEADER not in self.request_dict and not _acks_late(self.task):
            self.acknowledge()


def _acks_late(task: Any) -> bool:
    asked: bool | None = task.acks_late_outside_runs
    return bool(task.app.conf.task_acks_late if asked is None else asked)


class HardLimits(bootsteps.StartStopStep):
    """Kill pool processes whose step runs on beyond its hard limit: a function in C that no signal stops.

    A step of the consumer, which begins anew with every connection: Celery before 5.7 drops all timers with the old.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def include_if(self, consumer: Any) -> bool:
        """Only prefork has processes to kill."""
        return isinstance(consumer.pool, TaskPool)

    def start(self, consumer: Any) -> None:
        """Look every few seconds, from the worker's main loop."""
        self._entry = consumer.timer.call_repeatedly(LOOK_EVERY, kill_overdue, (consumer.pool,))

    def stop(self, _consumer: Any) -> None:
        """Look no more."""
        self._entry.cancel()


def kill_overdue(pool: Any) -> None:
    """Kill the processes of one pool that are over their hard limit."""
    now = time.time()
    for request in list(state.active_requests):
        limit = getattr(request, "hard_limit", None)
        if limit and request.time_start is not None and now - request.time_start > limit:
            logger.error(
                "%s could not be stopped, and is over its hard limit of %g s: its process is killed", request.id, limit
            )
            request.terminate(pool, signal="KILL")
