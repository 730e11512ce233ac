"""The saga orchestrator as a Celery task."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from multiagents.exceptions import ConfigurationError, StateStoreError
from multiagents.names import ORCHESTRATOR_TASK, TICK_TASK


@shared_task(
    name=ORCHESTRATOR_TASK, bind=True, acks_late=True, ignore_result=True, max_retries=0, reject_on_worker_lost=False
)
def orchestrate(self: Any, transaction_id: str) -> None:
    """Advance a run: send whatever its state says is due. Harmless when nothing is, and when it is called twice."""
    engine = _orchestrator_of(self.app).engine
    following = engine.advance_linked(transaction_id)
    if following:
        self.request.callbacks = following


#: While the store is away, a tick is tried again after so many seconds, so many times.
PAUSE, TRIES = 10, 60


@shared_task(name=TICK_TASK, bind=True, acks_late=True, ignore_result=True, max_retries=TRIES)
def tick(self: Any, name: str) -> None:
    """Start what a schedule has due. Harmless when nothing is, and when it is called twice."""
    try:
        _orchestrator_of(self.app).schedules.named(name).tick()
    except StateStoreError as error:
        raise self.retry(exc=error, countdown=PAUSE) from error


def _orchestrator_of(app: Any) -> Any:
    found = getattr(app, "multiagents", None)
    if found is None:
        raise ConfigurationError(
            f'Celery app "{app.main}" got a message of an orchestrator and has none; call multiagents.init_app(app) in '
            f"the module that makes the app"
        )
    return found
