"""What the in-memory store keeps, and how a commit changes it: the part that is Lua on Redis.

One `Tables` is what a Redis database is to the other store. Its lock makes each verb atomic, as a script is.
"""

from __future__ import annotations

import re
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from multiagents.exceptions import WorkflowNotFoundError
from multiagents.names import identity_of, parse_identity
from multiagents.state_store.base import MAX_GENERATIONS
from multiagents.state_store.records import (
    MAX_ATTRIBUTES,
    REVIVED,
    Commit,
    Delivery,
    Dispatch,
    Due,
    DueKind,
    Ending,
    InFlight,
    Lesson,
    Placement,
    Written,
)
from multiagents.state_store.records.stream_reading import StoredEntry
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunStatus

#: How far into a list of other people's messages one look goes, in messages and in characters.
FURTHEST, MOST_CHARS = 100, 32_768
#: How many attempts of a list one look may find lost.
LOST_AT_ONCE = 500
#: How many of a list that does not tell are sent again in a lease, and how many starts go on to another at a time.
AT_ONCE = 10
#: After how long a start goes on.
AGED_MS = 3_000

#: By how many ms a clock may have been set without anything being moved.
NOBODYS_LOSS_MS = 1_000

_ROOT = re.compile(r'"root_id": "([^"]*)"')
_NUMBERED = re.compile(r'"multiagents": "\d+:(\d+)"')


@dataclass
class Row:
    """One run: the fields of its hash, and its data as JSON."""

    started_ms: int
    fields: dict[str, str]
    results: dict[str, str]
    context: dict[str, str] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    #: payloads that are kept apart, by name
    blobs: dict[str, str] = field(default_factory=dict)
    #: the calls inside steps, by `records.journal_fields`
    journal: dict[str, str] = field(default_factory=dict)
    #: what steps have said, by number
    stream: dict[int, StoredEntry] = field(default_factory=dict)

    def record(self, step: str) -> str | None:
        """The record of the attempt of a step that is in flight."""
        return self.fields.get(f"l:{step}")

    def in_flight(self, step: str) -> InFlight | None:
        """The same, taken apart."""
        record = self.record(step)
        return None if record is None else InFlight.decode(step, record)

    def all_in_flight(self) -> list[InFlight]:
        """The same of all steps."""
        return [InFlight.decode(name[2:], record) for name, record in self.fields.items() if name.startswith("l:")]

    def put(self, entry: InFlight) -> None:
        """Write the record of an attempt in flight."""
        self.fields[f"l:{entry.step}"] = entry.encode()


@dataclass
class ExampleRow:
    """What an attempt of an agent has left to learn from, and what is known of it."""

    worker: str
    #: the run, with its nonce
    who: str
    step: str
    at: int
    text: str
    outcome: str = ""
    edited: bool = False
    feedback: str = ""


@dataclass
class LockRow:
    """A lock on a business key: who holds it (nobody: an empty text), and who waits."""

    holder: str = ""
    token: int = 0
    #: until when; 0 is without an end
    until: int = 0
    #: who waits, first come first -> until when he counts as waiting
    line: dict[str, int] = field(default_factory=dict)


@dataclass
class LimitRow:
    """What goes on under a limit: who runs, until when he counts, when the next may begin, and who was turned away.

    Of whom the slot was kept because the living could not keep theirs, that time has a half in it.
    """

    slots: dict[str, float] = field(default_factory=dict)
    next_us: int = 0
    #: microseconds between two beginnings, when the last of them came
    every_us: int = 0
    away: dict[str, int] = field(default_factory=dict)


@dataclass
class ProgramRow:
    """What a worker has learned, and which of it is in place."""

    last: int = 0
    #: version -> the program, when it came, and notes on it
    programs: dict[int, tuple[str, int, str]] = field(default_factory=dict)
    #: token -> the version that was put in under it
    tokens: dict[str, int] = field(default_factory=dict)
    placement: Placement = field(default_factory=Placement)
    #: revision, when, and notes
    changes: list[tuple[int, int, str]] = field(default_factory=list)


class Tables:
    """All that one in-memory database holds.

    Args:
        clock: seconds since the epoch; a test may make time pass.
        steady: milliseconds of a clock that nobody sets; None: there is none, and only a clock that goes back shows.
    """

    def __init__(self, clock: Callable[[], float], steady: Callable[[], float] | None = None) -> None:
        self.clock = clock
        self.steady = steady
        self.lock = threading.RLock()
        #: who waits for the end of which run
        self.waiting: dict[str, set[Ending]] = {}
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self.lock:
            self.rows: dict[str, Row] = {}
            #: content hash -> a definition, and how many runs follow it
            self.definitions: dict[str, str] = {}
            self.followed: Counter[str] = Counter()
            #: workflow and version -> content hash of the definition that the last run of it was started with
            self.versions: dict[tuple[str, str], str] = {}
            #: what has to be looked at, by time
            self.due: dict[str, int] = {}
            #: broker list -> its messages; pushed on the left, consumed on the right
            self.lists: defaultdict[str, deque[str]] = defaultdict(deque)
            #: broker list -> number of its last message
            self.sequence: dict[str, int] = {}
            #: the highest number of a list that was forgotten
            self.numbered = 0
            #: broker list -> the attempts that wait there, by the number of their message
            self.sent: defaultdict[str, dict[str, int]] = defaultdict(dict)
            #: dead letters, and when they were buried
            self.dead: dict[str, str] = {}
            self.buried: dict[str, int] = {}
            #: id of a run that is gone -> how many have had it; who went first goes first
            self.generations: dict[str, int] = {}
            #: when runs were deleted, and their tombstones
            self.deleted: list[tuple[int, str]] = []
            #: what worker processes have announced, by name
            self.announced: dict[str, str] = {}
            #: what agents have left to learn from, by run and step
            self.examples: dict[tuple[str, str], ExampleRow] = {}
            #: schedule -> its last tick; and who paused it
            self.ticked: dict[str, int] = {}
            self.paused: dict[str, str] = {}
            #: what workers have learned
            self.programs: dict[str, ProgramRow] = {}
            #: locks on business keys, and the last fencing token
            self.locks: dict[str, LockRow] = {}
            self.token = 0
            #: what the last stream that was begun has for its base
            self.stream = 0
            #: what goes on under limits, by key
            self.limits: dict[str, LimitRow] = {}
            #: accounts of budgets, by key and period, and until when they are kept
            self.budgets: dict[tuple[str, str], dict[str, str]] = {}
            self.budgets_until: dict[tuple[str, str], int] = {}
            self.swept_ms: int | None = None
            #: the clock that nobody sets, at the last sweep
            self.swept_steady = 0.0
            self.grace_ms = 0
            #: who is told when something is due, and until when nobody else is
            self.waker, self.wakes_ms = "", 0
            #: lists that do not tell what has left them -> since when; and the last start that went on from a list
            self.unclear: dict[str, int] = {}
            self.risen: dict[str, str] = {}

    def is_started_with(self, definition: Definition) -> str:
        """Note the content of a version of a workflow; another one that it had before is returned."""
        label = (definition.name, definition.version)
        before, self.versions[label] = self.versions.get(label, ""), definition.content_hash
        return "" if before == definition.content_hash else before

    def now(self) -> int:
        """The clock, in ms."""
        return int(self.clock() * 1000)

    def next_stream(self) -> int:
        """The base of a stream that begins: the clock, in µs, and another one each time."""
        self.stream = max(int(self.clock() * 1_000_000), self.stream + 1)
        return self.stream

    def run(self, identity: str) -> Row | None:
        """A run, unless it has expired or another one has its id by now."""
        transaction_id, nonce = parse_identity(identity)
        found = self.row(transaction_id)
        return found if found is not None and found.fields.get("nonce", "") == nonce else None

    def row(self, transaction_id: str) -> Row | None:
        """The run that has an id."""
        return self.rows.get(transaction_id)

    def erase(self, transaction_id: str) -> None:
        """Take the run that has an id away, with all that belongs to it."""
        row = self.rows.pop(transaction_id)
        identity = identity_of(transaction_id, row.fields.get("nonce", ""))
        for name in [each for each in row.fields if each.startswith("l:")]:
            self.release(row, identity, name[2:])
        self._unfollow(row.fields["definition"], (row.fields["workflow"], row.fields["version"]))
        for kind in (DueKind.DECISION, DueKind.DEADLINE, DueKind.EXPIRY):
            self.due.pop(kind.entry(identity), None)
        if "learned" in row.fields:
            for example in self.examples_of(transaction_id):
                if example.who == identity:
                    example.outcome, example.edited = row.fields["status"], row.fields.get("edited") == "1"
        unclaimed = DueKind.UNCLAIMED.entry(identity, "")
        for member in [each for each in self.due if each.startswith(unclaimed)]:
            del self.due[member]
        self.remember(transaction_id, int(row.fields.get("generation", 1)))
        self.tell(transaction_id)

    # --- waiting -----------------------------------------------------------------------------------------------------

    def tell(self, transaction_id: str) -> None:
        """Tell all who wait for the end of a run how it stands."""
        row = self.row(transaction_id)
        for ending in list(self.waiting.get(transaction_id, ())):
            with suppress(InvalidStateError):  # given up in this moment
                if row is None:
                    ending.set_exception(WorkflowNotFoundError(transaction_id))
                else:
                    status, version = RunStatus(row.fields["status"]), int(row.fields["v"])
                    ending.look(status, version, row.fields.get("streamed", ""))

    def leave(self, transaction_id: str, ending: Any) -> None:
        """Somebody waits no more."""
        with self.lock:
            waiting = self.waiting.get(transaction_id, set())
            waiting.discard(ending)
            if not waiting:
                self.waiting.pop(transaction_id, None)

    def remember(self, transaction_id: str, generation: int) -> None:
        """Keep of an id how many runs have had it."""
        self.generations.pop(transaction_id, None)
        self.generations[transaction_id] = generation
        while len(self.generations) > MAX_GENERATIONS:
            del self.generations[next(iter(self.generations))]

    def _unfollow(self, content_hash: str, label: tuple[str, str]) -> None:
        """A run goes: what nobody follows any more goes with it."""
        self.followed[content_hash] -= 1
        if self.followed[content_hash] < 1:
            del self.followed[content_hash]
            self.definitions.pop(content_hash, None)
            if self.versions.get(label) == content_hash:
                del self.versions[label]

    def bury(self, letters: Mapping[str, str]) -> None:
        """Keep dead letters."""
        self.dead |= letters
        self.buried |= dict.fromkeys(letters, self.now())

    def unbury(self, keys: Iterable[str]) -> None:
        """Take dead letters away."""
        for key in keys:
            self.dead.pop(key, None)
            self.buried.pop(key, None)

    def tidy(self, letters_ms: int, at_once: int) -> list[str]:
        """Drop the numbering of lists in which nothing waits, and dead letters whose time is over; gives these."""
        now = self.now()
        # What was buried in the future was so before the clock was set back.
        self.buried = {key: min(at, now) for key, at in self.buried.items()}
        oldest = now - letters_ms
        gone = sorted((key for key, at in self.buried.items() if at <= oldest), key=self.buried.__getitem__)[:at_once]
        self.unbury(gone)
        for target in [each for each in self.sequence if not (self.lists.get(each) or self.sent.get(each))]:
            self.numbered = max(self.numbered, self.sequence.pop(target))
            self.lists.pop(target, None)
            self.sent.pop(target, None)
        return gone

    # --- what agents leave to learn from -----------------------------------------------------------------------------

    def examples_of(self, transaction_id: str) -> list[ExampleRow]:
        """Those of all runs that have had an id."""
        return [each for each in self.examples.values() if parse_identity(each.who)[0] == transaction_id]

    def learn(self, who: str, lesson: Lesson) -> None:
        """Write one down, and drop what is too old or too much."""
        mine = sorted((each for each in self.examples.values() if each.worker == lesson.worker), key=lambda row: row.at)
        at = max(self.now(), mine[-1].at + 1 if mine else 0)  # no two at once
        self.examples[who, lesson.step] = row = ExampleRow(lesson.worker, who, lesson.step, at, lesson.text)
        mine = [*(each for each in mine if (each.who, each.step) != (who, lesson.step)), row]
        over = max(0, len(mine) - lesson.most)
        self.drop_examples(mine[:over])
        self.drop_examples(each for each in mine[over:] if each.at <= self.now() - lesson.keep_ms)

    def drop_examples(self, rows: Iterable[ExampleRow]) -> None:
        """Forget some."""
        for row in list(rows):
            self.examples.pop((row.who, row.step), None)

    # --- attempts ----------------------------------------------------------------------------------------------------

    def push(self, target: str, prefix: str, suffix: str) -> int:
        """Number a message and put it into a broker list."""
        number = self.sequence[target] = self.sequence.get(target, self.numbered) + 1
        self.lists[target].appendleft(f"{prefix}{number}{suffix}")
        return number

    def release(self, row: Row, identity: str, step: str) -> None:
        """Give up an attempt's record, and everything that looks after it."""
        entry = InFlight.decode(step, row.fields.pop(f"l:{step}"))
        member = entry.member(identity)
        self.due.pop(member, None)
        if entry.delivery is Delivery.PUSH:
            self.sent[entry.target].pop(member, None)

    def send(self, row: Row, identity: str, dispatch: Dispatch) -> None:
        """Send an attempt out: write its record, and leave an entry with whoever looks after it."""
        now, number = self.now(), 0
        entry = InFlight(dispatch.step, dispatch.attempt_key, dispatch.delivery, "", now)
        member = entry.member(identity)
        if dispatch.delivery is Delivery.CLAIMED:
            self.due[member] = now + dispatch.delay_ms
            deadline = dispatch.close_ms and now + dispatch.close_ms
            row.put(entry._replace(owner=dispatch.target, deadline_ms=deadline, worker=dispatch.prefix))
            return
        if dispatch.delivery is Delivery.PUSH:
            number = dispatch.sent
            self.sent[dispatch.target][member] = self.push(dispatch.target, dispatch.prefix, dispatch.suffix)
        elif dispatch.delivery is not Delivery.EXTERNAL:
            self.due[member] = dispatch.due_ms or now + dispatch.look_after_ms
            if dispatch.delivery in (Delivery.TIMER, Delivery.SLEEP):
                number = self.due[member]
            elif dispatch.delivery is Delivery.OUTBOX:
                number = dispatch.sent
        elif dispatch.close_ms:
            self.due[member] = dispatch.close_ms
        if dispatch.start_within_ms:
            unclaimed = DueKind.UNCLAIMED.entry(identity, dispatch.step, dispatch.attempt_key)
            self.due[unclaimed] = now + dispatch.start_within_ms
        first_ms = dispatch.first_ms or now
        row.put(entry._replace(first_ms=first_ms, close_ms=dispatch.close_ms, number=number, target=dispatch.target))

    # --- a commit ----------------------------------------------------------------------------------------------------

    def apply(self, row: Row, commit: Commit, written: Written, lease_ms: int) -> bool:
        """Write a commit; the fences have been checked.

        Returns:
            whether a join was completed.
        """
        row.fields |= written.fields
        _without(row.fields, written.removed)
        row.context |= written.context
        _without(row.context, commit.forgotten)
        row.results |= written.results
        row.history += written.history
        row.blobs |= written.blobs
        self.bury(written.dead_letters)
        self.unbury(commit.answered)
        joined = False
        for step, (arriving, members) in commit.arrivals.items():
            arrived = int(row.fields.get(f"j:{step}", 0)) + arriving
            row.fields[f"j:{step}"] = str(arrived)
            joined = joined or arrived >= members
        for dispatch in commit.dispatches:
            self.send(row, commit.identity, dispatch)
        decision = DueKind.DECISION.entry(commit.identity)
        message = commit.orchestration
        if commit.coalesces:
            joined = joined or decision not in self.due
            self.due.setdefault(decision, self.now() + lease_ms)
            message = commit.orchestration if joined else None
        elif commit.pending or joined:
            self.due[decision] = self.now() + lease_ms
        elif commit.decided:
            self.due.pop(decision, None)
        if message is not None:
            self.push(*message)
        if commit.deadline_ms is not None:
            self.due[DueKind.DEADLINE.entry(commit.identity)] = self.now() + commit.deadline_ms
        if commit.retention_ms is not None:
            self._end(commit, commit.retention_ms)
        for name, stored in commit.attributes.items():
            field = f"a:{name}"
            if not stored:
                row.fields.pop(field, None)
            elif field in row.fields or sum(each.startswith("a:") for each in row.fields) < MAX_ATTRIBUTES:
                row.fields[field] = stored
        if commit.lesson is not None:
            row.fields["learned"] = "1"
            self.learn(commit.identity, commit.lesson)
        self.tell(commit.transaction_id)
        return joined

    def _end(self, commit: Commit, retention_ms: int) -> None:
        """The run is over, or (below zero) comes back from its end."""
        about, expiry = commit.identity, DueKind.EXPIRY.entry(commit.identity)
        if retention_ms == REVIVED:
            self.due.pop(expiry, None)
            return
        if not (commit.pending or commit.coalesces):
            self.due.pop(DueKind.DECISION.entry(about), None)
        self.due.pop(DueKind.DEADLINE.entry(about), None)
        self.due[expiry] = self.now() + retention_ms

    # --- what is due -------------------------------------------------------------------------------------------------

    def jump(self, lease_ms: int) -> int:
        """See to it that the clock was set since the last sweep, if it was: by how many ms (below 0: back)."""
        if self.swept_ms is None:
            return 0
        was_set = self._was_set()
        if abs(was_set) <= NOBODYS_LOSS_MS:
            return 0
        # What was written after the clock was set stays.
        now, elapsed = self.now(), self._elapsed()
        fresh = now - elapsed - NOBODYS_LOSS_MS
        new = {
            (name, entry.step)
            for name, row in self.rows.items()
            for entry in row.all_in_flight()
            if fresh <= entry.since_ms <= now
        }
        for member, at in self.due.items():
            due = Due.decode(member)
            of = self.rows.get(due.transaction_id)
            is_a_moment = due.kind == DueKind.DEADLINE and of is not None and of.fields.get("deadline")
            if is_a_moment or (due.transaction_id, due.step) in new:
                continue
            later = max(1, at + was_set) if at else 0
            owed = due.kind == DueKind.DECISION or self._is_claimed(member)
            self.due[member] = min(later, now + lease_ms) if owed else later
        for name, row in self.rows.items():
            for entry in row.all_in_flight():
                if (name, entry.step) not in new:
                    row.put(_later(entry, was_set))
        for lock in self.locks.values():
            lock.until = lock.until and max(1, lock.until + was_set)
        self.swept_ms, self.wakes_ms = round(now - elapsed), 0
        self.grace_ms = now + lease_ms if was_set > 0 else 0  # for the slots of limits
        self.unclear.clear()
        return was_set

    def _was_set(self) -> int:
        """By how many ms the clock was set since the last sweep."""
        passed = self.now() - (self.swept_ms or 0)
        return min(0, passed) if self.steady is None else round(passed - self._elapsed())

    def _elapsed(self) -> float:
        """How many ms ago the last sweep really was."""
        return 0.0 if self.steady is None else self.steady() - self.swept_steady

    def is_calm(self) -> bool:
        """Whether what has run out by the clock has run out: a sweep has seen to it since the clock was set."""
        return self.swept_ms is None or abs(self._was_set()) <= NOBODYS_LOSS_MS

    def is_waker(self, name: str, for_ms: int) -> bool:
        """Whether this one is to wake when something is due; he stays so for a while after he has asked."""
        if self.waker not in ("", name) and self.wakes_ms > self.now():
            return False
        self.waker, self.wakes_ms = name, self.now() + for_ms
        return True

    def take_due(self, limit: int, lease_ms: int, starts: str = "") -> tuple[list[str], int | None]:
        """Lease what is due.

        Returns:
            the entries, and the ms until the next one is due; None when there is none.
        """
        now = self.now()
        # After an outage every lease has run out without anybody having died: extend each once.
        extended = grace = self.grace_ms
        if self.swept_ms is not None and now - self.swept_ms > lease_ms / 3 and now >= extended:
            grace = self.grace_ms = now + lease_ms
        self.swept_ms, self.swept_steady = now, self.steady() if self.steady else 0.0
        for target in list(self.sequence):
            self._look(target, lease_ms, starts)
        ready = sorted((at, member) for member, at in self.due.items() if at <= now)[:limit]
        taken: list[str] = []
        for at, member in ready:
            if grace > now and at not in (0, extended) and self._is_claimed(member):
                self.due[member] = grace
            else:
                self.due[member] = now + lease_ms
                taken.append(member)
        return taken, max(0, min(self.due.values()) - now) if self.due else None

    def _look(self, target: str, lease_ms: int, starts: str) -> None:
        """See which messages have left a list, and which go on in another."""
        if starts and target.endswith(starts):
            self._rise(target, target.removesuffix(starts))
        if not self.sent[target]:
            self.unclear.pop(target, None)
            if not self.lists[target]:
                self.risen.pop(target, None)
            return
        found, is_all = self._nearest(target)
        if found is None and not is_all:
            self._doubt(target, lease_ms)
            return
        self.unclear.pop(target, None)
        below = self.sequence[target] + 1 if found is None else found[0]
        for member in [each for each in self._waiting(target) if self.sent[target][each] < below][:LOST_AT_ONCE]:
            del self.sent[target][member]
            self.due[member] = self.now() + lease_ms

    def _waiting(self, target: str) -> list[str]:
        return sorted(self.sent[target], key=self.sent[target].__getitem__)

    def _nearest(self, target: str) -> tuple[tuple[int, str] | None, bool]:
        """The number nearest to the consuming end, with its message; or whether that was all there is."""
        messages, chars = self.lists[target], 0
        for position in range(min(len(messages), FURTHEST)):
            if chars > MOST_CHARS:
                return None, False
            message = messages[-1 - position]
            if found := _NUMBERED.search(message):
                return (int(found[1]), message), True
            chars += len(message)
        return None, len(messages) <= FURTHEST

    def _waited(self, member: str) -> tuple[Row, InFlight, int, int] | None:
        """An attempt whose message waits: for how long that does, and how long the attempt did before it."""
        due = Due.decode(member)
        row = self.row(due.transaction_id)
        entry = None if row is None else row.in_flight(due.step)
        if row is None or entry is None or entry.delivery is not Delivery.PUSH:
            return None
        return row, entry, self.now() - entry.since_ms, max(0, entry.since_ms - entry.first_ms)

    def _doubt(self, target: str, lease_ms: int) -> None:
        """Of a list that does not tell, those that have waited longest are sent again, a few in a lease."""
        now = self.now()
        since = self.unclear.get(target)
        if since is not None and now - since < lease_ms:
            return
        self.unclear[target] = now
        for member in self._waiting(target)[:AT_ONCE] if since is not None else ():
            known = self._waited(member)
            if known is None or known[2] >= max(lease_ms, known[3]):
                if known is not None:  # it may wait there all the while, so it does not count as sent once more
                    known[0].put(known[1]._replace(number=max(1, known[1].number - 1)))
                del self.sent[target][member]
                self.due[member] = now

    def _rise(self, target: str, to: str) -> None:
        """Starts that have waited long go on in the list that is consumed before theirs, if that is not empty."""
        last = self.risen.get(target, "")
        if not self.lists[to] or last in (self.due if last.startswith(DueKind.DECISION) else self.sent[to]):
            return
        for _ in range(AT_ONCE):
            found, _ = self._nearest(target)
            if found is None:
                return
            number, message = found
            member = next((each for each, at in self.sent[target].items() if at == number), None)
            known = None if member is None else self._waited(member)
            waited = None if known is None else known[2]
            if member is None:
                member, waited = self._decision_of(message)
            # What nobody waits for any more goes on as well: it would keep those behind it.
            if member is not None and waited is not None and waited < AGED_MS:
                return
            self.lists[target].remove(message)
            numbered = _NUMBERED.search(message)
            assert numbered is not None
            start, end = numbered.span(1)
            new = self.push(to, message[:start], message[end:])
            if known is not None and member is not None:
                del self.sent[target][member]
                self.sent[to][member] = new
                known[0].put(known[1]._replace(target=to))
            if member is not None:
                self.risen[target] = member

    def _decision_of(self, message: str) -> tuple[str | None, int | None]:
        """The decision that a message of a run, of no attempt, asks for, and for how long the run is there."""
        found = _ROOT.search(message)
        row = self.row(found[1]) if found else None
        if found is None or row is None:
            return None, None
        member = DueKind.DECISION.entry(identity_of(found[1], row.fields.get("nonce", "")))
        return (member if member in self.due else None), self.now() - row.started_ms

    def _is_claimed(self, member: str) -> bool:
        due = Due.decode(member)
        about = identity_of(due.transaction_id, due.nonce)
        row = self.run(about) if due.kind == DueKind.ATTEMPT else None
        entry = None if row is None else row.in_flight(due.step)
        return entry is not None and (entry.attempt_key, entry.delivery) == (due.attempt_key, Delivery.CLAIMED)

    def in_status(self, status: str, workflow: str | None) -> Mapping[str, Row]:
        """The runs in a status, of one workflow if given."""
        return {
            name: row
            for name, row in self.rows.items()
            if row.fields["status"] == status and workflow in (None, row.fields["workflow"])
        }


def _later(entry: InFlight, by: int) -> InFlight:
    """A record as it would have been written by a clock that goes ahead by so many ms (below 0: behind)."""
    times = ("since_ms", "first_ms", "close_ms", "deadline_ms", "beat_until_ms")
    moved = {name: at and max(1, at + by) for name in times for at in [getattr(entry, name)]}
    if entry.delivery in (Delivery.TIMER, Delivery.SLEEP):
        moved["number"] = max(1, entry.number + by)
    return entry._replace(**moved)


def _without(table: MutableMapping[str, str], keys: Iterable[str]) -> None:
    for key in keys:
        table.pop(key, None)
