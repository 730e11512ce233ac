"""What ``celery control revoke`` means for a step: its attempt has failed, and the policy says what follows."""

from __future__ import annotations

from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind
from multiagents.names import Correlation
from multiagents.orchestrator.engine.engine import Engine
from multiagents.state_store.records import Delivery, attempt_key_of


def revoked(engine: Engine, correlation: Correlation, *, terminated: bool) -> None:
    """Record that Celery was told not to run an attempt, or to stop it. Calling it again changes nothing.

    An attempt that had not begun has failed for certain. Of one that was terminated nobody knows how far it came, so
    its outcome is in doubt, as after a time-out. An attempt that runs on though its id was revoked is left alone.

    Raises:
        WorkflowNotFoundError: when there is no such run.
        StateStoreError: when the store does not answer; a lost message is then found by the sweep.
    """
    found = engine.store.load(correlation.transaction_id).in_flight.get(correlation.step)
    if found is None or found.attempt_key != attempt_key_of(correlation.direction, correlation.attempt):
        return
    if (found.delivery is Delivery.CLAIMED) is not terminated:
        return
    what = "terminated while it ran" if terminated else "revoked before it ran"
    engine.give_up(
        ErrorEvent(
            id=f"{correlation}/end",
            transaction_id=correlation.transaction_id,
            correlation_id=str(correlation),
            occurred_at=engine.store.now(),
            step=correlation.step,
            attempt=correlation.attempt,
            kind=ErrorKind.TIMEOUT if terminated else ErrorKind.FAILED,
            retryable=True,
            error=ErrorInfo(
                type="TaskRevokedError",
                message=f"step {correlation.step!r}: its Celery task was {what} by remote control",
                attempt=correlation.attempt,
            ),
        ),
        found.record,
    )
