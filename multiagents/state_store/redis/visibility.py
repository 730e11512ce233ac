"""Looking at runs in Redis, and at what lies beside them: data, histories, listings, letters, who waits for whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from pydantic_core import from_json

from multiagents.clock import to_ms
from multiagents.events import Event
from multiagents.exceptions import WorkflowNotFoundError
from multiagents.failpoints import WriteSite, write
from multiagents.keys import PartitionKeys, RunKeys
from multiagents.state_store.base import still_running
from multiagents.state_store.payloads import Payloads, Reading, dumps
from multiagents.state_store.payloads.history_codec import unpack
from multiagents.state_store.records import Delivery, DueKind, Page, Snapshot
from multiagents.state_store.records.page import parse_cursor
from multiagents.state_store.redis.schedules import Ticking
from multiagents.state_store.redis.search import Finding
from multiagents.workflow.state.run_state import RunStatus


class Looking(Finding, Ticking):
    """The part of the store on Redis that reads."""

    _client: Any

    def _reading(self, transaction_id: str, run: RunKeys) -> Reading:
        """Opens what is stored of a run."""

        def fetch(names: Sequence[str]) -> Mapping[str, str]:
            found = self._server.call(lambda: self._client.hmget(run.blobs, list(names)))
            return {name: text for name, text in zip(names, found, strict=True) if text is not None}

        return Reading(self.policy, transaction_id, fetch)

    def payloads(self, transaction_id: str) -> Payloads:
        run = self.keys.of_run(transaction_id)
        with self._client.pipeline(transaction=True) as pipe:
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
            with self._client.pipeline(transaction=True) as pipe:
                pipe.hget(run.run, "archived")
                pipe.lrange(run.history, max(0, after - known), -1)
                found, records = self._server.call(pipe.execute)
            dropped = int(found or 0)
        if after < dropped:
            records = [*self.policy.from_archive(transaction_id, after, dropped), *records]
        return [unpack(transaction_id, self.policy.open(record)) for record in records]

    def archive(self, transaction_id: str, keep: int = 1) -> int:
        put = self.policy.to_archive()
        run = self.keys.of_run(transaction_id)
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hmget(run.run, ["v", "archived"])
            pipe.lrange(run.history, 0, -max(keep, 1) - 1)
            (version, dropped), records = self._server.call(pipe.execute)
        if version is None:
            raise WorkflowNotFoundError(transaction_id)
        first = int(dropped or 0)
        if records:
            put(transaction_id, first, records)
            keys = [run.run, run.history]
            self._server.run(WriteSite.TRIM_HISTORY, "archive", keys, [first, len(records)])
        return len(records)

    def list_runs(
        self,
        *,
        statuses: Sequence[RunStatus],
        workflow: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        lowest = "-inf" if since is None else str(to_ms(since))
        after = parse_cursor(cursor)

        def ask(pipe: Any, part: PartitionKeys) -> None:
            for status in statuses:
                index = part.index(status.value, workflow)
                highest = "+inf"
                if after is not None:
                    highest = f"({after[0]}"
                    if since is None or int(lowest) <= after[0]:
                        # Within the cursor's own millisecond the index says nothing about what was seen: all of it.
                        pipe.zrevrangebyscore(index, after[0], after[0], withscores=True)
                pipe.zrevrangebyscore(index, highest, lowest, start=0, num=limit + 1, withscores=True)

        rows = [row for found in self._of_each_partition(ask) for row in found]
        return Page.of(((int(started), name) for name, started in rows), limit, after)

    def count(self, status: RunStatus, workflow: str | None = None) -> int:
        return sum(self._of_each_partition(lambda pipe, part: pipe.zcard(part.index(status.value, workflow))))

    def status(self, transaction_id: str) -> RunStatus:
        run = self.keys.of_run(transaction_id)
        status = self._server.call(lambda: self._client.hget(run.run, "status"))
        if status is None:
            raise WorkflowNotFoundError(transaction_id)
        return RunStatus(status)

    def wait_for_end(self, transaction_id: str, timeout: float | None) -> RunStatus:
        run = self.keys.of_run(transaction_id)
        give_up = None if timeout is None else time.monotonic() + timeout
        with self._server.listen(run.channel) as wait:
            # A notification may be lost, never the state: it only wakes.
            while not (status := self.status(transaction_id)).is_end:
                left = 1.0 if give_up is None else min(1.0, give_up - time.monotonic())
                if left <= 0:
                    raise still_running(transaction_id, status, timeout)
                wait(left)
            return status

    def _of_each_partition(self, ask: Callable[[Any, PartitionKeys], Any]) -> list[Any]:
        """What all partitions answer, in one round trip."""
        with self._client.pipeline(transaction=False) as pipe:
            for number in range(self.keys.partitions):
                ask(pipe, self.keys.of_partition(number))
            answers: list[Any] = self._server.call(pipe.execute)
        return answers

    def dead_letters(self) -> dict[str, dict[str, Any]]:
        found = self._of_each_partition(lambda pipe, part: pipe.hgetall(part.dead))
        return {key: self.policy.dead_letter_shown(letter) for stored in found for key, letter in stored.items()}

    def dead_letter(self, transaction_id: str, key: str) -> dict[str, Any] | None:
        run = self.keys.of_run(transaction_id)
        found = self._server.call(lambda: self._client.hget(run.dead, key))
        return None if found is None else self.policy.dead_letter(found)

    def announce_workers(self, workers: Mapping[str, Mapping[str, Any]]) -> None:
        if workers:
            noted: Any = {name: dumps(dict(facts)) for name, facts in workers.items()}
            note = partial(self._client.hset, self.keys.of_partition(0).workers, mapping=noted)
            self._server.call(lambda: write(WriteSite.ANNOUNCE, note))

    def announced_workers(self) -> dict[str, dict[str, Any]]:
        noted = self._server.call(partial(self._client.hgetall, self.keys.of_partition(0).workers))
        return {name: from_json(facts) for name, facts in noted.items()}

    def unattended(self) -> list[str]:
        alive = (RunStatus.RUNNING, RunStatus.COMPENSATING)
        found = self._of_each_partition(lambda pipe, part: [pipe.zrange(part.index(one), 0, -1) for one in alive])
        return [name for names in found for name in names if not self._is_attended(name)]

    def _is_attended(self, transaction_id: str) -> bool:
        run = self.keys.of_run(transaction_id)
        seen: Any = None
        # What moved on while we looked is not alone: look again at what has not. A claim does not change the version.
        while (snapshot := self._found(transaction_id)) is not None and (snapshot.version, snapshot.in_flight) != seen:
            seen = (snapshot.version, snapshot.in_flight)
            members = [entry.member(transaction_id) for entry in snapshot.in_flight.values()]
            lists = {run.sent(entry.target) for entry in snapshot.in_flight.values() if entry.delivery is Delivery.PUSH}
            with self._client.pipeline(transaction=True) as pipe:
                for key in (run.due, *lists):
                    pipe.zmscore(key, [DueKind.DECISION.entry(transaction_id), *members])
                scores = [score for found in self._server.call(pipe.execute) for score in found if score is not None]
            if scores or snapshot.state.status.is_end or snapshot.awaits_others:
                return True
        return snapshot is None

    def _found(self, transaction_id: str) -> Snapshot | None:
        try:
            return self.load(transaction_id)
        except WorkflowNotFoundError:
            return None
