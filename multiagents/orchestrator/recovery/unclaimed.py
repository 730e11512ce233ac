"""Attempts whose message nobody claims: until when they are sent again, and what is said of them (rule S33).

A queue may be long, a worker may be down for a night, and messages get lost with the workers that hold them: none of
that fails a step by itself. `timeouts` has what does. Whoever looks says so at the first look, once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from multiagents.clock import to_ms
from multiagents.names import Correlation
from multiagents.orchestrator.dispatch import outbox_grace_ms
from multiagents.orchestrator.engine import Engine
from multiagents.state_store.records import Delivery, Due, InFlight, Snapshot
from multiagents.workflow.decider import Silence, timeouts
from multiagents.workflow.decider.timeouts import COUNTS_FROM, Again

logger = logging.getLogger(__name__)


class Unclaimed:
    """What becomes of attempts that nobody has claimed.

    Args:
        engine: advances runs.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._dispatcher = engine.dispatcher
        self._limit = engine.settings.schedule_to_start
        #: queues that nobody has ever consumed, as far as is known -> when this was seen first (s)
        self._unknown: dict[str, float] = {}
        #: what has been warned of
        self._told: set[tuple[str, str]] = set()
        #: whether the last attempt that was looked at waits on
        self._goes_on = True

    # --- one attempt -------------------------------------------------------------------------------------------------

    def goes_on(self, snapshot: Snapshot, correlation: Correlation, found: InFlight) -> Again | Silence:
        """How an attempt goes on whose message is gone; or how it ends, once it has waited long enough.

        Args:
            snapshot: its run.
            correlation: the attempt.
            found: its record: sent, or waiting to be offered again.
        """
        now, lease_ms = to_ms(snapshot.now), round(self._engine.settings.lease * 1000)
        sent = {Delivery.UNREGISTERED: 0, Delivery.LINK: 1}.get(found.delivery, found.number)
        again = timeouts.sent_again(
            sent=sent,
            # What is still to come was written before the store's clock went back.
            first=min(found.first_ms, now),
            since=min(found.since_ms, now),
            now=now,
            pause=lease_ms if found.delivery is not Delivery.OUTBOX else outbox_grace_ms(self._engine.settings.lease),
            limit=round(self._limit * 1000),
        )
        worker, queue = self._asked(snapshot, correlation, found)
        counts = again is None or again.sent >= COUNTS_FROM
        if counts and self._dispatcher.announced(fresh=True).is_held(str(correlation), queue):
            return Again(
                0, 1, found.first_ms
            )  # Its worker is busy. It may be killed over that, so another may have it.
        if again is None:
            near = self._near(worker)
            if sent == 0:
                return timeouts.not_registered(worker, queue, self._limit, near)
            return timeouts.not_claimed(worker, queue, sent, near)
        if again.sent == COUNTS_FROM:
            self._warn(
                ("claimed", queue),
                '%s: its message was taken from queue "%s" %d times, and nobody claimed the attempt for worker "%s"%s; '
                "something consumes that queue that is no worker of this store. The step fails when that has gone on "
                "for %g s more",
                correlation,
                queue,
                sent,
                worker,
                self._near(worker),
                self._limit,
            )
        return again

    def over(self, snapshot: Snapshot, correlation: Correlation, found: InFlight) -> Silence | None:
        """How an attempt ends whose step has a limit of its own for its waiting; None while that is not over."""
        step, now = snapshot.definition.steps[found.step], to_ms(snapshot.now)
        worker, queue = self._asked(snapshot, correlation, found)
        near = self._near(worker) or self._dispatcher.announced().near_queue(queue)
        if found.close_ms and now >= found.close_ms:
            return timeouts.not_closed(step, worker, queue, near)
        return timeouts.not_started(step, worker, queue, near) if step.schedule_to_start else None

    # --- queues ------------------------------------------------------------------------------------------------------

    def in_unconsumed_queues(self) -> Iterator[Due]:
        """Attempts that wait in a broker list of a queue that no worker consumes; each is looked at before the next.

        They are given list by list, and of each until one of them goes on waiting: those behind it are younger.
        """
        store = self._engine.store
        for target in store.broker_lists():
            if self._is_consumed(self._dispatcher.queue_of(target)):
                continue
            for entry in store.waiting(target).get(target, ()):
                self._goes_on = False
                yield entry
                if self._goes_on:
                    break

    def in_vain(self, snapshot: Snapshot, correlation: Correlation, found: InFlight) -> Silence | None:
        """How an attempt ends that waits for too long in a queue which no worker has ever consumed; else None."""
        silence = self._in_vain(snapshot, correlation, found)
        self._goes_on = silence is None
        return silence

    def _in_vain(self, snapshot: Snapshot, correlation: Correlation, found: InFlight) -> Silence | None:
        worker, queue = self._asked(snapshot, correlation, found)
        announced = self._dispatcher.announced(fresh=True)
        if not announced.nodes or self._is_consumed(queue):
            return None
        if announced.knows(queue):
            self._unknown.pop(queue, None)
            self._warn(
                ("consumed", queue),
                'steps wait in queue "%s", and no worker of this store consumes it now (%s is one of them); they wait '
                "until one does: start a worker with -Q %s",
                queue,
                correlation,
                queue,
            )
            return None
        near = announced.near_queue(queue)
        self._warn(
            ("known", queue),
            'no worker of this store has ever consumed queue "%s"%s; %s waits there for worker "%s", and fails when '
            "that has gone on for %g s",
            queue,
            near,
            correlation,
            worker,
            self._limit,
        )
        seen = self._unknown.setdefault(queue, time.monotonic())
        waited = (to_ms(snapshot.now) - found.since_ms) / 1000
        if min(waited, time.monotonic() - seen) < self._limit or self._dispatcher.is_consumed(queue):
            return None
        return timeouts.never_consumed(worker, queue, round(waited, 1), near)

    def _is_consumed(self, queue: str) -> bool:
        if not self._dispatcher.announced().is_consumed(queue):
            return False
        self._unknown.pop(queue, None)
        self._told -= {("consumed", queue), ("known", queue)}
        return True

    # --- words -------------------------------------------------------------------------------------------------------

    def _asked(self, snapshot: Snapshot, correlation: Correlation, found: InFlight) -> tuple[str, str]:
        """The worker and the queue of an attempt."""
        step, probe = snapshot.definition.steps[found.step], snapshot.state.is_probe(correlation)
        worker = step.worker_of(correlation.direction, probe=probe)
        target = (
            found.target
            or self._dispatcher.address(snapshot.definition, correlation, probe=probe, home=snapshot.state.home).target
        )
        return worker, self._dispatcher.queue_of(target)

    def _near(self, worker: str) -> str:
        return self._dispatcher.announced().near_worker(worker, self._dispatcher.workers_here())

    def _warn(self, about: tuple[str, str], message: str, *args: object) -> None:
        if about not in self._told:
            self._told.add(about)
            logger.warning(message, *args)
