"""Run a Celery task that knows nothing of workflows, and answer what it asks of Celery.

It gets a request like any other: an id (that of the attempt), the node's name, time limits, ``update_state()``. What it
asks by way of it, the engine does:

- ``retry()``, and with it ``autoretry_for``: a failed attempt, and the next one when the task says, ``max_retries``
  times. The step's own policy is for what the task raises itself, and does not multiply this.
- ``Ignore``: it is done, and has nothing to tell. ``Reject``: it has failed for good, or, with ``requeue=True``, is
  given back and comes again.
- ``replace()`` is refused: a step is one task.

Celery's own tracer calls it. So whoever listens to it (its ``on_failure`` and the other hooks, signals, what watches
for errors) is told what they would be told without us: each attempt is one execution of the task.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from celery import VERSION, current_task, signals
from celery.app import trace
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded
from celery.states import IGNORED, REJECTED, RETRY

from multiagents.exceptions import TerminalError
from multiagents.worker_sdk.attempt.asked import GivenBack, RetryAsked, TaskFailed
from multiagents.worker_sdk.execution import timeouts

if TYPE_CHECKING:
    from multiagents.worker_sdk.attempt import StepContext


def run(task: Any, step: StepContext, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a task as Celery's tracer does, for an attempt.

    Args:
        task: the task.
        step: the attempt.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Raises:
        RetryAsked: when the task has asked to be tried again, or is not to be.
        GivenBack: when it is to come again, and this was no attempt.
        TaskFailed: when it has failed, and Celery has told of it.
        StepTimeoutError: when it was stopped at its own hard limit.
    """
    _adopt(task)
    call = _Call()
    request = _request(task, step, args, kwargs, call)
    _limited(task, partial(_trace, task, request, call))
    if call.asked is not None:
        raise call.asked
    return call.returned


def _trace(task: Any, request: dict[str, Any], call: _Call) -> None:
    """Have Celery's own tracer call it: so its hooks and signals are those that it has without us, and no others."""
    tracer = None if request["is_eager"] else task.__trace__  # a worker has made it
    if tracer is None:
        tracer = trace.build_tracer(task.name, task, eager=request["is_eager"], app=task.app)
    try:
        ended = tracer(request["id"], request["args"], request["kwargs"], request)
    except Reject as rejected:  # raised by one of its hooks
        raise _rejected(rejected) from rejected
    if ended.info is None:
        call.returned = ended.retval
    elif ended.info.state != IGNORED:
        error = ended.info.retval
        if isinstance(error, Reject) and not error.args[1] and VERSION >= (5, 7):
            _tell_of_rejection(task, request, error, ended.retval)
        raise _meant(task, request, call, ended.info.state, error) from error


def _tell_of_rejection(task: Any, request: dict[str, Any], error: Reject, einfo: Any) -> None:
    """What Celery, since its release 5.7, does in its main process when that gives the message up."""
    signals.task_failure.send(
        sender=task,
        task_id=request["id"],
        exception=error,
        args=request["args"],
        kwargs=request["kwargs"],
        traceback=einfo.traceback,
        einfo=einfo,
    )


def _meant(task: Any, request: dict[str, Any], call: _Call, state: str, error: BaseException) -> Exception:
    """What the engine is to make of it."""
    if isinstance(error, Reject) and state == REJECTED:
        return _rejected(error)
    if call.asked is not None:
        return call.asked
    if isinstance(error, Retry) and state == RETRY:
        return _by_hand(task, request, error)
    return RetryAsked(error, None) if call.exhausted else TaskFailed(error)


def _rejected(error: Reject) -> Exception:
    reason, requeue = error.args
    return GivenBack(f"its task has rejected it: {reason}") if requeue else RetryAsked(error, None)


class _Call:
    """What a task has asked for while it ran."""

    def __init__(self) -> None:
        self.asked: RetryAsked | None = None
        self.returned: Any = None
        #: it has asked, and was told that it may not
        self.exhausted = False


def _request(
    task: Any, step: StepContext, args: Sequence[Any], kwargs: Mapping[str, Any], call: _Call
) -> dict[str, Any]:
    """What the task finds at ``self.request``: the message's, where that is about the message, else its own."""
    message = current_task.request  # that of the worker's own task, which calls this one
    return {
        **{name: value for name, value in message.__dict__.items() if name not in _NOT_ITS},
        "id": step.correlation_id,
        "correlation_id": step.correlation_id,
        "root_id": step.transaction_id,
        "task": task.name,
        "args": list(args),
        "kwargs": dict(kwargs),
        "retries": step.failures,
        "timelimit": [task.time_limit, task.soft_time_limit],
        "is_eager": bool(message.is_eager),
        # The claim has seen to it that it is run once. Celery would ask its result backend, which knows less.
        "delivery_info": {**(message.delivery_info or {}), "redelivered": False},
        "multiagents_call": call,
    }


#: Of the message that brought the step: what follows it is the engine's, and nothing of it is for the task.
_NOT_ITS = ("callbacks", "errbacks", "chain", "chord", "group", "argsrepr", "kwargsrepr", "_children")


def _limited(task: Any, function: Callable[[], Any]) -> Any:
    """Call under the task's own time limits, as far as the pool can stop a function."""
    pool = timeouts.pool_of_caller()
    if task.soft_time_limit:
        limit = SoftTimeLimitExceeded(task.soft_time_limit)
        function = partial(timeouts.interrupt, function, seconds=task.soft_time_limit, error=limit, pool=pool)
    return timeouts.call(function, worker=task.name, seconds=task.time_limit or 0, pool=pool)


def _by_hand(task: Any, request: Mapping[str, Any], retry: Retry) -> RetryAsked:
    """What ``raise Retry(...)`` asks for."""
    if task.max_retries is not None and request["retries"] >= task.max_retries:
        return RetryAsked(retry.exc or retry, None)
    return RetryAsked(retry.exc or retry, _seconds(task, retry.when))


def _seconds(task: Any, when: Any) -> float:
    if isinstance(when, datetime):
        return max((when - datetime.now(when.tzinfo or UTC)).total_seconds(), 0.0)
    return max(float(task.default_retry_delay if when is None else when), 0.0)


# --- what a task asks by its own methods -----------------------------------------------------------------------------


_ADOPTED = "multiagents_adopted"


def _adopt(task: Any) -> None:
    """Have the task's ``retry`` and ``replace`` know when it runs as a step; otherwise they are what they were."""
    if _ADOPTED not in task.__dict__:
        task.retry = MethodType(_retry, task)
        task.replace = MethodType(_replace, task)
        task.__dict__[_ADOPTED] = True


def _retry(
    self: Any,
    args: Any = None,
    kwargs: Any = None,
    exc: Any = None,
    throw: bool = True,  # noqa: FBT001, FBT002 - Celery's
    eta: Any = None,
    countdown: Any = None,
    max_retries: int | None = None,
    **options: Any,
) -> Any:
    request = self.request
    call: _Call | None = getattr(request, "multiagents_call", None)
    if call is None:
        return type(self).retry(self, args, kwargs, exc, throw, eta, countdown, max_retries, **options)
    if (args is not None and list(args) != request.args) or (kwargs is not None and dict(kwargs) != request.kwargs):
        raise TerminalError(
            f'task "{self.name}" called retry() with other arguments, in a step of a run: those of the next attempt '
            f"come from the run's context again; return what is to be passed on, and make it two steps"
        )
    error = exc() if isinstance(exc, type) else exc
    limit = self.max_retries if max_retries is None else max_retries
    if limit is not None and request.retries + 1 > limit:
        call.exhausted = True
        if error is not None:
            raise error
        raise self.MaxRetriesExceededError(f"Can't retry {self.name}[{request.id}]: it was tried {limit} times again")
    when = eta or (self.default_retry_delay if countdown is None else countdown)
    retry = Retry(exc=error, when=when)
    call.asked = RetryAsked(error or sys.exc_info()[1] or retry, _seconds(self, when))
    if throw:
        raise retry
    return retry


def _replace(self: Any, sig: Any, *args: Any, **kwargs: Any) -> Any:
    if getattr(self.request, "multiagents_call", None) is None:
        return type(self).replace(self, sig, *args, **kwargs)
    raise TerminalError(
        f'task "{self.name}" called replace() in a step of a run, and a step is one task; make what is to follow steps '
        f"of their own, or a workflow of its own that this one has as a step: add_child(...)"
    )
