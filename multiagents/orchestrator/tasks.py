"""The saga orchestrator as a Celery task."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from multiagents.names import ORCHESTRATOR_TASK


@shared_task(
    name=ORCHESTRATOR_TASK, bind=True, acks_late=True, ignore_result=True, max_retries=0, reject_on_worker_lost=False
)
def orchestrate(self: Any, transaction_id: str) -> None:
    """Advance a run: send whatever its state says is due. Harmless when nothing is, and when it is called twice."""
    engine = self.app.multiagents.engine
    following = engine.advance_linked(transaction_id)
    if following:
        self.request.callbacks = following
