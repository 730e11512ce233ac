"""Workers as Celery tasks.

A worker's task is made by ``shared_task``, so it belongs to whatever app there is, or will be, and is built on that
app's own ``Task`` class. The same task serves two kinds of messages: those of the engine, which carry the header
``multiagents`` and the ids of an attempt, and those of a plain ``.delay(context)``.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from celery import current_app, shared_task, signals
from celery.exceptions import Ignore
from celery.local import Proxy

from multiagents.exceptions import ConfigurationError, ResolutionError, TerminalError, WorkerError, WorkerNotFoundError
from multiagents.names import CALL_TASK, CALLED, HEADER
from multiagents.retry import RetryPolicy
from multiagents.state_store.records import ClaimRefused
from multiagents.worker_sdk.attempt import (
    MESSAGE_KEYS,
    Invocation,
    StepContext,
    TaskFailed,
    WorkerRuntime,
    call_outside_run,
    running,
)
from multiagents.worker_sdk.execution import timeouts
from multiagents.worker_sdk.plain_task import celery as plain_task
from multiagents.worker_sdk.registry import Worker, workers
from multiagents.worker_sdk.signature import ArgumentsError, Signature
from multiagents.workflow.definition import ITEM_KEYS, map_of

if TYPE_CHECKING:
    from multiagents.state_store import StateStore
    from multiagents.worker_sdk.attempt import StepContext

logger = logging.getLogger(__name__)


class WorkerTask(Proxy):  # type: ignore[type-arg]  # generic in its stubs alone
    """What a decorated function becomes: the Celery task of the current app, that can still be called as the function.

    What is asked of the worker itself (its name, its policy, calling it) needs no app; all else is asked of the task.
    """

    __slots__ = ()

    def __init__(self, name: str, task: Callable[[], Any]) -> None:
        super().__init__(task)
        object.__setattr__(self, "__custom_name__", name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the plain function; an ``async def`` gives a coroutine."""
        return self.worker.fn(*args, **kwargs)

    @property
    def worker(self) -> Worker:
        """The worker's entry in the registry."""
        name: str = object.__getattribute__(self, "__custom_name__")
        return workers[name]

    @property
    def name(self) -> str:
        """The worker's name, which is the Celery task's."""
        return self.worker.name

    worker_name = name

    @property
    def fn(self) -> Callable[..., Any]:
        """The plain function."""
        return self.worker.fn

    @property
    def retry_policy(self) -> RetryPolicy | None:
        """The worker's own policy, or None."""
        return self.worker.retry_policy

    @property
    def step_timeout(self) -> float | None:
        """Seconds that an attempt may take; 0 is without limit, None is ``multiagents_step_timeout``."""
        return self.worker.step_timeout

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.worker.fn

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]  # each task has its function's
        return self.worker.fn.__doc__

    @property
    def __module__(self) -> str:  # type: ignore[override]  # as above
        return self.worker.fn.__module__

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"<worker {self.name!r}: {self.worker.where}>"


class Answered(Ignore):
    """The attempt has failed, and whoever watches for errors is told no more of it.

    Its worker has said no, which is an answer and no fault, or a Celery task was called, which has told of it itself.
    """


def install(app: Any, make: Callable[[], WorkerRuntime], patient_store: Callable[[], StateStore] | None = None) -> None:
    """Hand down what the workers' tasks of an app run with.

    Args:
        app: the app.
        make: makes it. Called by the first step that a process runs, and again after a fork: a child has connections,
            threads and tokens of its own.
        patient_store: gives the store to whoever may not wait for it: the main loop of a worker.
    """

    # Two, as a process that applies tasks itself (task_always_eager) may also run those of messages.
    @lru_cache(maxsize=2)
    def invocation(_process: tuple[int, bool]) -> Invocation:
        return Invocation(make())

    app.multiagents_invocation = invocation
    app.multiagents_patient_store = patient_store


def make_task(worker: Worker, options: Mapping[str, Any]) -> WorkerTask:
    """The Celery task of a worker, on all apps there are and will be.

    Args:
        worker: the worker; it is looked up by its name when a message comes, so a reloaded module counts at once.
        options: options of the Celery task.
    """
    name = worker.name
    known = _tasks.get(name)
    if known is not None:
        return known

    def body(task: Any, *args: Any, **kwargs: Any) -> Any:
        return perform(task, workers[name], args, kwargs)

    for attribute in ("__module__", "__qualname__", "__name__", "__doc__"):
        setattr(body, attribute, getattr(worker.fn, attribute, None) or getattr(body, attribute))
    if not body.__name__.isidentifier():  # a lambda: Celery makes a function of this name
        body.__name__ = "worker"
    make: Any = shared_task  # its stubs know no attributes of our own
    shared = make(body, name=name, bind=True, **_task_attributes(worker, dict(options)))
    task = _tasks[name] = WorkerTask(name, shared._get_current_object)  # noqa: SLF001 - what a Proxy is made from
    return task


_tasks: dict[str, WorkerTask] = {}


def task_of(name: str) -> WorkerTask:
    """The task of a worker of this process.

    Raises:
        WorkerNotFoundError: when there is none.
    """
    return _tasks[workers[name].name]


def _task_attributes(worker: Worker, options: dict[str, Any]) -> dict[str, Any]:
    attributes = {
        "acks_late_outside_runs": options.pop("acks_late", None),
        "acks_late": True,
        "reject_on_worker_lost": False,
        "retry_on_worker_lost": False,
        "Request": "multiagents.worker_sdk.consumer.celery:StepRequest",
        "__header__": staticmethod(_header(worker)),
        "retry": _retry,
        # What whoever sends a step has to know of its worker.
        "worker_queue": worker.queue,
        "worker_timeout": worker.step_timeout,
        "worker_retry": worker.retry_policy,
    }
    if worker.queue is not None:
        attributes["apply_async"] = _apply_async
    return attributes | options


def _header(worker: Worker) -> Callable[..., Any]:
    """Checks the arguments of a plain ``.delay()`` before it is sent; messages of the engine have other ones."""
    try:
        signature = inspect.signature(worker.fn)
    except (TypeError, ValueError):  # a builtin
        return lambda *_args, **_kwargs: None

    def check(*args: Any, **kwargs: Any) -> None:
        takes_mapping = len(args) == 1 and not kwargs and isinstance(args[0], Mapping)
        if not (kwargs.keys() >= MESSAGE_KEYS or takes_mapping):
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f'worker "{worker.name}" cannot be called like this: {error}') from None

    return check


def _apply_async(self: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
    # As an attribute of the class, `queue` is about to lose its effect in Celery 6.
    if not any(options.get(where) for where in ("queue", "routing_key", "exchange")):
        options["queue"] = workers[self.name].queue
    return super(type(self), self).apply_async(args, kwargs, **options)


def _retry(self: Any, args: Any = None, kwargs: Any = None, exc: Any = None, **options: Any) -> Any:
    """Retry as Celery does, outside a run. In a run the engine retries, so this is the failure of the attempt."""
    if not is_of_a_run(self.request):
        return super(type(self), self).retry(args, kwargs, exc=exc, **options)
    if exc is not None:
        raise exc
    raise WorkerError(
        f'worker "{self.name}" called retry() in a run: steps are retried by the engine; raise an error instead, '
        f"and say how often with retry=RetryPolicy(...)"
    )


@signals.worker_init.connect(weak=False)
def _look_for_orchestrator(sender: Any = None, **_kwargs: Any) -> None:
    """A worker process that has workers of ours and no orchestrator can run none of their steps."""
    app = getattr(sender, "app", None)
    if app is None or hasattr(app, "multiagents_invocation"):
        return
    found = sorted(name for name, task in app.tasks.items() if hasattr(task, "worker_queue"))
    if found:
        logger.warning(
            'Celery app "%s" has workers of multiagents (%s) and no orchestrator, so that it can run no step of a run: '
            "call multiagents.init_app(app) in the module that makes the app",
            app.main,
            ", ".join(found[:5]),
        )


def is_of_a_run(request: Any) -> bool:
    """Whether a message is the engine's; a task that is applied in process has its headers one level down."""
    return bool(getattr(request, HEADER, None) or (request.headers and HEADER in request.headers))


def perform(task: Any, worker: Worker, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The body of every worker's task.

    Raises:
        Ignore: when the attempt is not to be run; no link fires.
        Exception: what the worker raised, after it was recorded; no link fires.
    """
    request = task.request
    if not is_of_a_run(request):
        return call_outside_run(worker, args, kwargs)
    invocation_of = getattr(task.app, "multiagents_invocation", None)
    if invocation_of is None:
        raise ConfigurationError(
            f'Celery app "{task.app.main}" has no multiagents runtime, so step {request.id} cannot be run here; call '
            f"multiagents.init_app(app) in the module that makes the app"
        )
    invocation: Invocation = invocation_of((os.getpid(), request.is_eager))
    try:
        links = invocation.run(worker, kwargs, hostname=request.hostname or "", pool=timeouts.pool_of_caller())
    except ClaimRefused as refused:
        raise Ignore(str(refused)) from None
    except TaskFailed as failed:  # the message that brought the step is not a second task that fails
        raise Answered(str(failed)) from None
    except TerminalError as error:
        if isinstance(error, ArgumentsError | ResolutionError):
            raise  # a fault of the program
        logger.warning("step %s ended with an answer of its worker: %s: %s", request.id, type(error).__name__, error)
        raise Answered(f"{type(error).__name__}: {error}") from None
    if links:
        request.callbacks = list(links)
    return None


def call_named(self: Any, **kwargs: Any) -> Any:
    """Run a step whose worker is named like a Celery task that is none: call that task, as `celery_task` does."""
    name = getattr(self.request, CALLED, None) or (self.request.headers or {}).get(CALLED)
    return perform(self, _caller(name), (), kwargs)


_shared: Any = shared_task  # its stubs know no `Request`
_shared(
    call_named,
    name=CALL_TASK,
    bind=True,
    acks_late=True,
    ignore_result=True,
    max_retries=0,
    reject_on_worker_lost=False,
    acks_late_outside_runs=None,
    Request="multiagents.worker_sdk.consumer.celery:StepRequest",
)


@lru_cache(maxsize=1_000)
def _caller(name: str) -> Worker:
    return Worker(name, calling(name))


def calling(name: str) -> Callable[[dict[str, Any]], Any]:
    """A worker's function that calls a Celery task."""

    def call(context: dict[str, Any]) -> Any:
        return call_task(name, context)

    call.__qualname__ = f"celery_task({name!r})"
    return call


def call_task(name: str, context: dict[str, Any]) -> Any:
    """Call a Celery task that knows nothing of workflows, in this process, with what a worker would get.

    Raises:
        WorkerNotFoundError: when no such task is registered here.
    """
    task = current_app.tasks.get(name)
    if task is None:
        raise WorkerNotFoundError(name, [known for known in current_app.tasks if "." in known])
    signature = _signature_of(name, task.run)
    step = running.get()
    called = task if step is None else partial(_as_step, task, step)
    if step is not None and step.direction == "do" and step.has_inputs:
        # An item of a map is given itself and its place besides, for those who ask for them.
        return called(
            **signature.typed({key: value for key, value in context.items() if _is_meant(step, key, signature)})
        )
    positional, keywords = signature.arguments(context)
    return called(*positional, **keywords)


@lru_cache(maxsize=1024)
def _signature_of(name: str, function: Callable[..., Any]) -> Signature:
    return Signature(name, function, lenient=True)


def _is_meant(step: StepContext, key: str, signature: Signature) -> bool:
    return key not in ITEM_KEYS or map_of(step.step) is None or signature.knows(key)


def _as_step(task: Any, step: StepContext, /, *args: Any, **kwargs: Any) -> Any:
    return plain_task.run(task, step, args, kwargs)
