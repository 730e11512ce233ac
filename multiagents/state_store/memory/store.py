"""Runs in the memory of this process: for tests, and for Celery's ``task_always_eager`` and ``memory://``.

It does what the one on Redis does, and keeps everything as the same JSON, so a test cannot pass with data that would
not survive the way to Redis. Where this and the scripts differ, the contract tests fail.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from multiagents.clock import from_ms, steady_ms
from multiagents.events import Event
from multiagents.exceptions import WorkflowNotFoundError
from multiagents.keys import Keys
from multiagents.names import Correlation, parse_identity
from multiagents.state_store.base import CLOCK_WAS_SET, MAX_DELETED, TIDIED_AT_ONCE, StateStore, unread
from multiagents.state_store.memory.budgets import InMemoryBudgets
from multiagents.state_store.memory.examples import InMemoryExamples
from multiagents.state_store.memory.isolation import InMemoryIsolation
from multiagents.state_store.memory.journal import InMemoryJournal
from multiagents.state_store.memory.programs import InMemoryPrograms
from multiagents.state_store.memory.schedules import InMemorySchedules
from multiagents.state_store.memory.streams import InMemoryStreams
from multiagents.state_store.memory.tables import Row, Tables
from multiagents.state_store.memory.visibility import InMemoryVisibility
from multiagents.state_store.payloads import PLAIN, PayloadPolicy, Payloads, Reading, Writing, dumps, unpack
from multiagents.state_store.records import (
    LIMIT_GRACE_MS,
    Announced,
    Claim,
    ClaimRefused,
    Commit,
    Committed,
    DefinitionCache,
    Delivery,
    Dispatch,
    Due,
    DueKind,
    Ending,
    InFlight,
    Renewal,
    Snapshot,
    Started,
    Verdict,
    Written,
    attempt_key_of,
    limits_of,
)
from multiagents.state_store.records.claim import REFUSED, Header, StoredClaim, fields_of, reads_context
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState, RunStatus

logger = logging.getLogger(__name__)


class InMemoryStateStore(StateStore):
    """Keep runs in this process; any number of threads may use it.

    Args:
        keys: the key names; accepted because the store on Redis takes them.
        lease: seconds after which an attempt whose worker says nothing counts as lost.
        clock: seconds since the epoch; a test may give one of its own and make time pass.
        policy: in what form data is stored.
        tables: what is kept; those of another store, to keep the same. None: new ones, on this clock.

    >>> store = InMemoryStateStore(lease=5)
    >>> store.visibility.dead_letters()
    {}
    """

    _shared: ClassVar[dict[tuple[int, str], Tables]] = {}

    def __init__(
        self,
        *,
        keys: Keys | None = None,
        lease: float = 30.0,
        clock: Callable[[], float] = time.time,
        policy: PayloadPolicy = PLAIN,
        tables: Tables | None = None,
    ) -> None:
        self.keys = keys or Keys()
        self.policy = policy
        self.lease_ms = round(lease * 1000)
        self._tables = tables or Tables(clock, steady_ms if clock is time.time else None)
        self._definitions = DefinitionCache()
        self.isolation = InMemoryIsolation(self._tables, self.lease_ms)
        self.journal = InMemoryJournal(self._tables, policy)
        self.examples = InMemoryExamples(self._tables, policy)
        self.streams = InMemoryStreams(self._tables, policy)
        self.budgets = InMemoryBudgets(self._tables)
        self.visibility = InMemoryVisibility(self._tables, policy, self.load)
        self.schedules = InMemorySchedules(self._tables)
        self.programs = InMemoryPrograms(self._tables, policy)

    @classmethod
    def shared(
        cls, *, keys: Keys | None = None, lease: float = 30.0, policy: PayloadPolicy = PLAIN
    ) -> InMemoryStateStore:
        """The store that all of this process share, as they would share a Redis; one for each key prefix.

        >>> InMemoryStateStore.shared().bury("order-1", "order-1/charge/do/1", {"why": "nobody knows the run"})
        >>> list(InMemoryStateStore.shared().visibility.dead_letters())
        ['order-1/charge/do/1']
        >>> InMemoryStateStore.shared().clear()
        """
        keys = keys or Keys()
        # A forked child has a memory of its own, and must not wait for a lock that only its parent can open.
        tables = cls._shared.setdefault((os.getpid(), keys.prefix), Tables(time.time))
        return cls(keys=keys, lease=lease, policy=policy, tables=tables)

    @property
    def lists(self) -> MutableMapping[str, deque[str]]:
        """The messages that commits pushed, by broker list; the next to be consumed is the last."""
        return self._tables.lists

    def clear(self) -> None:
        """Forget every run: for the end of a test."""
        self._tables.clear()

    def now(self) -> datetime:
        return from_ms(self._tables.now())

    def _definition(self, content_hash: str) -> Definition:
        return self._definitions.get(content_hash, self._tables.definitions.get)

    def definition(self, content_hash: str, transaction_id: str) -> Definition:  # noqa: ARG002 - there is one partition
        return self._definition(content_hash)

    def _row(self, transaction_id: str) -> Row:
        row = self._tables.row(transaction_id)
        if row is None:
            raise WorkflowNotFoundError(transaction_id)
        return row

    # --- the life of a run -------------------------------------------------------------------------------------------

    def start(
        self,
        definition: Definition,
        state: RunState,
        commit: Commit,
        input: Any,
        digest: str,
        *,
        call: str = "",
        replaces: Collection[RunStatus] = (),
    ) -> Started:
        writing = Writing(self.policy)
        given, written, snapshot = writing.value(input), Written.of(commit, writing), definition.to_json()
        with self._tables.lock:
            known = self._tables.row(state.transaction_id)
            fields = {"v": "1", "epoch": "1", "digest": self.policy.seal(digest)} | ({"call": call} if call else {})
            if known is not None:
                if call and known.fields.get("call") == call:
                    return Started(True, definition.name, definition.content_hash, digest)
                if known.fields["status"] not in replaces:
                    kept = known.fields
                    return Started(False, kept["workflow"], kept["definition"], self.policy.open(kept["digest"]))
            self._tables.definitions.setdefault(definition.content_hash, snapshot)
            # Before the other goes, which may have followed it, too.
            self._tables.followed[definition.content_hash] += 1
            if known is not None:
                self._tables.erase(state.transaction_id)
            generation = self._tables.generations.get(state.transaction_id, 0) + 1
            if generation > 1:
                fields["generation"] = str(generation)
            row = self._tables.rows[state.transaction_id] = Row(self._tables.now(), fields, {"i": given})
            self._tables.apply(row, commit, written, self.lease_ms)
            return Started(
                True, definition.name, definition.content_hash, digest, self._tables.is_started_with(definition)
            )

    def claim(
        self,
        correlation: Correlation,
        definition_hash: str,
        *,
        owner: str,
        worker: str,
        timeout: float | None,
        heartbeat_timeout: float | None = None,
        task: str = "",
    ) -> Claim:
        transaction_id, step, direction, attempt, _ = correlation
        definition = self._definition(definition_hash)
        with self._tables.lock:
            row = self._tables.row(transaction_id)
            if row is None:
                raise ClaimRefused(correlation, REFUSED[1])
            if self._tables.run(correlation.identity) is None:
                raise ClaimRefused(correlation, REFUSED[4])
            entry = row.in_flight(step)
            if (
                entry is None
                or entry.attempt_key != attempt_key_of(direction, attempt)
                or entry.delivery in (Delivery.TIMER, Delivery.EXTERNAL, Delivery.SLEEP, Delivery.LOCK)
            ):
                raise ClaimRefused(correlation, REFUSED[2])
            now = self._tables.now()
            if entry.delivery is not Delivery.CLAIMED:
                limit, beat = limits_of(correlation, definition, timeout, heartbeat_timeout, task)
                # What is over by now is being ended by a sweep, unless none has seen yet that the clock was set.
                close = entry.close_ms if entry.close_ms > now or self._tables.is_calm() else 0
                ends = [at for at in (limit and now + limit, close) if at]
                if entry.delivery is Delivery.PUSH:
                    self._tables.sent[entry.target].pop(entry.member(correlation.identity), None)
                entry = InFlight(
                    step,
                    entry.attempt_key,
                    Delivery.CLAIMED,
                    "",
                    now,
                    owner=owner,
                    deadline_ms=min(ends, default=0),
                    beat_until_ms=beat and now + beat,
                    beat_ms=beat,
                    worker=worker,
                )
                self._hold(row, correlation.identity, entry)
            elif entry.owner != owner:
                raise ClaimRefused(correlation, REFUSED[3])
            fields = row.fields
            read = StoredClaim(
                correlation,
                definition,
                owner,
                now,
                entry.deadline_ms,
                Header._make(map(fields.get, Header._fields)),
                fields[f"s:{step}"],
                context=dict(row.context) if reads_context(correlation) else {},
                values={name: row.results[name] for name in fields_of(correlation, definition) if name in row.results},
            )
            return read.decode(lambda: self._reading(transaction_id, row))

    def _reading(self, transaction_id: str, row: Row) -> Reading:
        """Opens what is stored of a run."""
        return Reading(self.policy, transaction_id, lambda names: {n: row.blobs[n] for n in names if n in row.blobs})

    def _hold(self, row: Row, identity: str, entry: InFlight) -> None:
        """Write the record of a claimed attempt, and set its lease."""
        row.put(entry)
        ends = [self._tables.now() + self.lease_ms]
        if entry.deadline_ms:
            ends.append(entry.deadline_ms + LIMIT_GRACE_MS)
        if entry.beat_until_ms:
            ends.append(entry.beat_until_ms)
        self._tables.due[entry.member(identity)] = min(ends)

    def renew(self, correlation: Correlation, owner: str, *, beat: bool = False, detail: Any = None) -> Renewal:
        noted = None if detail is None else self.policy.text(detail)
        with self._tables.lock:
            row = self._tables.run(correlation.identity)
            entry = None if row is None else row.in_flight(correlation.step)
            attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
            if (
                row is None
                or entry is None
                or (entry.attempt_key, entry.delivery, entry.owner) != (attempt_key, Delivery.CLAIMED, owner)
            ):
                return Renewal(alive=False, cancelled=True)
            if beat and entry.beat_ms:
                entry = entry._replace(beat_until_ms=self._tables.now() + entry.beat_ms)
            if noted is not None:
                row.fields[f"h:{correlation.step}"] = noted
            self._hold(row, correlation.identity, entry)
            return Renewal(alive=True, cancelled=row.fields.get("stop") == "1")

    def commit(self, commit: Commit) -> Committed:
        written = Written.of(commit, Writing(self.policy))
        with self._tables.lock:
            row = self._tables.run(commit.identity)
            if row is None:
                return Committed(Verdict.MISSING)
            refused = self._refused(row, commit)
            if refused is not None:
                return Committed(refused)
            for step in [commit.answers[0]] if commit.answers else []:
                self._tables.release(row, commit.identity, step)
            for step, _ in commit.ends:
                self._tables.release(row, commit.identity, step)
            _count(row, "v")
            if commit.raises_epoch:
                _count(row, "epoch")
            joined = self._tables.apply(row, commit, written, self.lease_ms)
            if commit.events and self.policy.is_too_long(len(row.history)):
                self._shorten(commit.transaction_id)
            return Committed(Verdict.APPLIED, joined)

    def _refused(self, row: Row, commit: Commit) -> Verdict | None:
        if commit.answers is not None:
            step, prefix = commit.answers
            entry = row.in_flight(step)
            if entry is None or not entry.record.startswith(prefix):
                return Verdict.LATE
            if commit.unrenewed is not None:
                seen = self._tables.due.get(entry.member(commit.identity))
                if seen != commit.unrenewed:
                    return Verdict.RENEWED
        if commit.epoch is not None and str(commit.epoch) != row.fields["epoch"]:
            return Verdict.CONFLICT
        if commit.version is not None and str(commit.version) != row.fields["v"]:
            return Verdict.CONFLICT
        if commit.absent and commit.absent in row.results:
            return Verdict.LATE
        if any(row.record(step) != record for step, record in commit.ends):
            return Verdict.CONFLICT
        if any(f"s:{step}" in row.fields for step in commit.fresh):
            return Verdict.CONFLICT
        return None

    def dispatch(self, identity: str, dispatch: Dispatch, expected: str, *, begun: bool = False) -> bool:
        with self._tables.lock:
            row = self._tables.run(identity)
            if row is None or row.record(dispatch.step) != expected:
                return False
            self._tables.release(row, identity, dispatch.step)
            self._tables.send(row, identity, dispatch)
            if begun:
                row.fields[f"b:{dispatch.step}"] = dispatch.attempt_key
            return True

    def postpone(self, entry: str, transaction_id: str, delay_ms: int) -> None:  # noqa: ARG002 - finds its partition
        with self._tables.lock:
            if entry in self._tables.due:
                self._tables.due[entry] = self._tables.now() + delay_ms

    def discard(self, entry: str, transaction_id: str) -> None:  # noqa: ARG002 - as above
        with self._tables.lock:
            self._tables.due.pop(entry, None)

    def expire(self, correlation: Correlation, why: str = "") -> bool:
        with self._tables.lock:
            row = self._tables.run(correlation.identity)
            entry = None if row is None else row.in_flight(correlation.step)
            attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
            held = (attempt_key, Delivery.CLAIMED)
            if row is None or entry is None or (entry.attempt_key, entry.delivery) != held:
                return False
            if why:
                row.fields[f"x:{correlation.step}"] = f"{attempt_key}|{why}"
            # No outage extends a time of 0.
            self._tables.due[entry.member(correlation.identity)] = 0
            return True

    def hold(self, attempts: Sequence[Correlation]) -> None:
        with self._tables.lock:
            for each in attempts:
                row = self._tables.run(each.identity)
                entry = None if row is None else row.in_flight(each.step)
                if (
                    entry is not None
                    and entry.attempt_key == attempt_key_of(each.direction, each.attempt)
                    and entry.delivery in (Delivery.PUSH, Delivery.LINK, Delivery.OUTBOX)
                    and (member := entry.member(each.identity)) in self._tables.due
                ):
                    later = self._tables.now() + self.lease_ms
                    self._tables.due[member] = max(self._tables.due[member], later)

    def take_due(self, *, limit: int = 100, waker: str = "", starts: str = "") -> tuple[list[Due], float]:
        with self._tables.lock:
            if was_set := self._tables.jump(self.lease_ms):
                way = "forward" if was_set > 0 else "back"
                logger.warning(CLOCK_WAS_SET, "the state store in memory", way, abs(was_set) / 1000)
            wakes = not waker or self._tables.is_waker(waker, self.lease_ms // 3)
            members, until_next = self._tables.take_due(limit, self.lease_ms, starts)
            entries = [Due.decode(member, self._tables.due[member]) for member in members]
            return entries, 3600.0 if until_next is None or not wakes else until_next / 1000

    def waiting(self, named: str, *, limit: int = 100) -> dict[str, list[Due]]:
        with self._tables.lock:
            found = {target: sorted(sent, key=sent.__getitem__) for target, sent in self._tables.sent.items() if sent}
        return {target: [*map(Due.decode, sent[:limit])] for target, sent in found.items() if named in target}

    def broker_lists(self) -> list[str]:
        with self._tables.lock:
            return sorted(self._tables.sequence)

    # --- reading -----------------------------------------------------------------------------------------------------

    def load(self, transaction_id: str) -> Snapshot:
        with self._tables.lock:
            row = self._row(transaction_id)
            definition = self._definition(row.fields["definition"])
            return Snapshot.decode(transaction_id, self.policy.fields(row.fields), definition, self._tables.now())

    def load_many(self, transaction_ids: Sequence[str]) -> dict[str, Snapshot]:
        found = {}
        for name in transaction_ids:
            with suppress(WorkflowNotFoundError), unread(name):
                found[name] = self.load(name)
        return found

    def status(self, transaction_id: str) -> RunStatus:
        with self._tables.lock:
            return RunStatus(self._row(transaction_id).fields["status"])

    def ending(
        self, transaction_id: str, after: int | None = None, *, entry: str | None = None, poll: float = 1.0
    ) -> Ending:
        ending = Ending(after, poll, entry)
        with self._tables.lock:
            self._tables.waiting.setdefault(transaction_id, set()).add(ending)
            self._tables.tell(transaction_id)
        ending.add_done_callback(partial(self._tables.leave, transaction_id))
        return ending

    def payloads(self, transaction_id: str) -> Payloads:
        with self._tables.lock:
            row = self._row(transaction_id)
            reading = self._reading(transaction_id, row)
            return Payloads.decode(reading.whole(row.context), reading.whole(row.results))

    def history(self, transaction_id: str, after: int = 0) -> list[Event]:
        with self._tables.lock:
            row = self._tables.row(transaction_id)
            dropped = 0 if row is None else int(row.fields.get("archived", 0))
            nonce = None if row is None else row.fields.get("nonce")
            records = [] if row is None else row.history[max(0, after - dropped) :]
        if after < dropped:
            records = [*self.policy.from_archive(transaction_id, after, dropped), *records]
        return [unpack(transaction_id, self.policy.open(record), nonce) for record in records]

    def details(self, transaction_id: str, steps: Sequence[str]) -> dict[str, Any]:
        with self._tables.lock:
            row = self._tables.row(transaction_id)
            said = {step: None if row is None else row.fields.get(f"h:{step}") for step in steps}
        return self.policy.details_shown(said)

    def archive(self, transaction_id: str, keep: int = 1) -> int:
        put = self.policy.to_archive()
        with self._tables.lock:
            row = self._row(transaction_id)
            first = int(row.fields.get("archived", 0))
            records = row.history[: -max(keep, 1)]
            if records:
                put(transaction_id, first, records)
                del row.history[: len(records)]
                row.fields["archived"] = str(first + len(records))
            return len(records)

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def forget(self, identity: str, seen_ms: int | None = None) -> bool:
        transaction_id, _ = parse_identity(identity)
        entry = DueKind.EXPIRY.entry(identity)
        with self._tables.lock:
            if self._tables.run(identity) is None:
                return False
            if seen_ms is not None and self._tables.due.get(entry) != seen_ms:
                return False
            self.policy.forget(transaction_id)
            self._tables.erase(transaction_id)
            return True

    def delete(self, identity: str, *, status: RunStatus, tombstone: str, dead_letters: Sequence[str] = ()) -> Verdict:
        transaction_id, _ = parse_identity(identity)
        with self._tables.lock:
            if any(known == tombstone for _, known in self._tables.deleted):
                return Verdict.APPLIED
            row = self._tables.run(identity)
            if row is None:
                return Verdict.MISSING
            if row.fields["status"] != status:
                return Verdict.CONFLICT
            self.policy.forget(transaction_id)
            self._tables.drop_examples(
                each for each in self._tables.examples_of(transaction_id) if each.who == identity
            )
            self._tables.erase(transaction_id)
            self._tables.deleted = [*self._tables.deleted, (self._tables.now(), tombstone)][-MAX_DELETED:]
            self._tables.unbury(dead_letters)
            return Verdict.APPLIED

    def bury(self, transaction_id: str, key: str, letter: Mapping[str, Any]) -> None:  # noqa: ARG002 - as above
        noted = self.policy.text(dict(letter))
        with self._tables.lock:
            self._tables.bury({key: noted})

    def dead_letter(self, transaction_id: str, key: str) -> dict[str, Any] | None:  # noqa: ARG002 - as above
        with self._tables.lock:
            found = self._tables.dead.get(key)
        return None if found is None else self.policy.dead_letter(found)

    def unbury(self, key: str) -> None:
        with self._tables.lock:
            self._tables.unbury([key])

    def tidy(self, letters_ms: int) -> list[str]:
        with self._tables.lock:
            return self._tables.tidy(letters_ms, TIDIED_AT_ONCE)

    def announce(self, entries: Mapping[str, Mapping[str, Any]], gone: Collection[str] = ()) -> None:
        now = self._tables.now()
        with self._tables.lock:
            self._tables.announced |= {name: dumps({**told, "seen": now}) for name, told in entries.items()}
            for name in gone:
                self._tables.announced.pop(name, None)

    def announced(self) -> Announced:
        with self._tables.lock:
            return Announced.decode(self._tables.announced, self._tables.now())

    def check(self) -> list[str]:
        return []


def _count(row: Row, name: str) -> None:
    row.fields[name] = str(int(row.fields[name]) + 1)
