"""Celery tasks that were given in the place of workers.

The worker SDK makes a worker of each, which calls it. This floor does not know the worker SDK, and whoever builds a
workflow may import it later, or never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multiagents.names import task_step

__all__ = ["adopted", "is_plain_task"]


class Adopted:
    """Remembers Celery tasks that count as workers, and has workers made of them."""

    def __init__(self) -> None:
        self._tasks: dict[str, Any] = {}
        self._make: Callable[[Any], object] | None = None

    def name(self, task: Any) -> str:
        """What the worker is called that calls a Celery task."""
        self._tasks[task.name] = task
        if self._make is not None:
            self._make(task)
        return task_step(task.name)

    def made_by(self, make: Callable[[Any], object]) -> None:
        """Have workers made of all that there are and will be."""
        self._make = make
        for task in self._tasks.values():
            make(task)


#: Those of this process.
adopted = Adopted()


def is_plain_task(given: Any) -> bool:
    """Whether something is a Celery task that knows nothing of workflows; a decorated worker is asked no attribute."""
    if hasattr(type(given), "worker_name") or isinstance(given, dict):  # a worker; a signature
        return False
    return callable(getattr(given, "apply_async", None)) and isinstance(getattr(given, "name", None), str)
