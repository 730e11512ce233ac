"""Looking at many runs in memory: each is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from multiagents.clock import to_ms
from multiagents.state_store.memory.tables import Tables
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.records import Delivery, DueKind, LetterKey, Page, Search, Snapshot
from multiagents.state_store.records.page import parse_cursor
from multiagents.state_store.visibility import Visibility
from multiagents.workflow.state import RunStatus


class InMemoryVisibility(Visibility):
    """See what there is of all runs.

    Args:
        tables: what is kept.
        policy: in what form data is stored.
        load: reads a run (`StateStore.load`).
    """

    def __init__(self, tables: Tables, policy: PayloadPolicy, load: Callable[[str], Snapshot]) -> None:
        self._tables = tables
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
        lowest = 0 if since is None else to_ms(since)
        after = parse_cursor(cursor)
        with self._tables.lock:
            found = [
                (row.started_ms, name)
                for status in statuses
                for name, row in self._tables.in_status(status.value, workflow).items()
                if row.started_ms >= lowest
            ]
        return Page.of(found, limit, after)

    def search(self, search: Search) -> Page:
        after = search.after
        with self._tables.lock:
            alive = [(name, row) for name in list(self._tables.rows) if (row := self._tables.row(name)) is not None]
            places = [search.place(name, row.fields) for name, row in alive]
        return search.page(place for place in places if place is not None and (after is None or place < after))

    def versions(self, transaction_ids: Sequence[str]) -> dict[str, str]:
        with self._tables.lock:
            rows = {name: self._tables.row(name) for name in transaction_ids}
            return {name: row.fields["version"] for name, row in rows.items() if row is not None}

    def count(self, status: RunStatus, workflow: str | None = None) -> int:
        with self._tables.lock:
            return len(self._tables.in_status(status.value, workflow))

    def deleted(self, *, limit: int = 100, before_ms: int | None = None) -> list[tuple[int, str]]:
        with self._tables.lock:
            rows = [row for row in self._tables.deleted if before_ms is None or row[0] < before_ms]
        return sorted(rows, reverse=True)[:limit]

    def dead_letters(self) -> dict[str, dict[str, Any]]:
        with self._tables.lock:
            return {key: self._policy.dead_letter_shown(letter) for key, letter in self._tables.dead.items()}

    def letters_of(self, transaction_id: str) -> list[str]:
        with self._tables.lock:
            return [key for key in self._tables.dead if LetterKey.parse(key).transaction_id == transaction_id]

    def unattended(self) -> list[str]:
        with self._tables.lock:
            alive = (RunStatus.RUNNING, RunStatus.COMPENSATING)
            names = [name for status in alive for name in self._tables.in_status(status.value, None)]
            return [name for name in names if not self._is_attended(name)]

    def _is_attended(self, transaction_id: str) -> bool:
        snapshot = self._load(transaction_id)
        identity = snapshot.state.identity
        if snapshot.awaits_others or DueKind.DECISION.entry(identity) in self._tables.due:
            return True
        for entry in snapshot.in_flight.values():
            member = entry.member(identity)
            if member in self._tables.due or (
                entry.delivery is Delivery.PUSH and member in self._tables.sent[entry.target]
            ):
                return True
        return False
