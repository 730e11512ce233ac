"""How a worker may be written: one reader for every place that takes one.

A worker is written as its name, as the decorated function, as a Celery task, or as a `Step` that says nothing but its
name and worker. Everything else is none, and `build()` refuses it in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from multiagents.workflow.builder.adopted import adopted, is_plain_task
from multiagents.workflow.definition import Definition

__all__ = ["is_listing", "taken_for_worker", "worker_name"]


def worker_name(worker: Any) -> str | None:
    """The name of a worker, however it is written; None where it is none, or an empty name.

    >>> worker_name("charge_card"), worker_name(lambda context: {})
    ('charge_card', None)
    """
    if isinstance(worker, str):
        return worker.strip() or None
    if is_plain_task(worker):
        return adopted.name(worker)
    name = getattr(worker, "multiagents_name", None)
    if name is None and callable(getattr(worker, "apply_async", None)) and not isinstance(worker, Mapping):
        name = getattr(worker, "name", None)
    return name if isinstance(name, str) and name else None


def is_listing(value: Any) -> bool:
    """Whether a value is meant as a list: it can be walked through, and is no text, mapping or worker.

    A decorated function is a proxy of its Celery task, and like every proxy it looks as if it could be walked through.
    """
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping) and worker_name(value) is None


def taken_for_worker(given: Any) -> tuple[str, str] | None:
    """What somebody took for a worker, and what to write in its place; None where it is nothing that one could."""
    if isinstance(given, Definition):
        name = given.name
        return (
            f'the workflow "{name}"',
            f'run it as a step: add_child("{name}", ...), or Child("{name}", ...) in a branch',
        )
    if callable(getattr(given, "build", None)) and hasattr(given, "add_step"):
        return f'the builder of workflow "{given.name}"', "end it with .build(), and run it as a step: add_child(...)"
    if isinstance(given, Mapping) and "task" in given:
        return (
            f"a signature of the Celery task {given['task']!r}",
            "give the task itself, and what it is called with as the step's inputs=",
        )
    if hasattr(given, "multiagents_name") and not callable(given):
        return f"{given!r}", "what it says beside its name and worker would be lost here: give its worker alone"
    if callable(given) and not isinstance(given, type):
        name = getattr(given, "__name__", "worker")
        said = name if name.isidentifier() else "name"  # that of a lambda is none
        return f"the function {name}", f'decorate it with @worker("{said}"), or give the name of one'
    return None
