"""Runs in this process, from start to end: Celery's ``task_always_eager``.

The engine, the store and the workers' side are the ones that run everywhere. What differs is who gets attempts to their
workers: a loop here that runs whatever the store says is in flight, one after the other, until nothing is. It is a loop
and never a step that calls the next, so a run of any length needs the stack of one step. Nobody waits: the back-off of
a retry counts as over.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind, ResultEvent
from multiagents.exceptions import WorkerNotFoundError, WorkflowNotFoundError
from multiagents.names import Correlation
from multiagents.orchestrator.dispatch.base import Dispatcher
from multiagents.orchestrator.engine.engine import Engine
from multiagents.orchestrator.engine.signals import SignalOutcome
from multiagents.retry import RetryPolicy
from multiagents.settings import Settings
from multiagents.state_store import StateStore
from multiagents.state_store.records import (
    Claim,
    Delivery,
    Dispatch,
    InFlight,
    Settled,
    Snapshot,
    Started,
    attempt_key_of,
    parse_attempt_key,
)
from multiagents.workflow.definition import Definition
from multiagents.workflow.state.run_state import RunStatus

logger = logging.getLogger(__name__)


class EagerDispatcher(Dispatcher):
    """Send nothing anywhere: an attempt that is in flight is run by whoever looks next.

    Args:
        messages: how attempts would go out, as Celery signatures; these are applied here.
    """

    atomic = False

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
        definition: Definition,  # noqa: ARG002
        correlation: Correlation,
        *,
        losses: int = 0,  # noqa: ARG002
        probe: bool = False,  # noqa: ARG002
        first: bool = False,  # noqa: ARG002
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

    def backlog(self, target: str) -> int:  # noqa: ARG002
        return 0

    def is_deserted(self, target: str) -> bool:  # noqa: ARG002
        return False

    def link(self, definition: Definition, correlation: Correlation, *, probe: bool = False) -> Any:
        return self._messages.link(definition, correlation, probe=probe)

    def wake(self, transaction_id: str, *, first: bool = False) -> None:  # noqa: ARG002
        return None

    def send_wake(self, transaction_id: str, *, first: bool = False) -> None:
        pass

    def wake_link(self, transaction_id: str) -> Any:
        return self._messages.wake_link(transaction_id)


class EagerEngine(Engine):
    """Advance runs as far as they go before returning."""

    dispatcher: EagerDispatcher

    def __init__(self, store: StateStore, dispatcher: EagerDispatcher, settings: Settings) -> None:
        super().__init__(store, dispatcher, settings)
        self._lock = threading.Lock()
        #: the runs that somebody drives now -> whether he has to look once more
        self._driven: dict[str, bool] = {}
        #: runs that wait for a lock that another one has
        self._blocked: set[str] = set()

    def start(self, definition: Definition, transaction_id: str, *args: Any, **kwargs: Any) -> Started:
        """Create a run and run it."""
        started = super().start(definition, transaction_id, *args, **kwargs)
        if started.created:
            self._drive(transaction_id)
        return started

    def settle(self, event: ResultEvent | ErrorEvent, claim: Claim, *, may_go_on: bool = False) -> Settled:
        """Commit what came of an attempt; what follows is run by the loop, so the task carries no link."""
        return super().settle(event, claim, may_go_on=may_go_on)._replace(links=())

    def receive(self, event: ResultEvent | ErrorEvent) -> None:
        """Take in a foreign outcome, and run what follows."""
        super().receive(event)
        self._drive(Correlation.parse(event.correlation_id).transaction_id)

    def carry_on(self, transaction_id: str) -> None:
        """Run what follows."""
        self._drive(transaction_id)

    def cancel(self, transaction_id: str, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Stop a run, and undo what it did."""
        super().cancel(transaction_id, reason=reason, actor=actor)
        self._drive(transaction_id)
        return self.store.load(transaction_id).state.status

    def signal(self, transaction_id: str, name: str, data: Any = None, **facts: Any) -> SignalOutcome:
        """Give a run a signal, and run what follows."""
        outcome = super().signal(transaction_id, name, data, **facts)
        self._drive(transaction_id)
        return outcome

    def operate(self, transaction_id: str, verb: str, **facts: Any) -> RunStatus:
        """Tell a run what a person wants, and run what follows."""
        super().operate(transaction_id, verb, **facts)
        self._drive(transaction_id)
        return self.store.load(transaction_id).state.status

    def _drive(self, transaction_id: str) -> None:
        """Run what is in flight until nothing is; whoever drives the run already does it, and is told to look again."""
        with self._lock:
            driven = self._driven[transaction_id] = transaction_id in self._driven
            if driven:
                return
        try:
            again = True
            while again:
                while (found := self._next(transaction_id)) is not None:
                    self._attempt(*found)
                with self._lock:
                    again = self._driven[transaction_id]
                    self._driven[transaction_id] = False
                    if not again:
                        del self._driven[transaction_id]
        except BaseException:
            with self._lock:
                self._driven.pop(transaction_id, None)
            raise
        self._pass_locks_on(transaction_id)

    def _pass_locks_on(self, transaction_id: str) -> None:
        """A run has gone as far as it goes: those that waited for its locks go on, as no sweep is here to tell them."""
        with self._lock:
            self._blocked.discard(transaction_id)
            others = list(self._blocked)
        for other in others:
            for entry in self._asking(other):
                self.locks.ask_at_once(other, entry.step)
            if not self._asking(other):
                self._drive(other)
        if self._asking(transaction_id):
            with self._lock:
                self._blocked.add(transaction_id)

    def _asking(self, transaction_id: str) -> list[InFlight]:
        try:
            in_flight = self.store.load(transaction_id).in_flight
        except WorkflowNotFoundError:
            return []
        return [entry for entry in in_flight.values() if entry.delivery is Delivery.LOCK]

    def _next(self, transaction_id: str) -> tuple[Snapshot, InFlight] | None:
        """An attempt that waits to be run; the decision that is owed is made first, if there is one."""
        found = self._waiting(transaction_id)
        if found is None and not self.store.load(transaction_id).state.status.is_end:
            self.advance(transaction_id)
            found = self._waiting(transaction_id)
        return found

    def _waiting(self, transaction_id: str) -> tuple[Snapshot, InFlight] | None:
        snapshot = self.store.load(transaction_id)
        for entry in snapshot.in_flight.values():
            stands_still = entry.timer_ms and snapshot.state.stopped_at is not None
            if (
                entry.delivery not in (Delivery.CLAIMED, Delivery.EXTERNAL, Delivery.CHILD, Delivery.LOCK)
                and not stands_still
            ):
                return snapshot, entry
        return None

    def _attempt(self, snapshot: Snapshot, entry: InFlight) -> None:
        transaction_id = snapshot.state.transaction_id
        correlation = Correlation(transaction_id, entry.step, *parse_attempt_key(entry.attempt_key))
        if entry.delivery is Delivery.SLEEP:
            self.wake(correlation, entry.record)  # no time passes here, as between two attempts
            return
        if entry.delivery is Delivery.TIMER:
            ready = self.dispatcher.address(snapshot.definition, correlation)
            self.store.dispatch(transaction_id, ready._replace(close_ms=entry.close_ms), entry.record)
        try:
            self.dispatcher.run(snapshot.definition, correlation, probe=snapshot.state.is_probe(correlation))
        except WorkerNotFoundError as error:
            self._unanswered(correlation, ErrorKind.FAILED, str(error), f"{type(error).__module__}.WorkerNotFoundError")
        else:
            message = "its task ended and said nothing of what came of it"
            self._unanswered(correlation, ErrorKind.LOST, message, "WorkerLost")

    def _unanswered(self, correlation: Correlation, kind: ErrorKind, message: str, error: str) -> None:
        """Give an attempt up that is still in flight after it was run: the loop would run it for ever."""
        found = self.store.load(correlation.transaction_id).in_flight.get(correlation.step)
        if found is None or found.attempt_key != attempt_key_of(correlation.direction, correlation.attempt):
            return
        event = ErrorEvent(
            id=f"{correlation}/end",
            transaction_id=correlation.transaction_id,
            correlation_id=str(correlation),
            occurred_at=self.store.now(),
            step=correlation.step,
            attempt=correlation.attempt,
            kind=kind,
            retryable=kind is ErrorKind.LOST,
            error=ErrorInfo(type=error, message=f"step {correlation.step!r}: {message}", attempt=correlation.attempt),
        )
        self.give_up(event, found.record)
