"""What a worker process does for messages of the engine in Celery's own terms.

It says whose they are, acknowledges them, sees to their end, and says which of them it has not begun with.

Celery arms a timer for the hard time limit of every message, and one that is cancelled stays in memory until it would
have rung. With an hour's limit that is an hour's worth of messages. So the engine's messages arm none: whoever runs
beyond its hard limit is found by looking at what runs, now and then.

When a process ends before its step does, its parent knows, and says so: to who is in `broken_off`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from signal import SIGKILL, SIGTERM
from typing import Any

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # its stubs lack it
from celery import bootsteps, signals
from celery.concurrency.prefork import TaskPool
from celery.concurrency.solo import TaskPool as SoloPool
from celery.exceptions import WorkerTerminate
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request

from multiagents.clock import to_ms
from multiagents.exceptions import MultiAgentsError, did_you_mean
from multiagents.names import CALL_TASK, CALLED, HEADER, Correlation
from multiagents.worker_sdk.attempt import broken_off, in_hand
from multiagents.worker_sdk.consumer.deaths import Deaths
from multiagents.worker_sdk.execution import threads
from multiagents.worker_sdk.tasks import Answered

logger = get_logger(__name__)

_came = itertools.count()
#: When this process began, by its own clock.
_BEGAN = time.monotonic()
#: Seconds between two looks at what runs.
LOOK_EVERY = 2.0
#: A process is killed so many seconds after the time limit of what it runs, which it is to keep itself.
HARD_LIMIT_GRACE = 10.0
#: Seconds that a worker, which is shut down cold, waits for threads that nothing can stop.
LAST_WAIT = 2.0

#: Seconds; gevent's pool takes none for its own limit.
NO_LIMIT = 1e9
_deaths = Deaths()


class StepRequest(Request):
    """Treat the engine's messages as it needs, and messages of a plain ``.delay()`` as Celery would.

    Celery decides by the task, we have to by the message: one task serves both.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: whether the engine has sent it
        self.is_step = HEADER in self.request_dict
        #: how many had come before it
        self.came = next(_came)
        #: seconds after which its process is killed; None is never, or Celery's own timer does it
        self.hard_limit: float | None = None
        #: when the pool has begun, by a clock that nobody sets
        self.begun: float | None = None
        #: nobody knew what its process had in hand when it was last looked at
        self.seen_empty = False
        #: why its process was killed from here
        self.killed = ""
        if self.is_step:
            limits = (self.time_limits[0], *(limit + HARD_LIMIT_GRACE for limit in _time_limits(self.task)))
            self.hard_limit = min(filter(None, limits), default=None)
            self.time_limits = (NO_LIMIT if threads.under_gevent() else None, self.time_limits[1])

    def revoked(self) -> bool:
        """Whether ``celery control revoke`` holds: what was said of an earlier run with this id does not (rule S32)."""
        if self.is_step and self.id in state.revoked and _was_of_an_earlier_run(self):
            state.revoked.discard(self.id)
        found: bool = super().revoked()
        return found

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Take note that the pool has begun; `acknowledge` may be called twice."""
        super().on_accepted(pid, time_accepted)
        if self.is_step:
            self.begun = self.begun or time.monotonic()
            self._disarm()
        if not self.is_step and not _acks_late(self.task):
            self.acknowledge()

    def _disarm(self) -> None:
        """The process that runs it keeps its time limit: billiard has just armed its own, which would kill it."""
        made: Any = getattr(self, "_apply_result", None)
        job: Any = None if made is None else made()
        if getattr(job, "_timeout", None) and job._on_timeout_cancel:  # noqa: SLF001 - there is no other way
            job._on_timeout_cancel(job)  # noqa: SLF001 - as above
            job._timeout = None  # noqa: SLF001 - as above
            if job._soft_timeout:  # noqa: SLF001 - as above
                job._on_timeout_set(job, job._soft_timeout, None)  # noqa: SLF001 - as above

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """Tell of a process that has ended before its step."""
        super().on_failure(exc_info, *args, **kwargs)
        raised = exc_info.exception
        raised = raised.exc if isinstance(raised, ExceptionWithTraceback) else raised
        if isinstance(raised, Answered):  # Celery says nothing of what is ignored: monitors would see it run for ever
            self.send_event("task-failed", exception=str(raised), traceback="")
        why = self.killed or _deaths.why(raised)
        if self.is_step and why:
            self.broken_off(why)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:  # noqa: FBT001, FBT002 - Celery's
        """Stop the step: its worker is shut down cold (``emit_retry`` is False then), or has lost its broker."""
        if not self.is_step:
            super().cancel(pool, signal, emit_retry)
        elif isinstance(pool, TaskPool) and self.time_start:
            self._already_cancelled = True  # else Celery takes its end for a revocation
            self.killed = "was told to stop, as its worker was"
            pool.terminate_job(self.worker_pid, SIGTERM)
        elif isinstance(pool, SoloPool):
            # This is a signal's handler, and the step stands beneath it: nothing else ends it. Celery before 5.7 notes
            # that the worker ends only when its handler is through.
            state.should_terminate = 1  # type: ignore[assignment]  # its stubs know None alone
            raise WorkerTerminate(1)
        elif not emit_retry:
            _let_go(pool)

    def broken_off(self, why: str) -> None:
        """Tell whoever listens that its process has ended, or is ending, before the step."""
        pid = self.worker_pid if isinstance(self.worker_pid, int) and not threads.under_gevent() else os.getpid()
        for tell in broken_off:
            tell(self.task, self.id, self.kwargs, self.hostname, pid, why)


def _time_limits(task: Any) -> list[float]:
    """What Celery is told of how long a task may take."""
    return [limit for limit in (task.time_limit, task.app.conf.task_time_limit) if limit]


def _let_go(pool: Any) -> None:
    """Have a pool of threads or greenlets not wait for what it runs: that ends with the worker."""
    executor = getattr(pool, "executor", None)
    if isinstance(executor, ThreadPoolExecutor):
        executor.shutdown(wait=False, cancel_futures=True)
        pool.executor = ThreadPoolExecutor(1)
    elif pool.is_green and hasattr(pool, "Pool"):
        pool._pool = pool.Pool(pool.limit)  # noqa: SLF001 - what its `stop` waits for


def held() -> list[Correlation]:
    """The attempts whose messages this worker has taken and not begun with, oldest first."""
    # Sets of the worker's main loop, which changes them meanwhile; a copy that breaks is made again.
    while True:
        try:
            waiting = [request for request in list(state.reserved_requests) if isinstance(request, StepRequest)]
            begun = set(map(id, list(state.active_requests)))
        except RuntimeError:
            continue
        break
    waiting = [request for request in waiting if id(request) not in begun and _is_attempt(request)]
    return list(dict.fromkeys(map(_attempt_of, sorted(waiting, key=lambda request: request.came))))


def _is_attempt(request: StepRequest) -> bool:
    """Whether it is a step's message of the engine's; the orchestrator's have ids of no attempt."""
    return HEADER in request.request_dict and request.id.count("/") == 3


def _attempt_of(request: StepRequest) -> Correlation:
    return Correlation.parse(request.id)._replace(nonce=request.kwargs.get("nonce", ""))


def _was_of_an_earlier_run(request: StepRequest) -> bool:
    """Whether the id of a step was revoked before its run was there; if that is not known, it was not.

    Celery's workers keep revoked ids for hours, and nothing else tells the step of one run from that of the next.
    Both lengths of time are taken by one clock each: that of this machine, and the store's.
    """
    revoked_at = state.revoked.as_dict().get(request.id)
    store = getattr(request.task.app, "multiagents_patient_store", None)
    # What another worker has told of at the start may have the time of another machine.
    if store is None or revoked_at is None or revoked_at < _BEGAN or not _is_attempt(request):
        return False
    ago, attempt = time.monotonic() - revoked_at, _attempt_of(request)
    try:
        found = store().load(attempt.transaction_id)
    except MultiAgentsError as error:
        logger.warning("%s counts as revoked: its run cannot be looked at: %s", request.id, error)
        return False
    if found.state.nonce != attempt.nonce or found.state.started_at is None:
        return False
    age_ms: int = to_ms(found.now) - found.state.started_at
    return age_ms < ago * 1000


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


class StepsInHand(bootsteps.StartStopStep):
    """See to the end of what the pool runs: a function in C that no signal stops, and the end of the worker itself.

    A step of the consumer, which begins anew with every connection: Celery before 5.7 drops all timers with the old.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _entry: Any = None

    def start(self, consumer: Any) -> None:
        """Look every few seconds, from the worker's main loop; only prefork has processes to kill."""
        if isinstance(consumer.pool, TaskPool):
            store = getattr(consumer.app, "multiagents_patient_store", None)
            self._entry = consumer.timer.call_repeatedly(LOOK_EVERY, kill_overdue, (store,))

    def stop(self, _consumer: Any) -> None:
        """Look no more."""
        if self._entry is not None:
            self._entry.cancel()

    def shutdown(self, consumer: Any) -> None:
        """Give up what still runs when the worker ends: it was shut down cold, and its pool is gone."""
        left = [request for request in list(state.active_requests) if getattr(request, "is_step", False)]
        for request in left:
            request.broken_off("was shut down")
        if left and not isinstance(consumer.pool, TaskPool):
            # Python waits for its threads: for an hour, if a step takes one.
            threads.start_daemon(_end_soon, "multiagents-end")


def _end_soon() -> None:
    time.sleep(LAST_WAIT)
    os._exit(1)


def kill_overdue(store: Any = None) -> None:
    """Kill the processes that are over the hard limit of what they have in hand.

    Args:
        store: makes the store that knows what they have: a local step has a limit of its own. None: the message says.
    """
    now = time.monotonic()
    for request in list(state.active_requests):
        limit = getattr(request, "hard_limit", None)
        if not limit or request.begun is None or now - request.begun <= limit:
            continue
        if store is not None and _goes_on(request, store, now):
            continue
        logger.error(
            "%s could not be stopped, and is over its hard limit of %g s: its process is killed", request.id, limit
        )
        request.killed = f"could not be stopped, and was killed at its hard limit of {limit:g} s"
        with contextlib.suppress(ProcessLookupError):
            os.kill(request.worker_pid, SIGKILL)


def _goes_on(request: Any, store: Any, now: float) -> bool:
    """Whether a process that is over the limit of its message is within that of what it has in hand by now."""
    try:
        attempt = Correlation.parse(request.id)._replace(nonce=request.kwargs.get("nonce", ""))
        known = store()
        held = [found for _, found in in_hand(known, attempt, request.hostname, request.worker_pid)]
        at = to_ms(known.now()) if held else 0
    except MultiAgentsError as error:
        logger.warning("what %s has in hand is not known, so it is not killed yet: %s", request.id, error)
        return True
    if not held:  # It may just be over.
        first, request.seen_empty = not request.seen_empty, True
        return first
    request.seen_empty = False
    if not all(found.deadline_ms for found in held):
        request.hard_limit = None
        return True
    left = max(found.deadline_ms for found in held) / 1000 - at / 1000 + HARD_LIMIT_GRACE
    if left <= 0:
        return False
    request.hard_limit = now - request.begun + left
    return True
