"""Runs in Redis or Valkey: every transition one Lua script."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from multiagents.events import ErrorInfo, Event
from multiagents.exceptions import ConfigurationError, StateStoreError, WorkflowNotFoundError
from multiagents.names import Correlation, Direction, Keys, RunKeys
from multiagents.state_store.base import (
    LIMIT_GRACE_MS,
    Claim,
    ClaimRefused,
    Commit,
    Committed,
    Dispatch,
    Due,
    InFlight,
    Page,
    Payloads,
    Renewal,
    Snapshot,
    Started,
    StateStore,
    Verdict,
    Via,
    as_mapping,
    dumps,
    from_ms,
    mark_of,
    merge,
)
from multiagents.state_store.codec import unpack
from multiagents.state_store.scripts import script
from multiagents.state_store.transition import arguments_of, keys_of, row_of
from multiagents.workflow.definition import Definition
from multiagents.workflow.registry import definitions
from multiagents.workflow.state import Cause, Progress, RunState, RunStatus, StepState

_VERDICTS = {1: Verdict.APPLIED, 0: Verdict.LATE, -1: Verdict.CONFLICT, -2: Verdict.MISSING, -3: Verdict.RENEWED}
_REFUSED = {
    1: "there is no such run, or it has been forgotten",
    2: "the run does not wait for this attempt (any more)",
    3: "another worker holds it",
}
#: Seconds a call may take before it is sent again; every script may be sent twice.
SOCKET_TIMEOUT = 5.0
#: How often a call is sent again while the server does not answer (about ten seconds in all).
RETRIES = 6


class RedisStateStore(StateStore):
    """Keep runs in Redis (7.0 or newer) or Valkey (7.2 or newer).

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        keys: the key names; the default has the prefix ``ma`` and one partition.
        lease: seconds after which an attempt whose worker says nothing counts as lost.
        client: a client to use in place of one made from the URL; it must decode responses.
    """

    def __init__(
        self, url: str, *, keys: Keys | None = None, lease: float = 30.0, client: redis.Redis | None = None
    ) -> None:
        self.url = url
        self.keys = keys or Keys()
        self.lease_ms = round(lease * 1000)
        self._client = client or redis.Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=SOCKET_TIMEOUT,
            socket_connect_timeout=SOCKET_TIMEOUT,
            retry=Retry(ExponentialBackoff(base=0.05, cap=2.0), RETRIES),
        )
        self._definitions: dict[str, Definition] = {}
        #: server's clock minus our monotonic one, in ms; None until the server has answered once
        self._offset: float | None = None

    # --- the scripts -------------------------------------------------------------------------------------------------

    def _run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script; its reply carries the server's clock in the second place (in the first for reads)."""
        text = script(name)
        try:
            try:
                reply = self._client.execute_command("EVALSHA", text.sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                reply = self._client.execute_command("EVAL", text.text, len(keys), *keys, *args)
        except redis.exceptions.RedisError as error:
            raise _mapped(error, self.url) from error
        return reply

    def _heard(self, now_ms: int) -> None:
        self._offset = now_ms - time.monotonic() * 1000

    def now(self) -> datetime:
        if self._offset is None:
            seconds, micros = self._call(lambda: self._client.time())
            self._heard(seconds * 1000 + micros // 1000)
        assert self._offset is not None
        return from_ms(round(time.monotonic() * 1000 + self._offset))

    def _call(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except redis.exceptions.RedisError as error:
            raise _mapped(error, self.url) from error

    def _definition(self, content_hash: str, keys: RunKeys) -> Definition:
        """The definition by its hash: with the code of this process if it has it, else the snapshot."""
        if (local := definitions.by_hash(content_hash)) is not None:
            return local
        if content_hash not in self._definitions:
            snapshot = self._call(lambda: self._client.hget(keys.definitions, content_hash))
            if snapshot is None:
                raise WorkflowNotFoundError(
                    content_hash,
                    f"no definition with content hash {content_hash!r} is registered here or kept in the state store; "
                    f"the run that names it was started against another database",
                )
            self._definitions[content_hash] = Definition.from_json(snapshot)
        return self._definitions[content_hash]

    # --- the life of a run -------------------------------------------------------------------------------------------

    def start(self, definition: Definition, state: RunState, commit: Commit, input: Any, digest: str) -> Started:
        run = self.keys.of_run(state.transaction_id)
        reply = self._run(
            "start",
            [*keys_of(run, commit), run.definitions],
            [
                state.transaction_id,
                run.sent(""),
                self.lease_ms,
                definition.content_hash,
                definition.to_json(),
                dumps(input),
                digest,
                definition.name,
                *arguments_of(run, commit),
            ],
        )
        self._heard(reply[1])
        return Started(reply[0] == 1, *reply[2:])

    def claim(
        self,
        correlation: Correlation,
        definition_hash: str,
        *,
        owner: str,
        worker: str,
        timeout: float | None,
        heartbeat_timeout: float | None = None,
    ) -> Claim:
        transaction_id, step, direction, attempt = correlation
        run = self.keys.of_run(transaction_id)
        definition = self._definition(definition_hash, run)
        undo = direction is Direction.UNDO
        parts = definition.ancestors(step) if undo else definition.parts(step)
        fields = ["i", f"n:{step}", *(f"r:{part}" for part in parts)]
        if undo:
            fields.append(f"r:{step}")
        reply = self._run(
            "claim",
            [run.run, run.context, run.results, run.due],
            [
                transaction_id,
                step,
                mark_of(direction, attempt),
                owner,
                worker,
                round((timeout or 0) * 1000),
                round((heartbeat_timeout or 0) * 1000),
                self.lease_ms,
                LIMIT_GRACE_MS,
                run.sent(""),
                *fields,
            ],
        )
        self._heard(reply[1])
        if reply[0] != 1:
            raise ClaimRefused(correlation, _REFUSED[reply[2]])
        _, now, deadline, (status, stop, epoch, error, cause), encoded, stored, values = reply
        results = {part: json.loads(value) for part, value in zip(parts, values[2:], strict=False) if value is not None}
        merged = json.loads(values[0])
        # RESP3 answers a map where RESP2 answers a flat list; a script's reply is flat in both.
        merged.update(zip(stored[::2], map(json.loads, stored[1::2]), strict=True))
        merge(merged, results, parts)
        answered = json.loads(values[1]) if values[1] is not None else None
        step_state = StepState.decode(encoded)
        result = json.loads(values[-1]) if undo and values[-1] is not None else None
        context = merged if answered is None else answered
        if undo:
            context = {**context, **as_mapping(step, result)} if isinstance(context, dict) else context
        elif answered is None:
            context = dict(merged)
        return Claim(
            correlation=correlation,
            definition=definition,
            context=context,
            input=merged if answered is None else answered,
            owner=owner,
            state=RunState(
                transaction_id,
                definition.name,
                definition.version,
                definition_hash,
                RunStatus(status),
                {step: step_state},
                error=ErrorInfo.model_validate_json(error) if error else None,
                cause=Cause(cause) if cause else None,
            ),
            epoch=int(epoch),
            merged=merged,
            now=from_ms(now),
            parts=results,
            result=result,
            outcome=_OUTCOMES.get(step_state.do.progress) if undo else None,
            error=ErrorInfo.model_validate_json(error) if error and undo else None,
            deadline=from_ms(deadline) if deadline else None,
            cancelled=bool(stop),
        )

    def renew(self, correlation: Correlation, owner: str, *, beat: bool = False, detail: Any = None) -> Renewal:
        run = self.keys.of_run(correlation.transaction_id)
        mark = mark_of(correlation.direction, correlation.attempt)
        reply = self._run(
            "renew",
            [run.run, run.due],
            [
                correlation.transaction_id,
                correlation.step,
                mark,
                owner,
                self.lease_ms,
                LIMIT_GRACE_MS,
                int(beat),
                "" if detail is None else dumps(detail),
            ],
        )
        self._heard(reply[1])
        return Renewal(reply[0] == 1, reply[2] == 1)

    def commit(self, commit: Commit) -> Committed:
        run = self.keys.of_run(commit.transaction_id)
        step, prefix = commit.answers or ("", "")
        turned = int("status" in commit.header or "stop" in commit.header)
        recalled = [value for pair in commit.ends for value in pair]
        reply = self._run(
            "commit",
            keys_of(run, commit),
            [
                commit.transaction_id,
                run.sent(""),
                self.lease_ms,
                step,
                prefix,
                "" if commit.unrenewed is None else commit.unrenewed,
                "" if commit.epoch is None else commit.epoch,
                "" if commit.version is None else commit.version,
                turned,
                len(commit.ends),
                *recalled,
                *arguments_of(run, commit),
            ],
        )
        self._heard(reply[1])
        return Committed(_VERDICTS[reply[0]], reply[2] == 1)

    def dispatch(self, transaction_id: str, dispatch: Dispatch, expected: str) -> bool:
        run = self.keys.of_run(transaction_id)
        args = [transaction_id, run.sent(""), expected, *row_of(dispatch)]
        return bool(self._run("dispatch", [run.run, run.due, run.sequence], args)[0])

    def postpone(self, entry: str, transaction_id: str, delay_ms: int) -> None:
        run = self.keys.of_run(transaction_id)
        at = round(self.now().timestamp() * 1000) + delay_ms
        self._call(lambda: self._client.zadd(run.due, {entry: at}, xx=True))

    def discard(self, entry: str, transaction_id: str) -> None:
        run = self.keys.of_run(transaction_id)
        self._call(lambda: self._client.zrem(run.due, entry))

    def expire(self, correlation: Correlation) -> bool:
        run = self.keys.of_run(correlation.transaction_id)
        mark = mark_of(correlation.direction, correlation.attempt)
        args = [correlation.transaction_id, correlation.step, mark]
        return bool(self._run("expire", [run.run, run.due], args)[0])

    def take_due(self, *, limit: int = 100) -> tuple[list[Due], float]:
        entries: list[Due] = []
        soonest = -1
        for number in range(self.keys.partitions):
            part = self.keys.of_partition(number)
            reply = self._run(
                "take_due",
                [part.due, part.meta, part.sequence],
                [limit, self.lease_ms, part.sent(""), f"{part.tag}:run:", number],
            )
            self._heard(reply[0])
            soonest = reply[1] if soonest < 0 else min(soonest, max(reply[1], 0))
            entries += [_due(member, reply[0] + self.lease_ms) for member in reply[2:]]
        return entries, (3600.0 if soonest < 0 else soonest / 1000)

    # --- reading -----------------------------------------------------------------------------------------------------

    def load(self, transaction_id: str) -> Snapshot:
        run = self.keys.of_run(transaction_id)
        now, *flat = self._run("load", [run.run], [])
        self._heard(now)
        if not flat:
            raise WorkflowNotFoundError(transaction_id)
        header: dict[str, str] = {}
        steps: dict[str, StepState] = {}
        in_flight: dict[str, InFlight] = {}
        for name, value in zip(flat[::2], flat[1::2], strict=True):
            kind, _, step = name.partition(":")
            if not step:
                header[name] = value
            elif kind == "s":
                steps[step] = StepState.decode(value)
            elif kind == "l":
                in_flight[step] = InFlight.parse(step, value)
        definition = self._definition(header["definition"], run)
        ordered = {name: steps[name] for name in definition.steps if name in steps}
        return Snapshot(
            RunState.decode(transaction_id, header, ordered),
            definition,
            in_flight,
            int(header["v"]),
            int(header["epoch"]),
            from_ms(now),
        )

    def payloads(self, transaction_id: str) -> Payloads:
        run = self.keys.of_run(transaction_id)
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(run.context)
            pipe.hgetall(run.results)
            context, stored = self._call(pipe.execute)
        if "i" not in stored:
            raise WorkflowNotFoundError(transaction_id)
        return Payloads(
            input=json.loads(stored["i"]),
            context={key: json.loads(value) for key, value in context.items()},
            results={key[2:]: json.loads(value) for key, value in stored.items() if key.startswith("r:")},
            inputs={key[2:]: json.loads(value) for key, value in stored.items() if key.startswith("n:")},
        )

    def results(self, transaction_id: str) -> dict[str, Any]:
        return self.payloads(transaction_id).results

    def history(self, transaction_id: str, after: int = 0) -> list[Event]:
        run = self.keys.of_run(transaction_id)
        records = self._call(lambda: self._client.lrange(run.history, after, -1))
        return [unpack(transaction_id, record) for record in records]

    def list_runs(
        self,
        *,
        statuses: Sequence[RunStatus],
        workflow: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        lowest = "-inf" if since is None else str(round(since.timestamp() * 1000))
        before_ms, _, before_id = (cursor or "+inf:").partition(":")
        with self._client.pipeline(transaction=False) as pipe:
            for number in range(self.keys.partitions):
                part = self.keys.of_partition(number)
                for status in statuses:
                    # One more than asked for, and as many again as may share the cursor's millisecond.
                    index = part.index(status.value, workflow)
                    pipe.zrevrangebyscore(index, before_ms, lowest, start=0, num=limit + 1 + 64, withscores=True)
            found = [(int(score), name) for rows in self._call(pipe.execute) for name, score in rows]
        found = sorted(set(found), reverse=True)
        if before_id:
            found = [row for row in found if row < (int(before_ms), before_id)]
        page = found[:limit]
        more = f"{page[-1][0]}:{page[-1][1]}" if len(found) > limit else None
        return Page([name for _, name in page], more)

    def count(self, status: RunStatus, workflow: str | None = None) -> int:
        parts = [self.keys.of_partition(number) for number in range(self.keys.partitions)]
        with self._client.pipeline(transaction=False) as pipe:
            for part in parts:
                pipe.zcard(part.index(status.value, workflow))
            return sum(self._call(pipe.execute))

    def status(self, transaction_id: str) -> RunStatus:
        """The status alone, for those who wait."""
        run = self.keys.of_run(transaction_id)
        status = self._call(lambda: self._client.hget(run.run, "status"))
        if status is None:
            raise WorkflowNotFoundError(transaction_id)
        return RunStatus(status)

    def wait_for_end(self, transaction_id: str, timeout: float | None) -> RunStatus:
        run = self.keys.of_run(transaction_id)
        give_up = None if timeout is None else time.monotonic() + timeout
        with self._client.pubsub(ignore_subscribe_messages=True) as channel:
            # A notification may be lost, never the state: it only wakes; the poll below is the net.
            self._call(lambda: channel.subscribe(run.channel))
            while True:
                status = self.status(transaction_id)
                if status.is_end:
                    return status
                left = 1.0 if give_up is None else min(1.0, give_up - time.monotonic())
                if left <= 0:
                    raise TimeoutError(
                        f"run {transaction_id!r} is still {status} after {timeout} s; it goes on: ask again with result(), "
                        f"or see describe()"
                    )
                try:
                    # The first message to arrive is the confirmation of the subscription, which reads as None.
                    deadline = time.monotonic() + left
                    while time.monotonic() < deadline:
                        if channel.get_message(timeout=max(0.0, deadline - time.monotonic())) is not None:
                            break
                except redis.exceptions.RedisError:
                    time.sleep(min(left, 0.2))

    # --- upkeep ------------------------------------------------------------------------------------------------------

    def forget(self, transaction_id: str) -> None:
        run = self.keys.of_run(transaction_id)
        workflow, status = self._call(lambda: self._client.hmget(run.run, ["workflow", "status"]))
        with self._client.pipeline(transaction=True) as pipe:
            pipe.delete(run.run, run.context, run.results, run.history)
            if workflow is not None and status is not None:
                pipe.zrem(run.index(status), transaction_id)
                pipe.zrem(run.index(status, workflow), transaction_id)
            pipe.zrem(run.due, f"x|{transaction_id}", f"r|{transaction_id}")
            self._call(pipe.execute)

    def bury(self, transaction_id: str, key: str, letter: Mapping[str, Any]) -> None:
        run = self.keys.of_run(transaction_id)
        self._call(lambda: self._client.hset(run.dead, key, dumps(dict(letter))))

    def dead_letters(self) -> dict[str, dict[str, Any]]:
        letters: dict[str, dict[str, Any]] = {}
        for number in range(self.keys.partitions):
            part = self.keys.of_partition(number)
            stored = self._call(lambda part=part: self._client.hgetall(part.dead))
            letters.update({key: json.loads(letter) for key, letter in stored.items()})
        return letters

    def unattended(self) -> list[str]:
        alone: list[str] = []
        for number in range(self.keys.partitions):
            part = self.keys.of_partition(number)
            for status in (RunStatus.RUNNING, RunStatus.COMPENSATING):
                index = part.index(status.value)
                names = self._call(lambda index=index: self._client.zrange(index, 0, -1))
                alone += [name for name in names if not self._is_attended(name)]
        return alone

    def _is_attended(self, transaction_id: str) -> bool:
        run = self.keys.of_run(transaction_id)
        try:
            snapshot = self.load(transaction_id)
        except WorkflowNotFoundError:
            return True
        if snapshot.state.status.is_end:
            return True
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zscore(run.due, f"r|{transaction_id}")
            for entry in snapshot.in_flight.values():
                member = f"a|{transaction_id}|{entry.step}|{entry.mark}"
                pipe.zscore(run.due, member)
                if entry.via is Via.PUSH:
                    pipe.zscore(run.sent(entry.target), member)
            found = [score is not None for score in self._call(pipe.execute)]
        declared = any(entry.via is Via.EXTERNAL and not entry.close_ms for entry in snapshot.in_flight.values())
        return any(found) or declared

    def check(self) -> list[str]:
        info = self._call(lambda: self._client.info())
        valkey = info.get("valkey_version")
        version = tuple(int(part) for part in str(valkey or info["redis_version"]).split(".")[:2])
        oldest = (7, 2) if valkey else (7, 0)
        if version < oldest:
            raise ConfigurationError(
                f"the state store at {_shown(self.url)} is {'Valkey' if valkey else 'Redis'} "
                f"{valkey or info['redis_version']}; expected Redis 7.0, Valkey 7.2, or newer: upgrade the server"
            )
        findings = []
        policy = info.get("maxmemory_policy")
        if policy not in (None, "noeviction"):
            findings.append(
                f"maxmemory-policy is {policy!r}: under memory pressure the server drops runs; expected 'noeviction': "
                f"set it with CONFIG SET maxmemory-policy noeviction and in the server's configuration"
            )
        if not int(info.get("aof_enabled", 1)):
            findings.append(
                "appendonly is 'no': a restart of the server loses what came after its last snapshot; expected 'yes': "
                "set it with CONFIG SET appendonly yes and in the server's configuration"
            )
        stored = self._call(lambda: self._client.hget(self.keys.of_partition(0).meta, "partitions"))
        if stored is None:
            meta = self.keys.of_partition(0).meta
            self._call(lambda: self._client.hsetnx(meta, "partitions", self.keys.partitions))
        elif int(stored) != self.keys.partitions:
            raise ConfigurationError(
                f"multiagents_partitions is {self.keys.partitions}, but the state store at {_shown(self.url)} was first "
                f"used with {stored}; runs would not be found: set it to {stored}, or use another multiagents_key_prefix"
            )
        return findings

    def for_sweep(self) -> RedisStateStore:
        """The same store with a client of its own that gives up at once: a slow call would hold up the worker."""
        client = redis.Redis.from_url(
            self.url,
            decode_responses=True,
            socket_timeout=1.0,
            socket_connect_timeout=1.0,
            retry=Retry(NoBackoff(), 0),
        )
        return RedisStateStore(self.url, keys=self.keys, lease=self.lease_ms / 1000, client=client)

    @property
    def client(self) -> redis.Redis:
        """The client underneath, for the event bus of the same server."""
        return self._client

    def close(self) -> None:
        self._client.close()


_OUTCOMES = {Progress.SUCCEEDED: "succeeded", Progress.UNKNOWN: "unknown", Progress.FAILED: "failed"}


def _due(member: str, seen_ms: int) -> Due:
    kind, transaction_id, *rest = member.split("|")
    step, mark = rest if rest else ("", "")
    return Due(kind, transaction_id, step, mark, member, seen_ms)


def _shown(url: str) -> str:
    """The URL without its password."""
    head, at, tail = url.rpartition("@")
    return f"{head.split('://')[0]}://***@{tail}" if at else url


def _mapped(error: redis.exceptions.RedisError, url: str) -> Exception:
    where = _shown(url)
    if isinstance(error, redis.exceptions.AuthenticationError):
        return ConfigurationError(f"the state store at {where} refused the password: {error}; check multiagents_redis_url")
    if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
        return StateStoreError(
            f"the state store at {where} does not answer: {error}; nothing was lost: start the server or check "
            f"multiagents_redis_url, and try again"
        )
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return StateStoreError(f"the state store at {where} is out of memory: {error}; raise maxmemory or free some")
    return StateStoreError(f"the state store at {where} refused a call: {error}")
