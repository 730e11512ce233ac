"""What a worker process does for messages of the engine in Celery's own terms: whose they are, acknowledging them, and
the hard limit.

Celery arms a timer for the hard time limit of every message, and one that is cancelled stays in memory until it would
have rung. With an hour's limit that is an hour's worth of messages. So the engine's messages arm none: whoever runs
beyond its hard limit is found by looking at what runs, now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from celery import bootsteps, signals
from celery.concurrency.prefork import TaskPool
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request

from multiagents.exceptions import did_you_mean
from multiagents.names import CALL_TASK, CALLED, HEADER

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


class StepMessages(bootsteps.StartStopStep):
    """Take the engine's messages for what they are, whatever task they name.

    - A name that is here, and no worker's, is that of a Celery task which knows nothing of runs: called with the ids of
      a step it would do whatever it does, again and again. So it is called as `celery_task` calls it, under a claim.
    - A name that is not here may be elsewhere. The engine offers the step again, and one line says so: Celery's own way
      is a dump of the message, each time, and a failure in the result backend.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """Begin, with each connection."""
        strategies = consumer.strategies
        for name, task in consumer.app.tasks.items():
            if not hasattr(task, "worker_queue") and not name.startswith(_LIBRARIES):
                strategies[name] = partial(_as_called, strategies, name, strategies[name])
        known = type(consumer).on_unknown_task.__get__(consumer)
        consumer.on_unknown_task = partial(_not_here, consumer, known, set())


#: What the names of tasks begin with that are no user's.
_LIBRARIES = ("celery.", "multiagents.")


def _as_called(
    strategies: Mapping[str, Any], name: str, strategy: Callable[..., Any], message: Any, *args: Any, **kwargs: Any
) -> Any:
    """Receive a message for a Celery task that is no worker."""
    if HEADER in (message.headers or ()):
        message.headers.update({"task": CALL_TASK, CALLED: name})
        strategy = strategies[CALL_TASK]
    return strategy(message, *args, **kwargs)


def _not_here(
    consumer: Any, strategy: Callable[..., Any], told: set[str], body: Any, message: Any, error: Exception
) -> Any:
    """Receive a message for a task that this process does not have."""
    headers = message.headers or {}
    if HEADER not in headers:
        return strategy(body, message, error)
    name, identity = headers["task"], headers["id"]
    if name not in told:
        told.add(name)
        logger.warning(
            'step %s came to this process, which has no worker "%s"%s; it is offered to others, and again, and fails '
            "when that has gone on for multiagents_schedule_to_start. Import the module that defines it",
            identity,
            name,
            did_you_mean(name, [known for known in consumer.app.tasks if not known.startswith(_LIBRARIES)]),
        )
    message.reject_log_error(logger, consumer.connection_errors)
    signals.task_unknown.send(sender=consumer, message=message, exc=error, name=name, id=identity)
    return None


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
