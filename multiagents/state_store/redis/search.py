"""Finding runs in Redis by their attributes, and deleting them: what lies off a run's own way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from multiagents.failpoints import WriteSite
from multiagents.keys import Keys, PartitionKeys
from multiagents.state_store.base import MAX_DELETED, StateStore
from multiagents.state_store.records import Page, Search, Verdict
from multiagents.state_store.records.search_attributes import Place
from multiagents.state_store.redis.arguments import arguments_of_search
from multiagents.workflow.state.run_state import RunStatus

if TYPE_CHECKING:
    from multiagents.state_store.redis.script_server import ScriptServer

_VERDICTS = {1: Verdict.APPLIED, 0: Verdict.MISSING, -1: Verdict.CONFLICT}


class Finding(StateStore):
    """The part of the store on Redis that finds runs and deletes them."""

    keys: Keys
    _server: ScriptServer

    @abstractmethod
    def _of_each_partition(self, ask: Callable[[Any, PartitionKeys], Any]) -> list[Any]:
        """What all partitions answer, in one round trip."""

    def search(self, search: Search) -> Page:
        """Ask the partitions one after the other, each with one script."""
        found: list[Place] = []
        looked_to: list[Place] = []
        for part in map(self.keys.of_partition, range(self.keys.partitions)):
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

    def delete(
        self, transaction_id: str, *, status: RunStatus, tombstone: str, dead_letters: Sequence[str] = ()
    ) -> Verdict:
        """Erase the run by one script, which also knows a call that came twice."""
        run = self.keys.of_run(transaction_id)
        keys = [run.run, run.context, run.results, run.history, run.due, run.deleted, run.dead, run.blobs]
        args = [
            transaction_id,
            run.sent(""),
            run.indexes,
            run.attributes,
            status.value,
            tombstone,
            MAX_DELETED,
            *dead_letters,
        ]
        verdict = _VERDICTS[self._server.run(WriteSite.DELETE, "delete", keys, args)[0]]
        if verdict is Verdict.APPLIED:
            self.policy.forget(transaction_id)
        return verdict

    def deleted(self, *, limit: int = 100, before_ms: int | None = None) -> list[tuple[int, str]]:
        """Merge what the partitions have."""
        highest = "+inf" if before_ms is None else f"({before_ms}"
        found = self._of_each_partition(
            lambda pipe, part: pipe.zrevrangebyscore(part.deleted, highest, "-inf", start=0, num=limit, withscores=True)
        )
        rows = [(int(at), tombstone) for stones in found for tombstone, at in stones]
        return sorted(rows, reverse=True)[:limit]
