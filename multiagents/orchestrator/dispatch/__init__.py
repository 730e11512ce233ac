"""How a message reaches a worker: the port, and Celery behind it. Begin with `base.Dispatcher`, then `plan`.

`celery` renders messages as Celery would and sends those that no commit pushes, `kombu` knows the broker's lists, and
`eager` runs attempts here. What of these needs Celery is imported from its file.
"""

from __future__ import annotations

from multiagents.orchestrator.dispatch.active_queues import CONSUMED_FOR
from multiagents.orchestrator.dispatch.base import Dispatcher, outbox_grace_ms, task_of
from multiagents.orchestrator.dispatch.plan import CHILD_GRACE_MS, plan_dispatches, start_within_ms

__all__ = [
    "CHILD_GRACE_MS",
    "CONSUMED_FOR",
    "Dispatcher",
    "outbox_grace_ms",
    "plan_dispatches",
    "start_within_ms",
    "task_of",
]
