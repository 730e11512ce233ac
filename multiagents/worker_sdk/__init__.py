"""Workers: functions that are Celery tasks, and how an attempt of a step is run.

Begin with `worker`, which makes them, then `tasks`: what Celery calls for a message. An `attempt` is claimed, called
and reported; `execution` is how a function is called in each pool; `consumer` what is changed in Celery's machinery.
The orchestrator is not known here: what it does for an attempt is handed down, as a `WorkerRuntime`.

Importing this package is quick: Celery is loaded when something that takes it is first asked for. The decorator is
`multiagents.worker`; here the name is that of its module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiagents.worker_sdk.attempt import WorkerRuntime, current_step
    from multiagents.worker_sdk.manager import WorkerManager
    from multiagents.worker_sdk.registry import Worker, workers
    from multiagents.worker_sdk.tasks import WorkerTask, install
    from multiagents.worker_sdk.worker import celery_task

__all__ = [
    "Worker",
    "WorkerManager",
    "WorkerRuntime",
    "WorkerTask",
    "celery_task",
    "current_step",
    "install",
    "workers",
]

_HOMES = {
    "attempt": ("WorkerRuntime", "current_step"),
    "manager": ("WorkerManager",),
    "registry": ("Worker", "workers"),
    "tasks": ("WorkerTask", "install"),
    "worker": ("celery_task",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
