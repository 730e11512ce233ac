"""The Celery request of a worker's message: late acknowledgement for the engine's own, the usual one for all others."""

from __future__ import annotations

from typing import Any

from celery.worker.request import Request

from multiagents.names import HEADER


class StepRequest(Request):
    """Acknowledge messages of a plain ``.delay()`` when Celery would, though the task itself is ``acks_late``.

    Celery decides by the task, we have to by the message: one task serves both. `acknowledge` may be called twice.
    """

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Take note that the pool has begun."""
        super().on_accepted(pid, time_accepted)
        if HEADER not in self.request_dict and not _acks_late(self.task):
            self.acknowledge()


def _acks_late(task: Any) -> bool:
    asked: bool | None = task.acks_late_outside_runs
    return bool(task.app.conf.task_acks_late if asked is None else asked)
