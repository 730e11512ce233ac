"""Looking at many runs in Redis: the indexes, the attributes, the dead letters, and who waits for whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from multiagents.clock import to_ms
from multiagents.exceptions import WorkflowNotFoundError
from multiagents.keys import Keys, PartitionKeys
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.records import Delivery, DueKind, LetterKey, Page, Place, Search, Snapshot
from multiagents.state_store.records.page import parse_cursor
from multiagents.state_store.redis.arguments import arguments_of_search
from multiagents.state_store.redis.script_server import ScriptServer
from multiagents.state_store.visibility import Visibility
from multiagents.workflow.state import RunStatus

#: How many dead letters one step of a look at their keys passes.
LETTERS_AT_ONCE = 1_000


class RedisVisibility(Visibility):
    """See what there is of all runs.

    Args:
        server: runs the scripts.
        keys: the key names.
        policy: in what form data is stored.
        load: reads a run (`StateStore.load`).
    """

    def __init__(
        self, server: ScriptServer, keys: Keys, policy: PayloadPolicy, load: Callable[[str], Snapshot]
    ) -> None:
        self._server = server
        self._client: Any = server.client
        self._keys = keys
        self._policy = policy
        self._load = load

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

    def search(self, search: Search) -> Page:
        """Ask the partitions one after the other, each with one script."""
        found: list[Place] = []
        looked_to: list[Place] = []
        for part in self._keys.of_each_partition():
            indexes = [part.by_attribute(one.name, one.kind, one.text) for one in search.walked]
            done, score, name, flat = self._server.run(None, "search", indexes, arguments_of_search(search, part.runs))
            if not done:
                looked_to.append((float(score), name))
            found += zip(map(float, flat[::2]), flat[1::2], strict=True)
        return search.page(found, looked_to)

    def count_found(self, search: Search) -> int:
        """Ask all partitions in one round trip where one index has the answer, else page by page."""
        if not search.is_bare:
            return super().count_found(search)
        [one] = search.conditions
        low, high = ("-inf" if one.low is None else one.low), ("+inf" if one.high is None else one.high)
        return sum(
            self._of_each_partition(
                lambda pipe, part: pipe.zcount(part.by_attribute(one.name, one.kind, one.text), low, high)
            )
        )

    def versions(self, transaction_ids: Sequence[str]) -> dict[str, str]:
        with self._client.pipeline(transaction=False) as pipe:
            for name in transaction_ids:
                pipe.hget(self._keys.of_run(name).run, "version")
            found = self._server.call(pipe.execute)
        return {name: version for name, version in zip(transaction_ids, found, strict=True) if version is not None}

    def count(self, status: RunStatus, workflow: str | None = None) -> int:
        return sum(self._of_each_partition(lambda pipe, part: pipe.zcard(part.index(status.value, workflow))))

    def deleted(self, *, limit: int = 100, before_ms: int | None = None) -> list[tuple[int, str]]:
        """Merge what the partitions have."""
        highest = "+inf" if before_ms is None else f"({before_ms}"
        found = self._of_each_partition(
            lambda pipe, part: pipe.zrevrangebyscore(part.deleted, highest, "-inf", start=0, num=limit, withscores=True)
        )
        rows = [(int(at), tombstone) for stones in found for tombstone, at in stones]
        return sorted(rows, reverse=True)[:limit]

    def dead_letters(self) -> dict[str, dict[str, Any]]:
        found = self._of_each_partition(lambda pipe, part: pipe.hgetall(part.dead))
        return {key: self._policy.dead_letter_shown(letter) for stored in found for key, letter in stored.items()}

    def letters_of(self, transaction_id: str) -> list[str]:
        dead = self._keys.of_run(transaction_id).dead
        found: list[str] = []
        cursor, begun = 0, False
        while cursor or not begun:
            begun = True
            cursor, letters = self._server.call(
                partial(self._client.hscan, dead, cursor, match=f"{transaction_id}*", count=LETTERS_AT_ONCE)
            )
            found += (key for key in letters if LetterKey.parse(key).transaction_id == transaction_id)
        return found

    def unattended(self) -> list[str]:
        alive = (RunStatus.RUNNING, RunStatus.COMPENSATING)
        found = self._of_each_partition(lambda pipe, part: [pipe.zrange(part.index(one), 0, -1) for one in alive])
        return [name for names in found for name in names if not self._is_attended(name)]

    def _is_attended(self, transaction_id: str) -> bool:
        run = self._keys.of_run(transaction_id)
        seen: Any = None
        # What moved on while we looked is not alone: look again at what has not. A claim does not change the version.
        while (snapshot := self._found(transaction_id)) is not None and (snapshot.version, snapshot.in_flight) != seen:
            seen = (snapshot.version, snapshot.in_flight)
            identity = snapshot.state.identity
            members = [entry.member(identity) for entry in snapshot.in_flight.values()]
            lists = {run.sent(entry.target) for entry in snapshot.in_flight.values() if entry.delivery is Delivery.PUSH}
            with self._client.pipeline(transaction=True) as pipe:
                for key in (run.due, *lists):
                    pipe.zmscore(key, [DueKind.DECISION.entry(identity), *members])
                scores = [score for found in self._server.call(pipe.execute) for score in found if score is not None]
            if scores or snapshot.state.status.is_end or snapshot.awaits_others:
                return True
        return snapshot is None

    def _found(self, transaction_id: str) -> Snapshot | None:
        try:
            return self._load(transaction_id)
        except WorkflowNotFoundError:
            return None

    def _of_each_partition(self, ask: Callable[[Any, PartitionKeys], Any]) -> list[Any]:
        """What all partitions answer, in one round trip."""
        with self._client.pipeline(transaction=False) as pipe:
            for part in self._keys.of_each_partition():
                ask(pipe, part)
            answers: list[Any] = self._server.call(pipe.execute)
        return answers
