"""Runs in Redis or Valkey: every transition one Lua script."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

import redis

from multiagents.address import Address
from multiagents.clock import from_ms, to_ms
from multiagents.events import Event
from multiagents.exceptions import ConfigurationError, StateStoreError, WorkflowNotFoundError
from multiagents.failpoints import WriteSite, write
from multiagents.keys import SCHEMA, Keys, RunKeys
from multiagents.names import Correlation, Direction, identity_of, parse_identity
from multiagents.redis import hasty_client
from multiagents.state_store.base import (
    CLOCK_WAS_SET,
    MAX_DELETED,
    MAX_GENERATIONS,
    TIDIED_AT_ONCE,
    StateStore,
    unread,
)
from multiagents.state_store.payloads import PLAIN, PayloadPolicy, Payloads, Reading, Writing, dumps, unpack
from multiagents.state_store.records import (
    LIMIT_GRACE_MS,
    Announced,
    Claim,
    ClaimRefused,
    Commit,
    Committed,
    DefinitionCache,
    Dispatch,
    Due,
    DueKind,
    Ending,
    Renewal,
    Snapshot,
    Started,
    Verdict,
    Written,
    attempt_key_of,
    limits_of,
    parse_attempt_key,
)
from multiagents.state_store.records.claim import REFUSED, Header, StoredClaim, fields_of, reads_context
from multiagents.state_store.redis.arguments import arguments_of, keys_of, row_of
from multiagents.state_store.redis.budgets import RedisBudgets
from multiagents.state_store.redis.endings import LOOK_EVERY, Endings
from multiagents.state_store.redis.examples import RedisExamples
from multiagents.state_store.redis.isolation import RedisIsolation
from multiagents.state_store.redis.journal import RedisJournal
from multiagents.state_store.redis.looks import Looks
from multiagents.state_store.redis.programs import RedisPrograms
from multiagents.state_store.redis.schedules import RedisSchedules
from multiagents.state_store.redis.script_server import ScriptServer
from multiagents.state_store.redis.server_check import check_partitions, check_schema, findings_of, info_of_hello
from multiagents.state_store.redis.streams import RedisStreams
from multiagents.state_store.redis.visibility import RedisVisibility
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState, RunStatus

logger = logging.getLogger(__name__)

#: Of how many definitions a process remembers that the server has them.
MAX_KEPT = 10_000
#: Of how many runs one round trip reads all there is: some have thousands of steps.
LOADED_AT_ONCE = 100
#: How many messages one call says to be held.
HELD_AT_ONCE = 200
#: What the script ``start`` answers when it does not have the definition.
_NOT_KEPT = 2
_VERDICTS = {1: Verdict.APPLIED, 0: Verdict.LATE, -1: Verdict.CONFLICT, -2: Verdict.MISSING, -3: Verdict.RENEWED}
_DELETED = {1: Verdict.APPLIED, 0: Verdict.MISSING, -1: Verdict.CONFLICT}


class RedisStateStore(StateStore):
    """Keep runs in Redis (7.0 or newer) or Valkey (7.2 or newer).

    Args:
        address: where it is; as a URL, see `multiagents.address`.
        keys: the key names; the default has the prefix ``ma`` and one partition.
        lease: seconds after which an attempt whose worker says nothing counts as lost.
        client: a client to use in place of one made for the address; it must decode responses.
        policy: in what form data is stored.
    """

    examples: RedisExamples

    def __init__(
        self,
        address: Address | str,
        *,
        keys: Keys | None = None,
        lease: float = 30.0,
        client: redis.Redis | None = None,
        policy: PayloadPolicy = PLAIN,
    ) -> None:
        self.address = Address.parse(address).checked("the URL") if isinstance(address, str) else address
        self.keys = keys or Keys()
        self.policy = policy
        self.lease_ms = round(lease * 1000)
        self._server = ScriptServer(self.address, client, self.keys.prefix)
        # redis-py types every command as sync-or-async; Any keeps the casts out of each call.
        self._client: Any = self._server.client
        self._definitions = DefinitionCache()
        self.isolation = RedisIsolation(self._server, self.keys, self.lease_ms)
        self.journal = RedisJournal(self._server, self.keys, policy)
        self.examples = RedisExamples(self._server, self.keys, policy)
        self.streams = RedisStreams(self._server, self.keys, policy)
        self.budgets = RedisBudgets(self._server, self.keys)
        self.visibility = RedisVisibility(self._server, self.keys, policy, self.load)
        self.schedules = RedisSchedules(self._server, self.keys)
        self.programs = RedisPrograms(self._server, self.keys, policy)
        self._endings = Endings(self._server, self.keys)
        self._looks = [Looks() for _ in self.keys.of_each_partition()]
        #: (key, content hash) of the definitions that the server has had from here: they are not sent with every start
        self._kept: set[tuple[str, str]] = set()

    def _run(self, identity: str) -> RunKeys:
        return self.keys.of_run(parse_identity(identity)[0])

    def now(self) -> datetime:
        return from_ms(self._server.now_ms())

    def _definition(self, content_hash: str, keys: RunKeys) -> Definition:
        return self._definitions.get(
            content_hash, lambda name: self._server.call(lambda: self._client.hget(keys.definitions, name))
        )

    def definition(self, content_hash: str, transaction_id: str) -> Definition:
        return self._definition(content_hash, self.keys.of_run(transaction_id))

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
        run = self.keys.of_run(state.transaction_id)
        keys = [*keys_of(run, commit), run.definitions, run.versions, run.generations, run.journal, run.stream]
        head = [commit.identity, run.sent(""), self.lease_ms, definition.content_hash]
        replaced = f"|{'|'.join(replaces)}|" if replaces else ""
        writing = Writing(self.policy)
        given = writing.value(input)
        rest = [
            given,
            self.policy.seal(digest),
            definition.name,
            definition.version,
            run.indexes,
            run.attributes,
            call,
            replaced,
            MAX_GENERATIONS,
            *arguments_of(run, commit, Written.of(commit, writing)),
        ]
        kept = (run.definitions, definition.content_hash)
        text = "" if kept in self._kept else definition.to_json()
        reply = self._server.run(commit.site, "start", keys, [*head, text, *rest])
        if reply[0] == _NOT_KEPT:  # the server was emptied since
            reply = self._server.run(commit.site, "start", keys, [*head, definition.to_json(), *rest])
        if len(self._kept) == MAX_KEPT:
            self._kept.clear()
        self._kept.add(kept)
        self._server.heard(reply[1])
        created, _, workflow, content, digested, *other = reply
        return Started(created == 1, workflow, content, self.policy.open(digested), other[0] if other else "")

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
        run = self.keys.of_run(transaction_id)
        definition = self._definition(definition_hash, run)
        fields = fields_of(correlation, definition)
        limit, beat = limits_of(correlation, definition, timeout, heartbeat_timeout, task)
        reply = self._server.run(
            WriteSite.CLAIM_UNDO if direction is Direction.UNDO else WriteSite.CLAIM,
            "claim",
            [run.run, run.context, run.results, run.due],
            [
                correlation.identity,
                step,
                attempt_key_of(direction, attempt),
                owner,
                worker,
                limit,
                beat,
                self.lease_ms,
                LIMIT_GRACE_MS,
                run.sent(""),
                int(reads_context(correlation)),
                *fields,
            ],
        )
        self._server.heard(reply[1])
        if reply[0] != 1:
            raise ClaimRefused(correlation, REFUSED[reply[2]])
        # A map comes as a flat list: a script's reply is flat in RESP3, too.
        _, now, deadline, header, step_state, stored, values = reply
        read = StoredClaim(
            correlation,
            definition,
            owner,
            now,
            deadline,
            Header(*header),
            step_state,
            context=dict(zip(stored[::2], stored[1::2], strict=True)),
            values={name: value for name, value in zip(fields, values, strict=True) if value is not None},
        )
        return read.decode(lambda: self._reading(transaction_id, run))

    def renew(self, correlation: Correlation, owner: str, *, beat: bool = False, detail: Any = None) -> Renewal:
        run = self.keys.of_run(correlation.transaction_id)
        attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
        reply = self._server.run(
            WriteSite.RENEW_UNDO if correlation.direction is Direction.UNDO else WriteSite.RENEW,
            "renew",
            [run.run, run.due],
            [
                correlation.identity,
                correlation.step,
                attempt_key,
                owner,
                self.lease_ms,
                LIMIT_GRACE_MS,
                int(beat),
                "" if detail is None else self.policy.text(detail),
            ],
        )
        self._server.heard(reply[1])
        return Renewal(reply[0] == 1, reply[2] == 1)

    def commit(self, commit: Commit) -> Committed:
        run = self.keys.of_run(commit.transaction_id)
        step, prefix = commit.answers or ("", "")
        recalled = [value for pair in commit.ends for value in pair]
        reply = self._server.run(
            commit.site,
            "commit",
            keys_of(run, commit),
            [
                commit.identity,
                run.sent(""),
                self.lease_ms,
                step,
                prefix,
                "" if commit.unrenewed is None else commit.unrenewed,
                "" if commit.epoch is None else commit.epoch,
                "" if commit.version is None else commit.version,
                int(commit.raises_epoch),
                commit.absent,
                len(commit.ends),
                *recalled,
                len(commit.fresh),
                *commit.fresh,
                *arguments_of(run, commit, Written.of(commit, Writing(self.policy))),
                *(() if commit.lesson is None else self.examples.arguments_of(commit.lesson)),
            ],
        )
        self._server.heard(reply[1])
        if reply[0] == 1 and self.policy.is_too_long(reply[3]):
            self._shorten(commit.transaction_id)
        return Committed(_VERDICTS[reply[0]], reply[2] == 1)

    def dispatch(self, identity: str, dispatch: Dispatch, expected: str, *, begun: bool = False) -> bool:
        run = self._run(identity)
        args = [identity, run.sent(""), expected, *row_of(dispatch), *((dispatch.attempt_key,) if begun else ())]
        site = (
            WriteSite.DISPATCH
            if parse_attempt_key(dispatch.attempt_key)[0] is Direction.DO
            else WriteSite.DISPATCH_UNDO
        )
        return bool(self._server.run(site, "dispatch", [run.run, run.due, run.sequence], args)[0])

    def postpone(self, entry: str, transaction_id: str, delay_ms: int) -> None:
        run = self.keys.of_run(transaction_id)
        self._server.run(WriteSite.POSTPONE, "postpone", [run.due], [entry, delay_ms])

    def discard(self, entry: str, transaction_id: str) -> None:
        run = self.keys.of_run(transaction_id)
        self._server.call(lambda: write(WriteSite.DISCARD, partial(self._client.zrem, run.due, entry)))

    def expire(self, correlation: Correlation, why: str = "") -> bool:
        run = self.keys.of_run(correlation.transaction_id)
        attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
        args = [correlation.identity, correlation.step, attempt_key, why]
        return bool(self._server.run(WriteSite.EXPIRE, "expire", [run.run, run.due], args)[0])

    def hold(self, attempts: Sequence[Correlation]) -> None:
        by_partition: dict[int, list[Correlation]] = {}
        for attempt in attempts:
            by_partition.setdefault(self.keys.partition_of(attempt.transaction_id), []).append(attempt)
        for partition, some in by_partition.items():
            part = self.keys.of_partition(partition)
            for page in (some[at : at + HELD_AT_ONCE] for at in range(0, len(some), HELD_AT_ONCE)):
                named = [
                    word
                    for attempt in page
                    for word in (
                        attempt.identity,
                        attempt.step,
                        attempt_key_of(attempt.direction, attempt.attempt),
                    )
                ]
                self._server.run(WriteSite.HOLD, "hold", [part.due], [self.lease_ms, part.runs, *named])

    def take_due(self, *, limit: int = 100, waker: str = "", starts: str = "") -> tuple[list[Due], float]:
        entries: list[Due] = []
        until_next: list[int] = []
        for number, part in enumerate(self.keys.of_each_partition()):
            keys = [part.due, part.meta, part.sequence, part.due_before]
            args = [limit, self.lease_ms, part.sent(""), part.runs, number, waker, self.lease_ms // 3, starts]
            ask = partial(self._server.run, WriteSite.TAKE_DUE, "take_due", keys)
            now, soonest, was_set, *members = self._looks[number].ask(ask, [*args, part.lock("")])
            self._server.heard(now)
            if was_set:
                way = "forward" if was_set > 0 else "back"
                logger.warning(CLOCK_WAS_SET, self._server.where, way, abs(was_set) / 1000)
            if soonest >= 0:
                until_next.append(soonest)
            entries += [Due.decode(member, now + self.lease_ms) for member in members]
        return entries, min(until_next, default=3_600_000) / 1000

    def waiting(self, named: str, *, limit: int = 100) -> dict[str, list[Due]]:
        found: dict[str, list[Due]] = {}
        for part in self.keys.of_each_partition():
            for target in self._server.call(partial(self._client.hkeys, part.sequence)):
                if target and named in target:
                    sent = self._server.call(partial(self._client.zrange, part.sent(target), 0, limit - 1))
                    found.setdefault(target, []).extend(map(Due.decode, sent))
        return {target: entries for target, entries in found.items() if entries}

    def broker_lists(self) -> list[str]:
        found = [self._server.call(partial(self._client.hkeys, p.sequence)) for p in self.keys.of_each_partition()]
        return sorted({name for names in found for name in names})

    # --- reading -----------------------------------------------------------------------------------------------------

    def load(self, transaction_id: str) -> Snapshot:
        run = self.keys.of_run(transaction_id)
        now, *flat = self._server.run(None, "load", [run.run], [])
        self._server.heard(now)
        if not flat:
            raise WorkflowNotFoundError(transaction_id)
        fields = self.policy.fields(dict(zip(flat[::2], flat[1::2], strict=True)))
        return Snapshot.decode(transaction_id, fields, self._definition(fields["definition"], run), now)

    def load_many(self, transaction_ids: Sequence[str]) -> dict[str, Snapshot]:
        runs = {name: self.keys.of_run(name) for name in transaction_ids}
        names, found = list(runs), {}
        for begin in range(0, len(names), LOADED_AT_ONCE):
            page = names[begin : begin + LOADED_AT_ONCE]
            with self._client.pipeline(transaction=False) as pipe:
                pipe.time()
                for name in page:
                    pipe.hgetall(runs[name].run)
                (seconds, micros), *stored = self._server.call(pipe.execute)
            now = seconds * 1000 + micros // 1000
            there = {name: fields for name, fields in zip(page, stored, strict=True) if fields}
            self._learn({fields["definition"]: runs[name] for name, fields in there.items()})
            for name, stored_fields in there.items():
                with suppress(WorkflowNotFoundError), unread(name):
                    fields = self.policy.fields(stored_fields)
                    definition = self._definition(fields["definition"], runs[name])
                    found[name] = Snapshot.decode(name, fields, definition, now)
        return found

    def _learn(self, wanted: Mapping[str, RunKeys]) -> None:
        """Read all of these definitions that this process does not know, in one round trip."""
        unknown = self._definitions.unknown(wanted)
        if not unknown:
            return
        with self._client.pipeline(transaction=False) as pipe:
            for name in unknown:
                pipe.hget(wanted[name].definitions, name)
            for name, text in zip(unknown, self._server.call(pipe.execute), strict=True):
                if text is not None:
                    self._definitions.keep(name, text)

    def status(self, transaction_id: str) -> RunStatus:
        run = self.keys.of_run(transaction_id)
        status = self._server.call(lambda: self._client.hget(run.run, "status"))
        if status is None:
            raise WorkflowNotFoundError(transaction_id)
        return RunStatus(status)

    def ending(
        self, transaction_id: str, after: int | None = None, *, entry: str | None = None, poll: float = LOOK_EVERY
    ) -> Ending:
        return self._endings.of(transaction_id, Ending(after, poll, entry))

    def _reading(self, transaction_id: str, run: RunKeys) -> Reading:
        """Opens what is stored of a run."""

        def fetch(names: Sequence[str]) -> Mapping[str, str]:
            found = self._server.call(lambda: self._client.hmget(run.blobs, list(names)))
            return {name: text for name, text in zip(names, found, strict=True) if text is not None}

        return Reading(self.policy, transaction_id, fetch)

    def payloads(self, transaction_id: str) -> Payloads:
        run = self.keys.of_run(transaction_id)
        # No transaction, which a full server may refuse: decisions are fenced, whatever came in between.
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hgetall(run.context)
            pipe.hgetall(run.results)
            context, stored = self._server.call(pipe.execute)
        if "i" not in stored:
            raise WorkflowNotFoundError(transaction_id)
        reading = self._reading(transaction_id, run)
        return Payloads.decode(reading.whole(context), reading.whole(stored))

    def history(self, transaction_id: str, after: int = 0) -> list[Event]:
        run = self.keys.of_run(transaction_id)
        known, dropped = -1, 0
        records: list[str] = []
        while known != dropped:  # else some have left for the archive in between
            known = dropped
            with self._client.pipeline(transaction=False) as pipe:
                pipe.lrange(run.history, max(0, after - known), -1)
                # Behind the list: it only grows, so it was the same at the list.
                pipe.hmget(run.run, ["archived", "nonce"])
                records, (found, nonce) = self._server.call(pipe.execute)
            dropped = int(found or 0)
        if after < dropped:
            records = [*self.policy.from_archive(transaction_id, after, dropped), *records]
        return [unpack(transaction_id, self.policy.open(record), nonce) for record in records]

    def details(self, transaction_id: str, steps: Sequence[str]) -> dict[str, Any]:
        run = self.keys.of_run(transaction_id)
        said = self._server.call(lambda: self._client.hmget(run.run, [f"h:{step}" for step in steps])) if steps else []
        return self.policy.details_shown(dict(zip(steps, said, strict=True)))

    def archive(self, transaction_id: str, keep: int = 1) -> int:
        put = self.policy.to_archive()
        run = self.keys.of_run(transaction_id)
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(run.run, ["v", "archived", "nonce"])
            pipe.lrange(run.history, 0, -max(keep, 1) - 1)
            pipe.hget(run.run, "archived")
            (version, dropped, nonce), records, since = self._server.call(pipe.execute)
        if version is None:
            raise WorkflowNotFoundError(transaction_id)
        first = int(dropped or 0)
        if records and dropped == since:  # else somebody else has moved them in between
            put(transaction_id, first, records)
            keys = [run.run, run.history]
            args = [identity_of(transaction_id, nonce), first, len(records)]
            self._server.run(WriteSite.TRIM_HISTORY, "archive", keys, args)
        return len(records)

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def forget(self, identity: str, seen_ms: int | None = None) -> bool:
        run = self._run(identity)
        transaction_id, nonce = parse_identity(identity)
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zscore(run.due, DueKind.EXPIRY.entry(identity))
            pipe.hget(run.run, "nonce")
            score, found = self._server.call(pipe.execute)
        if (seen_ms is not None and score != seen_ms) or (found or "") != nonce:
            return False
        # Before the run, so that it is done again if it was not.
        self.policy.forget(transaction_id)
        keys = [run.run, run.context, run.results, run.history, run.due, run.blobs]
        keys += [run.definitions, run.versions, run.generations, run.journal, run.stream]
        seen = "" if seen_ms is None else seen_ms
        args = [identity, run.sent(""), run.indexes, run.attributes, seen, MAX_GENERATIONS]
        return bool(self._server.run(WriteSite.FORGET, "forget", keys, args)[0])

    def delete(self, identity: str, *, status: RunStatus, tombstone: str, dead_letters: Sequence[str] = ()) -> Verdict:
        run = self._run(identity)
        of_the_run = [run.run, run.context, run.results, run.history, run.due]
        keys = [
            *of_the_run,
            run.deleted,
            run.dead,
            run.blobs,
            run.definitions,
            run.versions,
            run.generations,
            run.journal,
            run.stream,
        ]
        args = [
            identity,
            run.sent(""),
            run.indexes,
            run.attributes,
            status.value,
            tombstone,
            MAX_DELETED,
            MAX_GENERATIONS,
            *dead_letters,
        ]
        verdict = _DELETED[self._server.run(WriteSite.DELETE, "delete", keys, args)[0]]
        if verdict is Verdict.APPLIED:
            self.policy.forget(parse_identity(identity)[0])
        return verdict

    def bury(self, transaction_id: str, key: str, letter: Mapping[str, Any]) -> None:
        run = self.keys.of_run(transaction_id)
        self._server.run(WriteSite.BURY, "bury", [run.dead, run.dead_since], [key, self.policy.text(dict(letter))])

    def dead_letter(self, transaction_id: str, key: str) -> dict[str, Any] | None:
        run = self.keys.of_run(transaction_id)
        found = self._server.call(lambda: self._client.hget(run.dead, key))
        return None if found is None else self.policy.dead_letter(found)

    def unbury(self, key: str) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            for part in self.keys.of_each_partition():
                pipe.hdel(part.dead, key)
                pipe.zrem(part.dead_since, key)
            self._server.call(pipe.execute)

    def tidy(self, letters_ms: int) -> list[str]:
        gone: list[str] = []
        for part in self.keys.of_each_partition():
            keys = [part.sequence, part.dead, part.dead_since]
            gone += self._server.run(WriteSite.TIDY, "tidy", keys, [part.sent(""), letters_ms, TIDIED_AT_ONCE])[1:]
        return gone

    def announce(self, entries: Mapping[str, Mapping[str, Any]], gone: Collection[str] = ()) -> None:
        if not (entries or gone):
            return
        key, now = self.keys.of_partition(0).announced, to_ms(self.now())
        told = [text for name, about in entries.items() for text in (name, dumps({**about, "seen": now}))]
        self._server.run(WriteSite.ANNOUNCE, "announce", [key], [len(gone), *gone, *told])

    def announced(self) -> Announced:
        stored = self._server.call(partial(self._client.hgetall, self.keys.of_partition(0).announced))
        return Announced.decode(stored, to_ms(self.now()))

    def reach(self) -> None:
        self._server.call(self._client.time)

    def _info(self) -> dict[str, Any]:
        try:
            return dict(self._client.info())
        except redis.exceptions.NoPermissionError:
            hello = self._client.ask("HELLO")
            # A list with RESP2, which the client has made of it on the way.
            return info_of_hello(hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True)))

    def check(self) -> list[str]:
        findings = findings_of(self._server.call(self._info), self._server.where)
        schema, partitions = self._begun_with()
        check_schema(schema, self._server.where)
        check_partitions(self.keys.partitions, int(partitions), self._server.where)
        return findings

    def _begun_with(self) -> tuple[str | None, str]:
        """The layout and the number of partitions that the store was begun with: ours, if this is its beginning."""
        meta = self.keys.of_partition(0).meta
        ask = partial(self._client.hmget, meta, ["schema", "partitions"])
        schema, partitions = self._server.call(ask)
        if partitions is not None:  # nothing is written: a server that is full has to be checked as well
            return schema, partitions
        if schema is None and self._is_of_the_first_layout():
            return None, str(self.keys.partitions)
        # The layout first: who finds partitions finds it, too.
        for name, number in (("schema", SCHEMA), ("partitions", self.keys.partitions)):
            pin = partial(self._client.hsetnx, meta, name, str(number))
            self._server.call(partial(write, WriteSite.PARTITIONS, pin))
        schema, partitions = self._server.call(ask)
        return schema, partitions

    def _is_of_the_first_layout(self) -> bool:
        try:
            return bool(self._server.call(lambda: self._client.exists(self.keys.of_the_first_layout)))
        except (StateStoreError, ConfigurationError):
            return False  # a user who may not look at it has not begun it

    def for_sweep(self) -> RedisStateStore:
        hasty = hasty_client(self.address)
        return RedisStateStore(
            self.address, keys=self.keys, lease=self.lease_ms / 1000, client=hasty, policy=self.policy
        )

    @property
    def client(self) -> redis.Redis:
        """The client underneath, for the event bus of the same server."""
        return self._server.client

    def close(self) -> None:
        self._endings.close()
        self._server.close()
