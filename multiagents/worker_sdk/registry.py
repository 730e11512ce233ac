"""The workers of this process, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from multiagents.exceptions import WorkerAlreadyRegisteredError, WorkerNotFoundError
from multiagents.retry import RetryPolicy
from multiagents.worker_sdk.signature import Signature
from multiagents.workflow.definition import Limit


class Worker:
    """A named function, and how its attempts are to be treated.

    Attributes:
        name: its name, which is also that of its Celery task.
        fn: the plain function.
        retry_policy: its own policy, which a step's goes before; None for none.
        step_timeout: seconds an attempt may take; 0 is without limit, None is ``multiagents_step_timeout``.
        heartbeat_timeout: seconds between two heartbeats of an attempt; None asks for none.
        time_limit: Celery's option of that name: seconds that no attempt exceeds, whatever its step says; None for any.
        queue: where its steps go unless they say otherwise.
        limit: how many of its attempts run at once, or begin in a time, unless a step says otherwise; None for any.
        is_async: whether it is an ``async def``.
    """

    def __init__(
        self,
        name: str,
        fn: Callable[..., Any],
        *,
        retry_policy: RetryPolicy | None = None,
        step_timeout: float | None = None,
        heartbeat_timeout: float | None = None,
        time_limit: float | None = None,
        queue: str | None = None,
        limit: Limit | None = None,
        namespace: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.fn = fn
        self.retry_policy = retry_policy
        self.step_timeout = step_timeout
        self.heartbeat_timeout = heartbeat_timeout
        self.time_limit = time_limit
        self.queue = queue
        self.limit = limit
        self.is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)
        self._namespace = namespace

    @cached_property
    def signature(self) -> Signature:
        """How the function is called; made when first needed, so that annotations may name what comes after it."""
        return Signature(self.name, self.fn, self._namespace)

    @property
    def where(self) -> str:
        """Where the function was written, for messages."""
        return f"{getattr(self.fn, '__module__', '?')}.{getattr(self.fn, '__qualname__', repr(self.fn))}"

    def is_same_function(self, other: Worker) -> bool:
        """Whether both were written at the same place: a module that was loaded again, or is also ``__main__``."""
        if self.where == other.where:
            return True
        mine, theirs = (getattr(inspect.unwrap(w.fn), "__code__", None) for w in (self, other))
        if mine is None or theirs is None:
            return False
        return (mine.co_filename, mine.co_qualname) == (theirs.co_filename, theirs.co_qualname)

    def __repr__(self) -> str:
        return f"<Worker {self.name!r}: {self.where}>"


class WorkerRegistry(Mapping[str, Worker]):
    """Workers by name."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def register(self, worker: Worker) -> None:
        """Add a worker, or put a reloaded one in the place of its former self.

        Raises:
            WorkerAlreadyRegisteredError: when another function has the name.
        """
        known = self._workers.get(worker.name)
        if known is not None and not known.is_same_function(worker):
            raise WorkerAlreadyRegisteredError(worker.name, known.where, worker.where)
        self._workers[worker.name] = worker

    def unregister(self, name: str) -> None:
        """Forget a worker, if it is there."""
        self._workers.pop(name, None)

    def __getitem__(self, name: str) -> Worker:
        try:
            return self._workers[name]
        except KeyError:
            raise WorkerNotFoundError(name, self._workers) from None

    def get(self, name: str, default: Any = None) -> Any:
        """The worker of this name, or ``default``."""
        return self._workers.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._workers

    def __iter__(self) -> Iterator[str]:
        return iter(self._workers)

    def __len__(self) -> int:
        return len(self._workers)


#: The workers that `multiagents.worker` has made in this process.
workers = WorkerRegistry()
