"""What makes a worker: the decorator ``@worker`` of a function, and `celery_task` of a Celery task that there is."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, overload

from multiagents.clock import LONGEST_IN_WORDS, Duration, in_seconds, is_duration
from multiagents.exceptions import WorkerError
from multiagents.names import STEP_NAME, task_step
from multiagents.retry import RetryPolicy
from multiagents.worker_sdk.registry import Worker, workers
from multiagents.worker_sdk.tasks import WorkerTask, calling, make_task
from multiagents.workflow.builder import adopted
from multiagents.workflow.definition import Limit

_RETRY = "say retry=RetryPolicy(...): the engine retries"
#: Options of a Celery task that would take from a worker what makes it one, or mean nothing, and what to do instead.
_REFUSED = {
    **dict.fromkeys(("autoretry_for", "dont_autoretry_for", "max_retries", "default_retry_delay"), _RETRY),
    **dict.fromkeys(("retry_backoff", "retry_backoff_max", "retry_jitter", "retry_kwargs"), _RETRY),
    **dict.fromkeys(("retries", "attempts", "max_attempts"), _RETRY),
    "bind": "call current_step() in the function",
    "pydantic": "annotate the function with the models: they are validated without it",
    "name": "give the name as the first argument",
    "Request": "the worker has one of its own",
}
#: A worker's own options.
_OPTIONS = ("retry", "timeout", "heartbeat_timeout", "queue", "limit", "retry_attempts", "retry_delay")


@overload
def worker(name: Callable[..., Any], /) -> WorkerTask: ...
@overload
def worker(
    name: str | None = None,
    *,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    queue: str | None = None,
    limit: Limit | None = None,
    retry_attempts: int | None = None,
    retry_delay: Duration | None = None,
    **celery_task_options: Any,
) -> Callable[[Callable[..., Any]], WorkerTask]: ...
def worker(
    name: str | Callable[..., Any] | None = None,
    *,
    retry: RetryPolicy | None = None,
    timeout: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    queue: str | None = None,
    limit: Limit | None = None,
    retry_attempts: int | None = None,
    retry_delay: Duration | None = None,
    **celery_task_options: Any,
) -> WorkerTask | Callable[[Callable[..., Any]], WorkerTask]:
    """Make a function a worker: a Celery task that steps of workflows name.

    The function gets its parameters from the context by their names, read as they are annotated; one whose only
    parameter is called ``context`` or ``ctx``, or is annotated as a mapping, gets the whole context. It returns a dict
    that is merged into the context. It may be ``def`` or ``async def``, and can still be called as the plain function.

    Args:
        name: the worker's name, and its Celery task's; the function's own name if left out.
        retry: how failed attempts are retried, where the step does not say.
        timeout: seconds an attempt may take, or a timedelta, as for every time limit; 0 is without limit, None is
            ``multiagents_step_timeout``.
        heartbeat_timeout: seconds within which the function has to call ``current_step().heartbeat()``, each time.
        queue: the Celery queue of its steps, where they do not say.
        limit: how many of its attempts run at once, or begin in a time, over all workers, where the step does not say.
        retry_attempts: short for ``retry=RetryPolicy(max_attempts=...)``.
        retry_delay: short for ``retry=RetryPolicy(initial_interval=...)``, in seconds.
        celery_task_options: options of the Celery task, such as ``rate_limit``.

    Raises:
        WorkerAlreadyRegisteredError: when another function has the name.
        WorkerError: when an argument is not what it must be, or what is decorated cannot do a step: it is cached, a
            generator, or a method without its object.

    >>> @worker("reserve_stock", timeout=30)
    ... def reserve_stock(quantity: int) -> dict:
    ...     return {"reserved": quantity}
    >>> reserve_stock(2)
    {'reserved': 2}
    >>> reserve_stock.worker_name, reserve_stock.step_timeout
    ('reserve_stock', 30)
    """
    if name is not None and not isinstance(name, str):
        return worker()(name)
    policy = _policy(retry, retry_attempts, retry_delay)
    step_timeout = _seconds("timeout", timeout, zero="0 is without limit")
    beats_within = _seconds("heartbeat_timeout", heartbeat_timeout)
    if not isinstance(limit, Limit | None):
        raise WorkerError(f'limit must be a Limit, got {limit!r}; write limit=Limit("bank", concurrency=10)')
    for option, instead in _REFUSED.items():
        if option in celery_task_options:
            raise WorkerError(f"a worker cannot have the Celery task option {option}=; {instead}")
    for option in celery_task_options:
        if not hasattr(WorkerTask, option) and (near := get_close_matches(option, _OPTIONS, n=1, cutoff=0.8)):
            raise WorkerError(
                f'a worker has no option {option}=, and neither has a Celery task; did you mean "{near[0]}"?'
            )

    def decorate(function: Callable[..., Any]) -> WorkerTask:
        made = Worker(
            checked_name(name, function),
            function,
            retry_policy=policy,
            step_timeout=step_timeout,
            heartbeat_timeout=beats_within,
            time_limit=celery_task_options.get("time_limit"),
            queue=queue,
            limit=limit,
            namespace=names_beside(function),
        )
        workers.register(made)
        return make_task(made, celery_task_options)

    return decorate


def celery_task(task: Any, **options: Any) -> WorkerTask:
    """Make an existing Celery task a worker, for steps and compensations; the task stays as it is.

    The worker is called ``<task>.step``, and is there in every process that makes it: call this in a module that the
    workers import, too. The task is called in the worker's process. What a step's ``inputs`` answer are its keyword
    arguments; without them, and in an undo, its parameters are taken from the context as those of a worker are. Where
    they are annotated they are read as such: as a Decimal, a datetime, a model. It finds a request like any other: id,
    hostname, ``update_state()``, its own soft and hard time limit.

    Its own ``retry()``, and ``autoretry_for``, are a failed attempt, and the next one when it says, ``max_retries``
    times; the step's policy is for what it raises itself, and does not multiply that. ``Ignore`` is a success without a
    result. ``Reject`` is a failure for good, or with ``requeue=True`` no attempt: it comes again.
    ``replace()`` is refused: use ``add_child``.

    Celery's own tracer calls it: its hooks (``on_failure``, ...) and receivers of Celery's signals are told what they
    would be told of a message, each attempt being one. The message that brings the step is a task of its own,
    ``<task>.step``, for Celery: one that begins and ends, and of which nobody is told that it failed, too.

    Args:
        task: the task, or its name.
        options: those of `multiagents.worker`: ``retry``, ``timeout``, ``queue``, ...

    Raises:
        WorkerError: when it is neither, or an option is not what it must be.

    >>> from multiagents import Step
    >>> Step("charge", celery_task("shop.tasks.charge", timeout=30), inputs={"amount": "order.total"}).worker
    <worker 'shop.tasks.charge.step': multiagents.worker_sdk.worker.celery_task('shop.tasks.charge')>
    """
    name = task if isinstance(task, str) else getattr(task, "name", None)
    if not isinstance(name, str) or not name:
        raise WorkerError(f"celery_task() was given {task!r}; expected a Celery task or the name of one")

    return worker(task_step(name), **options)(calling(name))


# A Celery task that is given where a worker is meant counts as one.
adopted.made_by(celery_task)


def checked_name(name: str | None, function: Any) -> str:
    """The name of a worker that is made of a function.

    Raises:
        WorkerError: when it cannot have it, or the function cannot do a step.
    """
    if isinstance(function, WorkerTask) or not callable(function):
        raise WorkerError(f"@worker goes on a function, got {function!r}; decorate the function itself, once")
    if (why := _why_not(function)) is not None:
        raise WorkerError(f"{function!r:.120} cannot be a worker: {why}")
    chosen = name or str(getattr(function, "__name__", ""))
    if not STEP_NAME.fullmatch(chosen):
        raise WorkerError(
            f"worker name {chosen!r} cannot be used: expected 1 to 128 characters of A-Z a-z 0-9 _ . : @ -, beginning "
            f'with a letter, a digit or _; give one: @worker("charge_card")'
        )
    return chosen


def _why_not(function: Any) -> str | None:
    """Why a callable cannot do a step, in words; None where it can."""
    if hasattr(function, "cache_info"):
        return "it is cached, so that a second run would get the first one's result and have no effect; cache inside it"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "it yields, and a step has one result; return it"
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None  # a builtin that does not say: it gets the context
    needed = [
        one
        for one in parameters
        if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    if parameters and parameters[0].name in ("self", "cls") and not inspect.ismethod(function):
        return f"nobody gives it its {parameters[0].name}; decorate a function, or a method of an object there is"
    if inspect.isbuiltin(function) and len(needed) > 1:
        return "it is a builtin that takes more than the context; call it in a function"
    return None


def _policy(retry: RetryPolicy | None, attempts: int | None, delay: Duration | None) -> RetryPolicy | None:
    if not isinstance(retry, RetryPolicy | None):
        raise WorkerError(f"retry must be a RetryPolicy, got {retry!r}; write retry=RetryPolicy(max_attempts=5)")
    if attempts is None and delay is None:
        return retry
    if retry is not None:
        raise WorkerError(
            "retry= was given together with retry_attempts= or retry_delay=, which are short for it; give one of them"
        )
    given: dict[str, Any] = {"max_attempts": attempts, "initial_interval": delay}
    return RetryPolicy(**{field: value for field, value in given.items() if value is not None})


def _seconds(option: str, given: Duration | None, zero: str = "") -> float | None:
    value: float | None = in_seconds(given)
    if value is not None and not is_duration(value, zero=bool(zero)):
        raise WorkerError(
            f"{option} must be a number of seconds {'of at least' if zero else 'above'} 0, got {given!r:.80}"
            f"{f' ({zero})' if zero else ''}; or a timedelta, and {LONGEST_IN_WORDS}"
        )
    return value


def names_beside(function: Callable[..., Any]) -> Mapping[str, Any] | None:
    """Names beside the function, where it is made inside another: its annotations may be strings that use them."""
    if "<locals>" not in getattr(function, "__qualname__", ""):
        return None
    code = getattr(inspect.unwrap(function), "__code__", None)
    frame = sys._getframe(1)  # noqa: SLF001 - CPython has it, and there is no other way
    while frame is not None:
        if frame.f_code.co_filename == getattr(code, "co_filename", None):
            return dict(frame.f_locals)
        frame = frame.f_back  # type: ignore[assignment]  # None behind the last
    return None
