"""The journal of calls in memory: the same fields as on Redis, beside the run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import from_json

from multiagents.clock import from_ms
from multiagents.names import Correlation, Direction, parse_identity
from multiagents.plain_json import dumps
from multiagents.state_store.journal import Journal
from multiagents.state_store.memory.tables import Row, Tables
from multiagents.state_store.payloads import PayloadPolicy, Reading, Writing
from multiagents.state_store.records import (
    MAX_CALLS,
    MAX_EVIDENCE,
    Begun,
    Call,
    CallKind,
    CallOutcome,
    CallRecord,
    CallState,
    CallVerdict,
    Decided,
    Delivery,
    Opened,
    Request,
    StepUsage,
    Usage,
    attempt_key_of,
)
from multiagents.state_store.records.call_steps import CallBegun, CallEnded
from multiagents.state_store.records.journal_fields import (
    Evidence,
    Head,
    StoredCall,
    heads_of,
    mark,
    place_of,
    usage_of,
)
from multiagents.state_store.records.journal_reading import calls_of
from multiagents.workflow.definition import call_name
from multiagents.workflow.state import StepState

#: What is stored of a call that an attempt was told to make, and that is not what those before it have done.
_DIVERGED = "diverged"
#: Calls that nobody is given the answer of.
_GIVEN_UP = (CallState.REFUSED, CallState.UNANSWERED)


class InMemoryJournal(Journal):
    """Keep the calls inside steps.

    Args:
        tables: what is kept.
        policy: in what form data is stored.
    """

    def __init__(self, tables: Tables, policy: PayloadPolicy) -> None:
        self._tables = tables
        self._policy = policy

    def open(self, correlation: Correlation, owner: str, pins: Mapping[str, str]) -> Opened:
        text = self._policy.text(dict(pins))
        with self._tables.lock:
            row = self._held(correlation, owner)
            if row is None:
                return Opened(pins, 0, lost=True)
            page = _Page(row, correlation.step, correlation.direction)
            head = page.head.turned(owner)
            page.write(head)
            fixed = row.journal.setdefault(page.field("p", head.journal), text)
            return Opened(from_json(self._policy.open(fixed)), head.recorded)

    def begin(self, correlation: Correlation, owner: str, call: Call) -> Begun:
        writing = Writing(self._policy)
        text = None if call.request is None else writing.text(mark(call.request.text))
        step = CallBegun.of(correlation, call.undo, from_ms(self._tables.now()), writing)
        blobs = self._policy.put_apart(correlation.transaction_id, writing.blobs)
        with self._tables.lock:
            row = self._held(correlation, owner)
            if row is None:
                run = self._tables.run(correlation.identity)
                return _told(run, CallVerdict.LOST)
            page = _Page(row, correlation.step, correlation.direction)
            new = _New(text, step, blobs)
            begun = _begin(page, page.head.turned(owner), correlation, call, new, self._tables.now())
            if begun.verdict is not CallVerdict.REPLAY:
                return begun
            found = self._reading(correlation.transaction_id).whole({"": row.journal[page.field("a", begun.slot)]})
            return begun._replace(answer=from_json(found[""]))

    def finish(
        self,
        correlation: Correlation,
        owner: str,
        slot: str,
        answer: Any,
        usage: Usage | None = None,
        *,
        failed: bool = False,
        outcome: CallOutcome | None = None,
    ) -> bool:
        writing, used = Writing(self._policy), usage or Usage()
        text, step = writing.value(answer), CallEnded.of(outcome, writing)
        blobs = self._policy.put_apart(correlation.transaction_id, writing.blobs)
        with self._tables.lock:
            ours, row = self._held(correlation, owner), self._tables.run(correlation.identity)
            page = None if row is None else _Page(row, correlation.step, correlation.direction)
            call = None if page is None else page.call(slot)
            if row is None or page is None or call is None or (ours and call.state != CallState.STARTED):
                return ours is not None
            head, now = page.head, self._tables.now()
            if ours is None:
                late = page.field("e", slot, owner)
                if late in row.journal or head.evidence >= MAX_EVIDENCE:
                    return False
                row.journal[late] = Evidence(correlation.attempt, now, int(failed), *used, text).encode()
                head = head._replace(evidence=head.evidence + 1)
            else:
                head = head.turned(owner)
                took = now - call.begun - call.after
                state = (CallState.FAILED if failed else CallState.ANSWERED).value
                page.put(slot, call._replace(state=state, took=took, **used._asdict()))
                row.journal[page.field("a", slot)] = text
                if step.state and call.undone:
                    page.end_step(call, step)
                head = head._replace(recorded=head.recorded + 1, latency=head.latency + took)
                if call.turn != head.turn:
                    head = head._replace(left=head.left + 1)
            page.write(head.spent(used))
            row.blobs |= blobs
            return ours is not None

    def refuse(self, correlation: Correlation, owner: str, slots: Sequence[str], why: str) -> bool:
        said = self._policy.seal(mark(why))
        with self._tables.lock:
            row = self._held(correlation, owner)
            if row is None:
                return False
            page = _Page(row, correlation.step, correlation.direction)
            head = page.head.turned(owner)
            for slot in slots:
                call = page.call(slot)
                if call is None or call.state in (*_GIVEN_UP, CallState.WITHHELD):
                    continue
                if call.state != CallState.STARTED and call.journal == head.journal:
                    unasked = int(call.turn != head.turn)
                    head = head._replace(recorded=head.recorded - 1, left=head.left - unasked)
                state = CallState.UNANSWERED if call.state == CallState.STARTED else CallState.REFUSED
                page.put(slot, call._replace(state=state.value))
                row.journal[page.field("w", slot)] = said
            page.write(head)
            return True

    def withhold(self, correlation: Correlation, owner: str, slot: str) -> bool:
        with self._tables.lock:
            row = self._held(correlation, owner)
            if row is None:
                return False
            page = _Page(row, correlation.step, correlation.direction)
            call = page.call(slot)
            if call is not None and call.state == CallState.STARTED:
                head = page.head.turned(owner)
                page.write(head._replace(withheld=head.withheld + 1))
                page.put(slot, call._replace(state=CallState.WITHHELD.value))
            return True

    def restart(self, identity: str, step: str, direction: Direction = Direction.DO) -> bool:
        with self._tables.lock:
            row = self._tables.run(identity)
            entry = None if row is None else row.in_flight(step)
            if row is None or (entry is not None and entry.delivery is Delivery.CLAIMED):
                return False
            page = _Page(row, step, direction)
            head = page.head
            if head.calls > head.since or page.field("p", head.journal) in row.journal:
                page.write(head._replace(journal=head.journal + 1, since=head.calls, recorded=0, owner=""))
            return True

    def decide(
        self, identity: str, step: str, slot: str, decision: Any, direction: Direction = Direction.DO
    ) -> Decided | None:
        transaction_id, _ = parse_identity(identity)
        writing = Writing(self._policy)
        text = writing.value(decision)
        blobs = self._policy.put_apart(transaction_id, writing.blobs)
        with self._tables.lock:
            row = self._tables.run(identity)
            page = None if row is None else _Page(row, step, direction)
            call = None if page is None else page.call(slot)
            if row is None or page is None or call is None or call.kind != CallKind.APPROVAL:
                return None
            is_new, answer = call.state == CallState.STARTED, page.field("a", slot)
            head = page.head
            if is_new and call.journal != head.journal:
                return None
            if is_new:
                took = self._tables.now() - call.begun - call.after
                page.put(slot, call._replace(state=CallState.ANSWERED.value, took=took))
                left = head.left + int(call.turn != head.turn)
                page.write(head._replace(recorded=head.recorded + 1, left=left))
                row.journal[answer] = text
                row.blobs |= blobs
            found = self._reading(transaction_id).whole({"": row.journal[answer]})
            return Decided(is_new, from_json(found[""]))

    def calls(self, transaction_id: str, step: str | None = None, *, last: int | None = None) -> list[CallRecord]:
        with self._tables.lock:
            row = self._tables.row(transaction_id)
            return [] if row is None else calls_of(row.journal, self._reading(transaction_id), step, last)

    def usage(self, transaction_id: str, steps: Sequence[str]) -> dict[str, StepUsage]:
        with self._tables.lock:
            row = self._tables.row(transaction_id)
            return {} if row is None else usage_of(steps, [row.journal.get(name) for name in heads_of(steps)])

    def _held(self, correlation: Correlation, owner: str) -> Row | None:
        """The run of an attempt, if this owner holds it."""
        row = self._tables.run(correlation.identity)
        entry = None if row is None else row.in_flight(correlation.step)
        key = attempt_key_of(correlation.direction, correlation.attempt)
        held = entry is not None and (entry.attempt_key, entry.delivery, entry.owner) == (key, Delivery.CLAIMED, owner)
        return row if held else None

    def _reading(self, transaction_id: str) -> Reading:
        blobs = self._tables.rows[transaction_id].blobs
        return Reading(self._policy, transaction_id, lambda names: {n: blobs[n] for n in names if n in blobs})


class _New(NamedTuple):
    """What is written of a call that is new."""

    text: str | None
    step: CallBegun
    blobs: Mapping[str, str]


class _Page(NamedTuple):
    """What the journal has of a step, in one direction."""

    row: Row
    step: str
    direction: Direction

    def field(self, kind: str, *rest: object) -> str:
        return "|".join((kind, place_of(self.step, self.direction), *map(str, rest)))

    @property
    def head(self) -> Head:
        return Head.decode(self.row.journal.get(self.field("j")))

    def write(self, head: Head) -> None:
        self.row.journal[self.field("j")] = head.encode()

    def call(self, slot: object) -> StoredCall | None:
        text = self.row.journal.get(self.field("c", slot))
        return None if text is None else StoredCall.decode(text)

    def there(self, slot: int) -> StoredCall:
        """A call that is there."""
        return StoredCall.decode(self.row.journal[self.field("c", slot)])

    def put(self, slot: object, call: StoredCall) -> None:
        self.row.journal[self.field("c", slot)] = call.encode()

    def begin_step(self, call: StoredCall, asked: Call, new: _New) -> StoredCall:
        """Make a call a step of the run, if it is to be undone and is none yet."""
        self.row.blobs.update(new.blobs)
        if asked.undo is None or not call.nth or call.undone:
            return call
        name, counter = self.name(call), self.field("u")
        number = int(self.row.journal.get(counter, 0)) + 1
        self.row.journal[counter] = str(number)
        self.row.fields[f"s:{name}"] = new.step.state(number)
        self.row.history.append(new.step.event(name))
        self.row.results[f"n:{name}"] = new.step.arguments
        self.raise_version()
        return call._replace(undone=1)

    def end_step(self, call: StoredCall, step: CallEnded) -> None:
        """Write down what that step has come to."""
        name = self.name(call)
        if not self.row.fields[f"s:{name}"].startswith('[["f"'):  # in flight
            return  # Who has lost the attempt has said before that it succeeded.
        self.row.fields[f"s:{name}"] = step.state
        self.row.history.append(step.event)
        if step.result:
            self.row.results[f"r:{name}"] = step.result
        self.raise_version()

    def name(self, call: StoredCall) -> str:
        """The call as the step that it is."""
        return call_name(self.step, call.name, call.nth - 1)

    def raise_version(self) -> None:
        """Nobody decides without what was just written."""
        self.row.fields["v"] = str(int(self.row.fields["v"]) + 1)

    def unanswered(self, slots: Sequence[int], at: int) -> int:
        """How many right before the one at a place were not answered."""
        before = itertools.takewhile(lambda slot: self.there(slot).state == CallState.UNANSWERED, reversed(slots[:at]))
        return sum(1 for _ in before)

    def count(self, call: Call) -> int:
        """How many calls of a tool there are."""
        return int(self.row.journal.get(self.field("n", call.name), 0)) if call.kind == CallKind.TOOL else 0


def _begin(
    page: _Page,
    head: Head,
    correlation: Correlation,
    call: Call,
    new: _New,
    now: int,
) -> Begun:
    """Find the call that is asked for, or write a new one down."""
    row = page.row
    queue = page.field("q", head.journal, call.kind, call.hash)
    turn, last, *slots = json.loads(row.journal.get(queue, "[0,0]"))
    asked = last if turn == head.turn else 0
    for slot in reversed(slots[:asked]):  # it may be sent twice
        before = page.there(slot)
        if (before.turn, before.number) == (head.turn, call.number):
            unanswered = page.unanswered(slots, slots.index(slot))
            return _told(row, _verdict(before), slot, before, unanswered=unanswered, page=page)
    if correlation.direction is Direction.DO and "1" in (row.fields.get("stop"), row.fields.get("held")):
        return _told(row, CallVerdict.STOPPED)
    at = asked
    while at < len(slots) and page.there(slots[at]).state in _GIVEN_UP:
        at += 1
    if at == len(slots):
        refused = _refused(page, head, call)
        if refused is not None:
            return refused
        slots.append(head.calls + 1)
        found, head = _new(page, head, correlation, call, new.text, at + 1, now)
    else:
        found = page.there(slots[at])
        if found.state == CallState.WITHHELD:  # what it was told then holds
            found = found._replace(state=CallState.STARTED.value, after=now - found.begun, attempt=correlation.attempt)
            head = head._replace(withheld=head.withheld - 1)
        elif found.state == CallState.STARTED and not call.again:
            unanswered = page.unanswered(slots, at)
            return _told(row, CallVerdict.DOUBT, slots[at], found._replace(how=""), unanswered=unanswered, now=now)
        elif found.state == CallState.STARTED:
            twice = int(not call.idempotent)
            found = found._replace(how="again", after=now - found.begun, attempt=correlation.attempt)
            found, head = found._replace(twice=found.twice + twice), head._replace(twice=head.twice + twice)
        else:
            found = found._replace(how="replay", replayed=found.replayed + 1)
            head = head._replace(replayed=head.replayed + 1, left=head.left - 1)
    if found.how != "replay":
        found = page.begin_step(found, call, new)
    found = found._replace(turn=head.turn, number=call.number)
    page.write(head._replace(high=max(head.high, call.number)))
    page.put(slots[at], found)
    row.journal[queue] = dumps([head.turn, at + 1, *slots])
    return _told(row, _verdict(found), slots[at], found, unanswered=page.unanswered(slots, at), page=page)


def _refused(page: _Page, head: Head, call: Call) -> Begun | None:
    """Why a call that is new must not begin."""
    if head.left and call.strict:
        return _told(page.row, CallVerdict.DIVERGED)
    for bound, reached in ((MAX_CALLS, head.calls), (call.most, page.count(call))):
        if bound and reached >= bound:
            return _told(page.row, CallVerdict.FULL, bound=bound)
    return None


def _new(
    page: _Page, head: Head, correlation: Correlation, call: Call, text: str | None, occurrence: int, now: int
) -> tuple[StoredCall, Head]:
    """Write down what a new call is called and asks; gives the call, and the head that counts it."""
    is_other = bool(head.left and not head.diverged)
    request = call.request or Request()
    made = StoredCall(
        CallState.STARTED.value,
        str(call.kind),
        head.journal,
        occurrence,
        head.turn,
        call.number,
        _DIVERGED if is_other else "live",
        correlation.attempt,
        now,
        base=request.base_slot,
        keep=request.keep,
        tail=request.tail,
        name=call.name,
    )
    head = head._replace(calls=head.calls + 1, diverged=1 if is_other else head.diverged)
    if call.kind == CallKind.APPROVAL:
        head = head._replace(approvals=head.approvals + 1)
    if call.kind == CallKind.TOOL:
        made = made._replace(nth=page.count(call) + 1)
        page.row.journal[page.field("n", call.name)] = str(made.nth)
    if text is not None:
        page.row.journal[page.field("r", head.calls)] = text
    return made, head.named(call.name) if call.kind == CallKind.LM else head


def _verdict(call: StoredCall) -> CallVerdict:
    return CallVerdict.LIVE if call.how == _DIVERGED else CallVerdict(call.how)


def _told(
    run: Row | None,
    verdict: CallVerdict,
    slot: int | str = "",
    call: StoredCall | None = None,
    bound: int = 0,
    unanswered: int = 0,
    now: int = 0,
    page: _Page | None = None,
) -> Begun:
    fields: Mapping[str, str] = {} if run is None else run.fields
    state = None if page is None or call is None or not call.undone else fields[f"s:{page.name(call)}"]
    return Begun(
        verdict,
        str(slot),
        failed=call is not None and verdict is CallVerdict.REPLAY and call.state == CallState.FAILED,
        occurrence=0 if call is None else call.occurrence,
        diverged=verdict is CallVerdict.DIVERGED or (call is not None and call.how == _DIVERGED),
        twice=call is not None and call.twice > 0,
        cancelled=fields.get("stop") == "1",
        paused=fields.get("held") == "1",
        bound=bound,
        unanswered=unanswered,
        waited_ms=max(0, now - call.begun) if call is not None and verdict is CallVerdict.DOUBT else 0,
        nth=0 if call is None else call.nth,
        state=None if state is None else StepState.decode(state),
    )
