"""What whoever sends a step has to know of its worker, where the worker's module is not imported as well."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from multiagents.exceptions import MultiAgentsError
from multiagents.retry import RetryPolicy
from multiagents.state_store.records import Announced

logger = logging.getLogger(__name__)

#: Seconds for which it is taken as known what worker processes have announced.
KNOWN_FOR = 10.0
#: The same where a worker is looked for that nobody has announced: it may have come up this very moment.
MISSED_FOR = 1.0


class WorkerFacts(NamedTuple):
    """What the decorator of a worker says, as far as it concerns who sends its steps; None where it says nothing."""

    queue: str | None = None
    #: seconds; 0 is without limit
    timeout: float | None = None
    priority: int | None = None
    retry: RetryPolicy | None = None
    #: where its own app sends its steps, if it names no queue: each app may have a default queue of its own
    home: str | None = None
    #: of a worker that several apps have: the homes of all of them
    homes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON-ready data."""
        facts = {**self._asdict(), "retry": None if self.retry is None else self.retry.to_dict()}
        return {name: value for name, value in facts.items() if value not in (None, ())}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WorkerFacts:
        """The inverse of `to_dict`; what a later release added is passed over."""
        retry = RetryPolicy.from_dict(data["retry"]) if data.get("retry") is not None else None
        return cls(
            data.get("queue"),
            data.get("timeout"),
            data.get("priority"),
            retry,
            data.get("home"),
            tuple(data.get("homes", ())),
        )


class Directory:
    """The workers of this app, and behind them those that worker processes have announced in the store.

    Args:
        app: the Celery app.
        announced: reads what was announced.
    """

    def __init__(self, app: Any, announced: Callable[[], Announced]) -> None:
        self._app = app
        self._read = announced
        self._here: dict[str, WorkerFacts] = {}
        self._elsewhere: dict[str, WorkerFacts] = {}
        self._announced = Announced()
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
        self._look(KNOWN_FOR if task in self._elsewhere else MISSED_FOR)
        return self._elsewhere.get(task)

    def announced(self, *, fresh: bool = False) -> Announced:
        """What worker processes have announced, as it was known some seconds ago; ``fresh`` is a second at most."""
        self._look(MISSED_FOR if fresh else KNOWN_FOR)
        return self._announced

    def is_at(self, task: str, home: str) -> bool:
        """Whether an app with this default queue has a worker, and a worker process of it is there."""
        # That app may have come up this very moment.
        return any(self._was_at(task, home, known_for) for known_for in (KNOWN_FOR, MISSED_FOR))

    def _was_at(self, task: str, home: str, known_for: float) -> bool:
        self._look(known_for)
        facts = self._elsewhere.get(task)
        return facts is not None and home in (facts.home, *facts.homes) and self._announced.is_consumed(home)

    def is_here(self, task: str) -> bool:
        """Whether a worker is one of this process."""
        return task in self._here or hasattr(self._app.tasks.get(task), "worker_queue")

    def here(self) -> dict[str, WorkerFacts]:
        """This process's own workers."""
        return {name: _facts_of(task) for name, task in self._app.tasks.items() if hasattr(task, "worker_queue")}

    def _look(self, known_for: float) -> None:
        if time.monotonic() - self._read_at <= known_for:
            return
        self._read_at = time.monotonic()
        try:
            found = self._read()
            self._elsewhere = {name: WorkerFacts.from_dict(facts) for name, facts in found.workers.items()}
            self._announced = found
        except (MultiAgentsError, ValueError):
            logger.debug("what workers have announced could not be read", exc_info=True)


def _facts_of(task: Any) -> WorkerFacts:
    return WorkerFacts(
        getattr(task, "worker_queue", None),
        getattr(task, "worker_timeout", None),
        getattr(task, "priority", None),
        getattr(task, "worker_retry", None),
    )
