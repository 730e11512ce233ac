"""Runs in this process, from start to end: Celery's ``task_always_eager``.

The engine, the store and the workers' side are the ones that run everywhere. What differs is who gets attempts to their
workers: a loop here that runs whatever the store says is in flight, one after the other, until nothing is. It is a loop
and never a step that calls the next, so a run of any length needs the stack of one step. Nobody waits: the back-off of
a retry counts as over, and so does the pause of an attempt that was given back; what waits for a person stands still.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from multiagents.clock import to_ms
from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind, Event, ResultEvent
from multiagents.exceptions import WorkerNotFoundError, WorkflowNotFoundError
from multiagents.names import Correlation
from multiagents.orchestrator.dispatch.eager import EagerDispatcher
from multiagents.orchestrator.engine.engine import Engine
from multiagents.orchestrator.engine.follow_ups import AskForLock, FollowUp, Progressed
from multiagents.orchestrator.engine.pipeline import Outcome
from multiagents.settings import Settings
from multiagents.state_store import StateStore
from multiagents.state_store.records import (
    Claim,
    Delivery,
    InFlight,
    Settled,
    Snapshot,
    Started,
    awaited_call,
    awaited_canary,
    parse_attempt_key,
)
from multiagents.workflow.definition import Definition

logger = logging.getLogger(__name__)

#: How often an attempt may be given back, one time after the other, by a worker for which no time passes meanwhile.
MOST_GIVEN_BACK = 20


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
        self._here = threading.local()

    def start(self, definition: Definition, transaction_id: str, input: dict[str, Any], **how: Any) -> Started:
        """Create a run and run it."""
        started = super().start(definition, transaction_id, input, **how)
        if started.created:
            self._drive(transaction_id)
        return started

    def settle(self, event: ResultEvent | ErrorEvent, claim: Claim, *, may_go_on: bool = False) -> Settled:
        """Commit what came of an attempt; what follows is run by the loop, so the task carries no link."""
        return super().settle(event, claim, may_go_on=may_go_on)._replace(links=())

    def receive(self, event: ResultEvent | ErrorEvent) -> None:
        """Take in a foreign outcome, and run what follows."""
        super().receive(event)
        self._drive(event.transaction_id)

    def _decide(self, transaction_id: str, event: Event | Callable[[Snapshot], Event], /, **how: Any) -> Outcome:
        outcome = super()._decide(transaction_id, event, **how)
        self._drive(transaction_id)
        return outcome._replace(after=outcome.after._replace(status=self.store.status(transaction_id)))

    def _follow_up(self, following: FollowUp) -> tuple[Sequence[FollowUp], Sequence[Any]]:
        if isinstance(following, Progressed):
            queue: deque[str] | None = getattr(self._here, "queue", None)
            if queue is None:
                self._drive(following.transaction_id)
            else:  # This thread drives a run already, and comes to this one then.
                queue.append(following.transaction_id)
        return super()._follow_up(following)

    def _drive(self, transaction_id: str) -> None:
        """Run what is in flight of a run until nothing is, and of the runs that this moves on."""
        outer = getattr(self._here, "queue", None)  # a worker may start a run, and wait for it
        self._here.queue = queue = deque([transaction_id])
        try:
            while queue:
                self._drive_one(queue.popleft())
        finally:
            self._here.queue = outer

    def _drive_one(self, transaction_id: str) -> None:
        """Whoever drives the run already, in another thread, does it, and is told to look again."""
        with self._lock:
            driven = self._driven[transaction_id] = transaction_id in self._driven
            if driven:
                return
        given_back: Counter[Correlation] = Counter()
        try:
            again = True
            while again:
                while (found := self._next(transaction_id)) is not None:
                    self._attempt(*found, given_back)
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
            self._carry_out([AskForLock(other, entry.step) for entry in self._asking(other)])
            if not self._asking(other):
                self._drive(other)
        if self._asking(transaction_id):
            with self._lock:
                self._blocked.add(transaction_id)

    def _asking(self, transaction_id: str) -> list[InFlight]:
        snapshot = self._snapshot(transaction_id)
        found = snapshot.in_flight.values() if snapshot else ()
        return [entry for entry in found if entry.delivery is Delivery.LOCK]

    def _snapshot(self, transaction_id: str) -> Snapshot | None:
        try:
            return self.store.load(transaction_id)
        except WorkflowNotFoundError:
            return None  # What came for it is in the dead letters.

    def _next(self, transaction_id: str) -> tuple[Snapshot, InFlight] | None:
        """An attempt that waits to be run; the decision that is pending is made first, if there is one."""
        snapshot = self._snapshot(transaction_id)
        if snapshot is None:
            return None
        found = _waiting(snapshot)
        if found is None and not snapshot.state.status.is_end:
            self.advance(transaction_id)
            snapshot = self.store.load(transaction_id)
            found = _waiting(snapshot)
        return None if found is None else (snapshot, found)

    def _attempt(self, snapshot: Snapshot, entry: InFlight, given_back: Counter[Correlation]) -> None:
        correlation = snapshot.state.correlation(entry.step, *parse_attempt_key(entry.attempt_key))
        if entry.delivery is Delivery.SLEEP:
            self.complete(correlation, entry.record)  # no time passes here, as between two attempts
            return
        if entry.delivery is Delivery.TIMER:
            ready = self.dispatcher.address(snapshot.definition, correlation)
            self.store.dispatch(snapshot.state.identity, ready._replace(close_ms=entry.close_ms), entry.record)
        kind, message, error = ErrorKind.LOST, "its task ended and said nothing of what came of it", "WorkerLost"
        try:
            self.dispatcher.run(snapshot.definition, correlation, probe=snapshot.state.is_probe(correlation))
        except WorkerNotFoundError as missing:
            kind, message, error = ErrorKind.FAILED, str(missing), f"{type(missing).__module__}.WorkerNotFoundError"
        found = self.store.load(correlation.transaction_id).attempt(correlation)
        if found is None:
            return
        if found.delivery is Delivery.TIMER:  # it was given back
            given_back[correlation] += 1
            if given_back[correlation] < MOST_GIVEN_BACK:
                return
            message = f"it was given back {MOST_GIVEN_BACK} times, and in this process no time passes between them"
        # It is still in flight after it was run, and the loop would run it for ever.
        info = ErrorInfo(type=error, message=f"step {correlation.step!r}: {message}", attempt=correlation.attempt)
        retryable = kind is ErrorKind.LOST
        event = ErrorEvent.about(correlation, info, at=self.store.now(), kind=kind, retryable=retryable)
        self.give_up(event, found.record)


def _waiting(snapshot: Snapshot) -> InFlight | None:
    """An attempt that waits for whoever drives the run; of what stands still nobody does."""
    for entry in snapshot.in_flight.values():
        stands_still = entry.timer_ms and snapshot.state.stopped_at is not None
        waits = entry.delivery in (Delivery.CLAIMED, Delivery.EXTERNAL, Delivery.CHILD, Delivery.LOCK)
        if not (waits or stands_still or _waits_for_a_person(snapshot, entry)):
            return entry
    return None


def _waits_for_a_person(snapshot: Snapshot, entry: InFlight) -> bool:
    """Whether an attempt was given back until somebody decides, who then has it come at once."""
    if entry.delivery is not Delivery.TIMER or entry.timer_ms <= to_ms(snapshot.now):
        return False
    return awaited_call(entry.target) is not None or awaited_canary(entry.target) is not None
