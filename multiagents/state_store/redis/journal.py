"""The journal of calls in Redis: one hash beside the run, and a script for each verb."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pydantic_core import from_json

from multiagents.clock import from_ms
from multiagents.failpoints import WriteSite
from multiagents.keys import Keys, RunKeys
from multiagents.names import Correlation, Direction, parse_identity
from multiagents.state_store.journal import Journal
from multiagents.state_store.payloads import PayloadPolicy, Reading, Writing
from multiagents.state_store.records import (
    MAX_CALLS,
    MAX_EVIDENCE,
    MAX_MODELS,
    Begun,
    Call,
    CallOutcome,
    CallRecord,
    CallVerdict,
    Decided,
    Opened,
    Request,
    StepUsage,
    Usage,
    attempt_key_of,
)
from multiagents.state_store.records.call_steps import CallBegun, CallEnded
from multiagents.state_store.records.journal_fields import heads_of, mark, usage_of
from multiagents.state_store.records.journal_reading import calls_of
from multiagents.state_store.redis.script_server import ScriptServer
from multiagents.workflow.state import StepState

#: How many fields of a journal one look for those of a step goes through.
FIELDS_AT_ONCE = 1_000
#: What is not a character like others in a pattern of Redis; a map's items have brackets in their names.
_SPECIAL, _ESCAPED = re.compile(r"[\\*?\[\]^-]"), r"\\\g<0>"


class RedisJournal(Journal):
    """Keep the calls inside steps.

    Args:
        server: runs the scripts.
        keys: the key names.
        policy: in what form data is stored.
    """

    def __init__(self, server: ScriptServer, keys: Keys, policy: PayloadPolicy) -> None:
        self._server = server
        self._client: Any = server.client
        self._keys = keys
        self._policy = policy

    def open(self, correlation: Correlation, owner: str, pins: Mapping[str, str]) -> Opened:
        run = self._keys.of_run(correlation.transaction_id)
        site = WriteSite.JOURNAL_OPEN_UNDO if correlation.direction is Direction.UNDO else WriteSite.JOURNAL_OPEN
        args = [*_held_by(correlation, owner), self._policy.text(dict(pins))]
        ours, now, *found = self._server.run(site, "journal_open", [run.run, run.journal], args)
        self._server.heard(now)
        if not ours:
            return Opened(pins, 0, lost=True)
        recorded, fixed = found
        return Opened(from_json(self._policy.open(fixed)), recorded)

    def begin(self, correlation: Correlation, owner: str, call: Call) -> Begun:
        transaction_id = correlation.transaction_id
        run = self._keys.of_run(transaction_id)
        writing, request = Writing(self._policy), call.request or Request()
        text = "" if call.request is None else writing.text(mark(request.text))
        site = WriteSite.JOURNAL_BEGIN_UNDO if correlation.direction is Direction.UNDO else WriteSite.JOURNAL_BEGIN
        args = [
            *_held_by(correlation, owner),
            str(call.kind),
            call.hash,
            call.number,
            call.name,
            int(call.again),
            int(call.idempotent),
            int(call.strict),
            call.most,
            MAX_CALLS,
            request.base_slot,
            request.keep,
            request.tail,
            text,
            MAX_MODELS,
            *CallBegun.of(correlation, call.undo, from_ms(self._server.now_ms()), writing),
            *self._apart(transaction_id, writing),
        ]
        keys = [run.run, run.journal, run.blobs, run.history, run.results]
        reply = self._server.run(site, "journal_begin", keys, args)
        verdict, now, stop, held, slot, occurrence, *more, answer = reply
        diverged, twice, failed, bound, waited, unanswered, nth, state = more
        self._server.heard(now)
        return Begun(
            CallVerdict(verdict),
            str(slot),
            from_json(self._reading(transaction_id, run).whole({"": answer})[""]) if answer else None,
            failed=failed == 1,
            occurrence=occurrence,
            diverged=diverged == 1,
            twice=twice == 1,
            cancelled=stop == 1,
            paused=held == 1,
            bound=bound,
            unanswered=unanswered,
            waited_ms=waited,
            nth=nth,
            state=StepState.decode(self._policy.open(state)) if state else None,
        )

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
        transaction_id = correlation.transaction_id
        run = self._keys.of_run(transaction_id)
        writing, used = Writing(self._policy), usage or Usage()
        text = writing.value(answer)
        site = WriteSite.JOURNAL_FINISH_UNDO if correlation.direction is Direction.UNDO else WriteSite.JOURNAL_FINISH
        args = [
            *_held_by(correlation, owner),
            slot,
            text,
            int(failed),
            used.input_tokens,
            used.output_tokens,
            used.micro_usd,
            used.model,
            MAX_EVIDENCE,
            MAX_MODELS,
            *CallEnded.of(outcome, writing),
            *self._apart(transaction_id, writing),
        ]
        keys = [run.run, run.journal, run.blobs, run.history, run.results]
        ours, now = self._server.run(site, "journal_finish", keys, args)
        self._server.heard(now)
        return bool(ours)

    def refuse(self, correlation: Correlation, owner: str, slots: Sequence[str], why: str) -> bool:
        run = self._keys.of_run(correlation.transaction_id)
        site = WriteSite.JOURNAL_REFUSE_UNDO if correlation.direction is Direction.UNDO else WriteSite.JOURNAL_REFUSE
        args = [*_held_by(correlation, owner), self._policy.seal(mark(why)), *slots]
        return bool(self._server.run(site, "journal_refuse", [run.run, run.journal], args)[0])

    def withhold(self, correlation: Correlation, owner: str, slot: str) -> bool:
        run = self._keys.of_run(correlation.transaction_id)
        is_undo = correlation.direction is Direction.UNDO
        site = WriteSite.JOURNAL_WITHHOLD_UNDO if is_undo else WriteSite.JOURNAL_WITHHOLD
        args = [*_held_by(correlation, owner), slot]
        return bool(self._server.run(site, "journal_withhold", [run.run, run.journal], args)[0])

    def restart(self, identity: str, step: str, direction: Direction = Direction.DO) -> bool:
        run = self._keys.of_run(parse_identity(identity)[0])
        args = [identity, step, direction.value[0]]
        return bool(self._server.run(WriteSite.JOURNAL_RESTART, "journal_restart", [run.run, run.journal], args)[0])

    def decide(
        self, identity: str, step: str, slot: str, decision: Any, direction: Direction = Direction.DO
    ) -> Decided | None:
        transaction_id, _ = parse_identity(identity)
        run = self._keys.of_run(transaction_id)
        writing = Writing(self._policy)
        args = [identity, step, direction.value[0], slot, writing.value(decision)]
        args += self._apart(transaction_id, writing)
        written, _, counts = self._server.run(
            WriteSite.JOURNAL_DECIDE, "journal_decide", [run.run, run.journal, run.blobs], args
        )
        if written < 0:
            return None
        return Decided(written == 1, from_json(self._reading(transaction_id, run).whole({"": counts})[""]))

    def calls(self, transaction_id: str, step: str | None = None, *, last: int | None = None) -> list[CallRecord]:
        run = self._keys.of_run(transaction_id)
        if step is None:
            fields = self._server.call(partial(self._client.hgetall, run.journal))
        else:
            fields = self._of_a_step(run, step)
        return calls_of(fields, self._reading(transaction_id, run), step, last)

    def usage(self, transaction_id: str, steps: Sequence[str]) -> dict[str, StepUsage]:
        run = self._keys.of_run(transaction_id)
        heads = self._server.call(partial(self._client.hmget, run.journal, heads_of(steps))) if steps else []
        return usage_of(steps, heads)

    def _of_a_step(self, run: RunKeys, step: str) -> Mapping[str, str]:
        """The fields of one step alone: a run may have thousands, those of a map's items."""
        found: dict[str, str] = {}
        pattern, cursor = f"?|{_SPECIAL.sub(_ESCAPED, step)}|*", 0
        while True:
            ask = partial(self._client.hscan, run.journal, cursor, match=pattern, count=FIELDS_AT_ONCE)
            cursor, page = self._server.call(ask)
            found |= page
            if not cursor:
                return found

    def _apart(self, transaction_id: str, writing: Writing) -> list[str]:
        """What the script has to write beside the run, as name and text."""
        return [word for pair in self._policy.put_apart(transaction_id, writing.blobs).items() for word in pair]

    def _reading(self, transaction_id: str, run: RunKeys) -> Reading:
        def fetch(names: Sequence[str]) -> Mapping[str, str]:
            found = self._server.call(lambda: self._client.hmget(run.blobs, list(names)))
            return {name: text for name, text in zip(names, found, strict=True) if text is not None}

        return Reading(self._policy, transaction_id, fetch)


def _held_by(correlation: Correlation, owner: str) -> list[str]:
    """What says whose call it is, as the scripts take it."""
    key = attempt_key_of(correlation.direction, correlation.attempt)
    return [correlation.identity, correlation.step, key, owner]
