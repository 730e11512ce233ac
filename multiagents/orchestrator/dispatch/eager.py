"""Attempts that are run in this process by whoever looks next: Celery's ``task_always_eager``."""

from __future__ import annotations

from typing import Any

from multiagents.exceptions import WorkerNotFoundError
from multiagents.names import Correlation
from multiagents.orchestrator.dispatch.base import Dispatcher
from multiagents.retry import RetryPolicy
from multiagents.state_store.records import (
    Delivery,
    Dispatch,
    attempt_key_of,
)
from multiagents.workflow.definition import Definition


class EagerDispatcher(Dispatcher):
    """Send nothing anywhere: an attempt that is in flight is run by whoever looks next.

    Args:
        messages: how attempts would go out, as Celery signatures; these are applied here.
    """

    atomic = False
    asks_others = False

    def __init__(self, messages: Dispatcher) -> None:
        self._messages = messages

    def run(self, definition: Definition, correlation: Correlation, *, probe: bool) -> None:
        """Run an attempt here and now; what came of it is in the store.

        Raises:
            WorkerNotFoundError: when no task of the worker's name is registered.
        """
        signature = self._messages.link(definition, correlation, probe=probe)
        tasks = signature.app.tasks
        if signature.task not in tasks:
            raise WorkerNotFoundError(
                signature.task, [name for name in tasks if not name.startswith(("celery.", "multiagents."))]
            )
        # The engine has the failure of a step; it is not one of the caller.
        signature.apply(throw=False)

    def address(
        self,
        definition: Definition,  # noqa: ARG002 - nothing is sent
        correlation: Correlation,
        *,
        losses: int = 0,  # noqa: ARG002 - nothing is sent
        probe: bool = False,  # noqa: ARG002 - nothing is sent
        first: bool = False,  # noqa: ARG002 - nothing is sent
        home: str | None = None,  # noqa: ARG002 - nothing is sent
    ) -> Dispatch:
        return Dispatch(correlation.step, attempt_key_of(correlation.direction, correlation.attempt), Delivery.OUTBOX)

    def retry_policy(
        self, definition: Definition, correlation: Correlation, *, probe: bool = False
    ) -> RetryPolicy | None:
        return self._messages.retry_policy(definition, correlation, probe=probe)

    def publish(
        self,
        definition: Definition,
        correlation: Correlation,
        target: str,
        *,
        probe: bool = False,
        first: bool = False,
    ) -> None:
        pass

    def backlog(self, target: str) -> int:  # noqa: ARG002 - nothing is sent
        return 0

    def is_deserted(self, target: str) -> bool:  # noqa: ARG002 - nothing is sent
        return False

    def link(
        self, definition: Definition, correlation: Correlation, *, probe: bool = False, home: str | None = None
    ) -> Any:
        return self._messages.link(definition, correlation, probe=probe, home=home)

    def orchestration(self, transaction_id: str, *, first: bool = False) -> None:  # noqa: ARG002 - nothing is sent
        return None

    def send_orchestration(self, transaction_id: str, *, first: bool = False) -> None:
        pass

    def orchestration_link(self, transaction_id: str) -> Any:
        return self._messages.orchestration_link(transaction_id)
