"""What whoever sends a step has to know of its worker, where the worker's module is not imported as well."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from multiagents.exceptions import MultiAgentsError
from multiagents.retry import RetryPolicy

logger = logging.getLogger(__name__)

#: Seconds for which it is taken as known what worker processes have announced.
KNOWN_FOR = 10.0


class WorkerFacts(NamedTuple):
    """What the decorator of a worker says, as far as it concerns who sends its steps; None where it says nothing."""

    queue: str | None = None
    #: seconds; 0 is without limit
    timeout: float | None = None
    priority: int | None = None
    retry: RetryPolicy | None = None

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON-ready data."""
        facts = {**self._asdict(), "retry": None if self.retry is None else self.retry.to_dict()}
        return {name: value for name, value in facts.items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WorkerFacts:
        """The inverse of `to_dict`; what a later release added is passed over."""
        retry = RetryPolicy.from_dict(data["retry"]) if data.get("retry") is not None else None
        return cls(data.get("queue"), data.get("timeout"), data.get("priority"), retry)


class Directory:
    """The workers of this app, and behind them those that worker processes have announced in the store.

    Args:
        app: the Celery app.
        announced: reads what was announced: worker -> `WorkerFacts.to_dict`.
    """

    def __init__(self, app: Any, announced: Callable[[], Mapping[str, Mapping[str, Any]]]) -> None:
        self._app = app
        self._announced = announced
        self._here: dict[str, WorkerFacts] = {}
        self._elsewhere: dict[str, WorkerFacts] = {}
        self._read_at = -math.inf

    def find(self, task: str) -> WorkerFacts | None:
        """What is known of a worker; None when nothing is."""
        known = self._here.get(task)
        if known is not None:
            return known
        registered = self._app.tasks.get(task)
        if registered is not None:
            known = self._here[task] = _facts_of(registered)
            return known
        if time.monotonic() - self._read_at > KNOWN_FOR:
            self._read()
        return self._elsewhere.get(task)

    def is_here(self, task: str) -> bool:
        """Whether a worker is one of this process."""
        return task in self._here or hasattr(self._app.tasks.get(task), "worker_queue")

    def here(self) -> dict[str, dict[str, Any]]:
        """What this process has to announce: its own workers."""
        return {
            name: _facts_of(task).to_dict() for name, task in self._app.tasks.items() if hasattr(task, "worker_queue")
        }

    def _read(self) -> None:
        self._read_at = time.monotonic()
        try:
            self._elsewhere = {name: WorkerFacts.from_dict(facts) for name, facts in self._announced().items()}
        except (MultiAgentsError, ValueError):
            logger.debug("what workers have announced could not be read", exc_info=True)


def _facts_of(task: Any) -> WorkerFacts:
    return WorkerFacts(
        getattr(task, "worker_queue", None),
        getattr(task, "worker_timeout", None),
        getattr(task, "priority", None),
        getattr(task, "worker_retry", None),
    )
