"""Locks on business keys: what a step that waits for one asks, and when the lock of a run that is over is given on.

Nothing happens at the end of the run that holds a lock. Whoever is next in its line looks whether that run is over, and
takes the lock from it then; of a lock that nobody else wants the sweep does the same, an hour later.
"""

from __future__ import annotations

from collections.abc import Sequence

from multiagents.clock import to_ms
from multiagents.exceptions import WorkflowNotFoundError
from multiagents.names import parse_identity
from multiagents.orchestrator.engine.attempts import complete
from multiagents.orchestrator.engine.follow_ups import FollowUp
from multiagents.orchestrator.engine.pipeline import Pipeline
from multiagents.state_store import LOCK_CHECK_MS, pause_ms
from multiagents.state_store.records import Delivery, Due, InFlight, Snapshot, parse_attempt_key


class Locks:
    """Asks for locks on behalf of steps.

    Args:
        pipeline: where runs and locks live, and how a step that has its lock is completed.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._store = pipeline.store

    def ask(self, snapshot: Snapshot, found: InFlight) -> tuple[int | None, Sequence[FollowUp]]:
        """Ask for the lock that a step waits for; asking twice is as good as once.

        Returns:
            None when the run has it and the step is done, else in how many ms to ask again; and what is left to be
            done.
        """
        transaction_id = snapshot.state.transaction_id
        pause = pause_of(snapshot, found)
        if snapshot.state.paused:
            return pause, ()  # Somebody has paused the run: it is not to keep others from what they need.
        step = snapshot.definition.steps[found.step]
        key = self.key_of(transaction_id, found)
        me = snapshot.state.identity
        lease_ms = round((step.lease or 0) * 1000)
        # Twice, and what a sweep may come late.
        asking_ms = 2 * pause + 2_000
        answer = self._store.isolation.lock(key, me, lease_ms=lease_ms, asking_ms=asking_ms)
        if not answer.granted and not answer.place and answer.holder and self._is_over(answer.holder):
            answer = self._store.isolation.lock(key, me, lease_ms=lease_ms, asking_ms=asking_ms, over=answer.token)
        if not answer.granted:
            return pause, ()
        correlation = snapshot.state.correlation(found.step, *parse_attempt_key(found.attempt_key))
        result = {found.step: {"key": key, "token": answer.token}}
        return None, complete(self._pipeline, correlation, found.record, result).follow_ups

    def ask_for(self, transaction_id: str, step: str) -> Sequence[FollowUp]:
        """Ask right after the commit that made a step wait; whatever goes wrong, the sweep asks in a second."""
        snapshot = self._store.load(transaction_id)
        found = snapshot.in_flight.get(step)
        if found is None or found.delivery is not Delivery.LOCK:
            return ()
        return self.ask(snapshot, found)[1]

    def key_of(self, transaction_id: str, found: InFlight) -> str:
        """What a step in flight waits for."""
        return found.target or str(self._store.payloads(transaction_id).inputs[found.step]["key"])

    def look_after(self, entry: Due) -> None:
        """Remove the lock of a run that is over, or whose lease is."""
        lock = self._store.isolation.lock_of(key := entry.transaction_id)
        if lock is None:
            self._store.discard(entry.member, key)
            return
        now = to_ms(self._store.now())
        if 0 < lock.until_ms <= now or self._is_over(lock.holder):
            self._store.isolation.unlock(key, lock.token)
        else:
            self._store.postpone(entry.member, key, lock.until_ms - now if lock.until_ms else LOCK_CHECK_MS)

    def _is_over(self, holder: str) -> bool:
        transaction_id, nonce = parse_identity(holder)
        try:
            snapshot = self._store.load(transaction_id)
        except WorkflowNotFoundError as error:
            if error.name != transaction_id:
                raise  # The run is there, and its definition is not.
            return True
        return snapshot.state.nonce != nonce or snapshot.state.status.is_end


def pause_of(snapshot: Snapshot, found: InFlight) -> int:
    """In how many ms a step that waits is to ask again; not later than its time is over."""
    now = to_ms(snapshot.now)
    pause = pause_ms(now - found.first_ms)
    return min(pause, found.close_ms - now) if found.close_ms > now else pause
