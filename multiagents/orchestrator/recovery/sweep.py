"""Find whatever has no owner, and move it on.

A sweep runs in every worker. What is due is *leased* to one of them: the store hides it for a while, and only the
commit that handles it removes it. So any number may sweep, and one that is killed half-way leaves nothing behind (G4,
G5).
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from uuid import uuid4

from multiagents.clock import to_ms
from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind
from multiagents.exceptions import (
    PayloadStoreError,
    StateConflictError,
    StateRefusedError,
    StateStoreError,
    WorkflowNotFoundError,
)
from multiagents.failpoints import WriteSite, write
from multiagents.names import QUARANTINE_SUFFIX, Correlation, identity_of
from multiagents.orchestrator.dispatch import CHILD_GRACE_MS, CONSUMED_FOR, outbox_grace_ms, start_within_ms
from multiagents.orchestrator.engine import LEFT_FOR, Engine, is_done_by_child, why_unclaimable
from multiagents.orchestrator.recovery.retention import Retention
from multiagents.orchestrator.recovery.unclaimed import Unclaimed
from multiagents.state_store import StateStore
from multiagents.state_store.records import Delivery, Dispatch, Due, DueKind, InFlight, Snapshot, parse_attempt_key
from multiagents.workflow.decider import Silence, timeouts
from multiagents.workflow.decider.timeouts import Again

logger = logging.getLogger(__name__)

#: The longest pause between two publications of the same attempt through another broker.
OUTBOX_LONGEST_MS = 15 * 60_000
#: When an attempt is looked at again whose message was on its way when its time was over.
UNDER_WAY_MS = 200
#: The longest pause between two looks at a child that has not said that it is over.
CHILD_LOOKED_AT_MS = 15 * 60_000
#: The shortest pause between two ticks, however close together things are due: seconds.
SHORTEST_PAUSE = 0.02
#: What part of the sweep interval a pause is at least, of those who do not wake when something is due.
JITTER = 0.7
#: How many attempts are published again through a queue in which others wait, by one sweep in one pause.
AT_ONCE = 5
#: For how many pauses it counts that a queue has become shorter.
COUNTS_FOR = 4
#: How long a start has waited that goes on (ms), and how often that is looked at, where the broker is not the store: s.
AGED_MS, AGED_EVERY = 3_000, 1.5
#: How many due entries one tick handles at most, so that a tick stays short.
BATCH = 100


class Sweep:
    """One worker's share of the upkeep.

    Args:
        engine: advances runs; its store should be one that gives up at once.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store: StateStore = engine.store
        self._name = uuid4().hex
        #: a queue's backlog, asked for once a tick
        self._backlogs: dict[str, int] = {}
        #: queue -> its backlog at the last look, and when it was found to have become shorter
        self._lengths: dict[str, int] = {}
        self._shrank: dict[str, float] = {}
        #: busy queue -> until when, and how many attempts may still be published again through it
        self._allowed: dict[str, tuple[float, int]] = {}
        #: until when no other broker is tried, because it was away
        self._broker_away_until = 0.0
        #: runs whose children are looked at in this tick: one look at the parent does for many of them
        self._parents: dict[str, Snapshot] = {}
        self._retention = Retention(self.store)
        self._unclaimed = Unclaimed(engine)
        #: until when others are let first: they can decide what this process cannot
        self._yields_until = 0.0
        #: when to look next whether somebody waits in a quarantine in vain
        self._look_again_at = 0.0
        #: when to look next whether starts have waited long in a broker that is not the store
        self._raise_at = 0.0

    def tick(self) -> float:
        """Handle what is due.

        One of all who sweep wakes when something is due; the others look now and then, and one of them does so in his
        place when he is no more. While a run is left to others, it is not this one: he would come upon that run again
        and again, always before those who can decide it.

        Returns:
            seconds until the next tick is worth it, at most the sweep interval.
        """
        self._backlogs.clear()
        self._parents.clear()
        settings = self.engine.settings
        yields = time.monotonic() < self._yields_until
        entries, until_next = self.store.take_due(
            limit=BATCH, waker="" if yields else self._name, starts=self.engine.dispatcher.start_suffix
        )
        give_up = time.monotonic() + settings.lease / 2
        for entry in entries:
            self._try(entry, self._handle)
            if time.monotonic() > give_up:
                break  # slow ones: the rest is due again in half a lease, and by then somebody else may have time
        self._look_into_quarantine()
        if time.monotonic() >= self._raise_at:
            self._raise_at = time.monotonic() + AGED_EVERY
            self.engine.dispatcher.raise_starts(self._has_waited)
        if len(entries) == BATCH:
            return 0.0
        if time.monotonic() < self._yields_until or until_next > settings.sweep_interval:
            # Not all at once, and never later than a pause may be that does not read as an outage.
            return settings.sweep_interval * random.uniform(JITTER, 1.0)  # noqa: S311 - no secret
        return max(until_next, SHORTEST_PAUSE)

    def _has_waited(self, start: Correlation) -> bool:
        """Whether what starts a run has waited long, or nobody waits for it any more: it would keep those behind it."""
        try:
            snapshot = self.store.load(start.transaction_id)
        except StateStoreError:
            raise
        except Exception:  # noqa: BLE001 - it is gone, or cannot be read: whoever takes it finds that out
            return True
        since = snapshot.state.started_at or 0
        if start.step:
            found = snapshot.in_flight.get(start.step)
            since = 0 if found is None or found.delivery is not Delivery.OUTBOX else found.since_ms
        return to_ms(snapshot.now) - since >= AGED_MS

    def _try(self, entry: Due, handle: Callable[[Due], None]) -> None:
        """Handle one entry; whatever comes of it, the ones behind it are handled.

        Raises:
            StateStoreError: when the store is away.
        """
        try:
            try:
                handle(entry)
            except Exception as error:  # noqa: BLE001 - whatever a run's data, or the code that reads it, comes to
                self._failed(entry, error)
        except PayloadStoreError as error:
            # The runs themselves are within reach, and most entries need nothing of what is kept apart.
            logger.warning("due entry %s will be due again: %s", entry.member, error)
        except StateStoreError as error:
            self.store.reach()  # away: nothing can be handled now
            logger.error("due entry %s was refused, and will be due again: %s", entry.member, error)

    def _failed(self, entry: Due, error: Exception) -> None:
        """See to an entry that was not handled."""
        if isinstance(error, WorkflowNotFoundError) and error.name == entry.transaction_id:
            self.store.discard(entry.member, entry.transaction_id)
        elif isinstance(error, StateConflictError):
            logger.info("due entry %s will be due again: %s", entry.member, error)
        elif isinstance(error, StateRefusedError):
            self._note(entry, error)  # nobody else will fare better
        elif isinstance(error, StateStoreError):
            raise error
        else:
            if not isinstance(error, WorkflowNotFoundError):  # else the run is there, and its definition is not
                logger.error("due entry %s was not handled; it will be due again", entry.member, exc_info=error)
            self._note(entry, error)
            self._let_others_first()

    def _look_into_quarantine(self) -> None:
        """Send steps back to their own queues that wait in a quarantine whose consumers have left (rule S1a).

        Their messages wait, so nothing of them is due, and nothing will be.
        """
        if time.monotonic() < self._look_again_at:
            return
        self._look_again_at = time.monotonic() + min(CONSUMED_FOR, self.engine.settings.lease)
        for target, entries in self.store.waiting(QUARANTINE_SUFFIX, limit=BATCH).items():
            if self.engine.dispatcher.is_deserted(target):
                for entry in entries:
                    self._try(entry, self._leave_quarantine)
        for entry in self._unclaimed.in_unconsumed_queues():
            self._try(entry, self._wait_in_vain)

    def _leave_quarantine(self, entry: Due) -> None:
        snapshot = self.store.load(entry.transaction_id)
        found = snapshot.attempt(self._correlation(entry))
        if found is not None and QUARANTINE_SUFFIX in found.target:
            logger.warning("%s leaves %r, which nobody consumes", self._correlation(entry), found.target)
            self._send(entry, snapshot, found, Again(0, found.number, found.first_ms))

    def _wait_in_vain(self, entry: Due) -> None:
        snapshot = self.store.load(entry.transaction_id)
        found = snapshot.attempt(self._correlation(entry))
        if found is None or found.delivery is not Delivery.PUSH:
            return
        if (silence := self._unclaimed.in_vain(snapshot, self._correlation(entry), found)) is not None:
            self._give_up(entry, found.record, silence)

    def _handle(self, entry: Due) -> None:
        if entry.kind == DueKind.DECISION:
            if not self.engine.advance(entry.transaction_id, entry.nonce):
                settings = self.engine.settings
                self._yields_until = time.monotonic() + settings.lease / LEFT_FOR + 2 * settings.sweep_interval
        elif entry.kind == DueKind.EXPIRY:
            self._retention.is_over(entry)
        elif entry.kind == DueKind.LOCK:
            self.engine.locks.look_after(entry)
        elif entry.kind == "t":
            if self.engine.interventions.deadline_passed(entry.transaction_id, entry.nonce):
                self.store.discard(entry.member, entry.transaction_id)
        else:
            snapshot = self._snapshot(entry)
            found = snapshot.in_flight.get(entry.step)
            if snapshot.state.nonce != entry.nonce or found is None or found.attempt_key != entry.attempt_key:
                self.store.discard(entry.member, entry.transaction_id)
            elif entry.kind == DueKind.UNCLAIMED:
                self._not_started(entry, snapshot, found)
            else:
                self._attempt(entry, snapshot, found)

    def _snapshot(self, entry: Due) -> Snapshot:
        known = self._parents.get(entry.transaction_id)
        found = known and known.in_flight.get(entry.step)
        # What a child has to be told may be told from a state that is some moments old.
        if (
            known is not None
            and known.state.nonce == entry.nonce
            and found
            and found.attempt_key == entry.attempt_key
            and found.delivery is Delivery.CHILD
            and entry.kind == DueKind.ATTEMPT
        ):
            return known
        return self.store.load(entry.transaction_id)

    def _note(self, entry: Due, error: Exception) -> None:
        """A run that cannot be moved on, because it cannot be read, waits where a person sees it (rule S27).

        It goes on by itself when it can be read again; the letter stays.
        """
        why = f"the run could not be moved on, and is tried again once a lease: {type(error).__name__}: {error}"
        self.store.bury(
            entry.transaction_id, identity_of(entry.transaction_id, entry.nonce), {"why": why, "waits": entry.member}
        )

    def _let_others_first(self) -> None:
        settings = self.engine.settings
        self._yields_until = time.monotonic() + settings.lease + 2 * settings.sweep_interval

    def _attempt(self, entry: Due, snapshot: Snapshot, found: InFlight) -> None:
        now = to_ms(snapshot.now)
        moved = found.timer_ms > now or (found.timer_ms and snapshot.state.stopped_at is not None)
        if moved and found.delivery is not Delivery.LOCK:
            return  # Somebody has moved it, or it stands still: its entry comes up again, at its time or a lease later.
        match found.delivery:
            case Delivery.CLAIMED if is_done_by_child(snapshot.definition, self._correlation(entry)):
                # Whoever was to put its end down died over it; the child is what it was, and says so again.
                self.engine.resume_child(self._correlation(entry), found)
            case Delivery.CLAIMED:
                self._silent(entry, snapshot, found, now)
            case Delivery.SLEEP:
                self.engine.complete(self._correlation(entry), found.record)
            case Delivery.CHILD:
                parent = self._parents.setdefault(entry.transaction_id, snapshot)
                self.engine.tend_children(parent, [entry.step])
                pause = min(CHILD_LOOKED_AT_MS, max(CHILD_GRACE_MS, now - found.since_ms))
                self.store.postpone(entry.member, entry.transaction_id, pause)
            case Delivery.LOCK:
                self._lock(entry, snapshot, found, now)
            case Delivery.EXTERNAL if snapshot.definition.steps[entry.step].awaits_signal:
                self._no_signal(entry, snapshot, found)
            case Delivery.EXTERNAL:
                self._give_up(entry, found.record, timeouts.not_reported())
            case Delivery.PUSH | Delivery.LINK | Delivery.OUTBOX if (
                error := self._why_unclaimable(entry, found, now)
            ) is not None:
                self._end(entry, found.record, ErrorKind.FAILED, error, final=True)
            case Delivery.OUTBOX:
                self._publish_again(entry, snapshot, found, now)
            case Delivery.PUSH | Delivery.LINK | Delivery.UNREGISTERED:
                self._send_again(entry, snapshot, found)
            case _:
                self._send(entry, snapshot, found)

    def _no_signal(self, entry: Due, snapshot: Snapshot, found: InFlight) -> None:
        """A wait is over without its signal."""
        step = snapshot.definition.steps[entry.step]
        scheduled = snapshot.state.step(entry.step).do.scheduled_at or found.first_ms
        self._pass_over(entry, found, timeouts.without_signal(step, found.close_ms - scheduled))

    def _lock(self, entry: Due, snapshot: Snapshot, found: InFlight, now: int) -> None:
        """A step waits for a lock: ask again, unless its time is over."""
        pause = self.engine.ask_for_lock(snapshot, found)
        if pause is None:
            return
        if not found.close_ms or now < found.close_ms or snapshot.state.stopped_at is not None:
            self.store.postpone(entry.member, entry.transaction_id, pause)
            return
        step, key = snapshot.definition.steps[entry.step], self.engine.locks.key_of(entry.transaction_id, found)
        scheduled = snapshot.state.step(entry.step).do.scheduled_at or found.first_ms
        self._pass_over(entry, found, timeouts.without_lock(step, key, found.close_ms - scheduled))

    def _pass_over(self, entry: Due, found: InFlight, silence: Silence | None) -> None:
        if silence is None:
            self.engine.complete(self._correlation(entry), found.record)
        else:
            self._give_up(entry, found.record, silence)

    def _silent(self, entry: Due, snapshot: Snapshot, found: InFlight, now: int) -> None:
        """A claimed attempt whose lease is over."""
        silence = timeouts.in_claim(
            now=now,
            claimed=found.since_ms,
            deadline=found.deadline_ms,
            beat_until=found.beat_until_ms,
            worker=found.worker,
            death=snapshot.death_of(found),
        )
        self._give_up(entry, found.record, silence, entry.seen_ms)

    def _why_unclaimable(self, entry: Due, found: InFlight, now: int) -> ErrorInfo | None:
        """What kept a worker from claiming an attempt, if that is so and nobody else has come for long enough (S27)."""
        if now - found.first_ms < self.engine.settings.schedule_to_start * 1000:
            return None
        return why_unclaimable(self.store, self._correlation(entry))

    def _not_started(self, entry: Due, snapshot: Snapshot, found: InFlight) -> None:
        # What waits for its time, because a limit gave it back, has a limit anew when it is sent.
        if found.delivery not in (Delivery.CLAIMED, Delivery.TIMER):
            silence = self._unclaimed.over(snapshot, self._correlation(entry), found)
            if silence is not None and not self._give_up(entry, found.record, silence):
                # Its message went on its way meanwhile: to a worker that has it now, or round once more.
                self.store.postpone(entry.member, entry.transaction_id, UNDER_WAY_MS)
                return
        self.store.discard(entry.member, entry.transaction_id)

    def _send_again(self, entry: Due, snapshot: Snapshot, found: InFlight) -> None:
        """A link that was lost, a message that was lost before its claim, or that a worker did not know."""
        match self._unclaimed.goes_on(snapshot, self._correlation(entry), found):
            case Silence() as silence:
                self._give_up(entry, found.record, silence)
            case Again(in_ms) if in_ms:
                self.store.postpone(entry.member, entry.transaction_id, in_ms)
            case again:
                self._send(entry, snapshot, found, again)

    def _send(self, entry: Due, snapshot: Snapshot, found: InFlight, again: Again | None = None) -> None:
        """Send an attempt whose time has come, or one that was sent before, as ``again`` says."""
        if snapshot.state.paused:  # nothing new is sent out until somebody resumes the run
            self.store.postpone(entry.member, entry.transaction_id, round(self.engine.settings.lease * 1000))
            return
        correlation = self._correlation(entry)
        activity = snapshot.state.step(entry.step).activity(correlation.direction)
        probe = snapshot.state.is_probe(correlation)
        ready = self.engine.dispatcher.address(
            snapshot.definition, correlation, losses=activity.losses, probe=probe, home=snapshot.state.home
        )
        if again is None:
            within = start_within_ms(snapshot.definition.steps[entry.step], found.close_ms, to_ms(snapshot.now))
            ready = ready._replace(close_ms=found.close_ms, start_within_ms=within)
        else:
            ready = ready._replace(close_ms=found.close_ms, first_ms=again.first, sent=again.sent)
        if self.store.dispatch(snapshot.state.identity, ready, found.record) and ready.delivery is Delivery.OUTBOX:
            self._publish(entry, snapshot, ready.target)

    def _publish_again(self, entry: Due, snapshot: Snapshot, found: InFlight, now: int) -> None:
        """Another broker: nobody claimed it, and no worker says that it holds it.

        It may still wait in a long queue, or it was lost: nobody can tell that in a queue in which others wait. So if
        that is consumed, a few of those that have waited longest are published again there, now and then, and each one
        ever more rarely: what was lost comes back, and a backlog is not copied.
        """
        grace, correlation = outbox_grace_ms(self.engine.settings.lease), self._correlation(entry)
        if self.engine.dispatcher.is_deserted(found.target):
            self._leave_quarantine(entry)
            return
        if self._backlog(found.target) > 0:
            if (silence := self._unclaimed.in_vain(snapshot, correlation, found)) is not None:
                self._give_up(entry, found.record, silence)
            elif self._may_copy(found.target, grace):
                # It may wait there all the while: so it does not count as sent once more.
                again = Again(0, found.number, found.first_ms)
                self._send_through_outbox(entry, snapshot, found, again, now - found.first_ms)
            else:
                pause = max(grace, min(OUTBOX_LONGEST_MS, (now - found.first_ms) // 4))
                self.store.postpone(entry.member, entry.transaction_id, pause)
            return
        match self._unclaimed.goes_on(snapshot, correlation, found):
            case Silence() as silence:
                self._give_up(entry, found.record, silence)
            case Again(in_ms) if in_ms:
                self.store.postpone(entry.member, entry.transaction_id, in_ms)
            case again:
                self._send_through_outbox(entry, snapshot, found, again, now - found.since_ms)

    def _send_through_outbox(
        self, entry: Due, snapshot: Snapshot, found: InFlight, again: Again, pause_ms: int
    ) -> None:
        pause = max(outbox_grace_ms(self.engine.settings.lease), min(OUTBOX_LONGEST_MS, pause_ms))
        ready = Dispatch(entry.step, entry.attempt_key, Delivery.OUTBOX, found.target, delay_ms=pause)
        ready = ready._replace(first_ms=again.first, close_ms=found.close_ms, sent=again.sent)
        if self.store.dispatch(snapshot.state.identity, ready, found.record):
            self._publish(entry, snapshot, found.target)

    def _may_copy(self, queue: str, grace_ms: int) -> bool:
        now = time.monotonic()
        if now - self._shrank.get(queue, -math.inf) > COUNTS_FOR * grace_ms / 1000:
            return False  # nobody consumes it: whatever is in it waits
        until, left = self._allowed.get(queue, (0.0, 0))
        if now >= until:
            until, left = now + grace_ms / 1000, AT_ONCE
        self._allowed[queue] = until, left - 1
        return left > 0

    def _publish(self, entry: Due, snapshot: Snapshot, target: str) -> None:
        """Publish an attempt. A broker that is away is tried once in a while, for more is due than this."""
        correlation = self._correlation(entry)
        definition, probe = snapshot.definition, snapshot.state.is_probe(correlation)
        publish = self.engine.dispatcher.publish
        try:
            if time.monotonic() >= self._broker_away_until:
                write(WriteSite.PUBLISH_AGAIN, lambda: publish(definition, correlation, target, probe=probe))
                return
        except Exception:
            self._broker_away_until = time.monotonic() + self.engine.settings.sweep_interval
            logger.warning("%s was not published; it will be tried again", correlation, exc_info=True)
        self.store.postpone(entry.member, entry.transaction_id, round(self.engine.settings.lease * 1000))

    def _backlog(self, queue: str) -> int:
        if queue not in self._backlogs:
            found = self._backlogs[queue] = self.engine.dispatcher.backlog(queue)
            if found < self._lengths.get(queue, 0):
                self._shrank[queue] = time.monotonic()
            self._lengths[queue] = found
        return self._backlogs[queue]

    def _give_up(self, entry: Due, record: str, silence: Silence, unrenewed: int | None = None) -> bool:
        attempt = self._correlation(entry).attempt
        error = ErrorInfo(type=silence.error, message=f"step {entry.step!r}: {silence.message}", attempt=attempt)
        return self._end(entry, record, silence.kind, error, unrenewed, final=silence.final)

    def _end(
        self,
        entry: Due,
        record: str,
        kind: ErrorKind,
        error: ErrorInfo,
        unrenewed: int | None = None,
        *,
        final: bool = False,
    ) -> bool:
        """Record that an attempt has ended; False when its record is another one by now."""
        correlation = self._correlation(entry)
        event = ErrorEvent.about(correlation, error, at=self.store.now(), kind=kind, retryable=not final)
        return self.engine.give_up(event, record, unrenewed=unrenewed)

    @staticmethod
    def _correlation(entry: Due) -> Correlation:
        return Correlation(entry.transaction_id, entry.step, *parse_attempt_key(entry.attempt_key), entry.nonce)
