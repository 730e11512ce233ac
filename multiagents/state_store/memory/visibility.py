"""Looking at runs in memory, and what lies beside them: listings, letters, workers, schedules."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import from_json

from multiagents.clock import to_ms
from multiagents.exceptions import WorkflowNotFoundError
from multiagents.state_store.base import still_running
from multiagents.state_store.memory.isolation import Held
from multiagents.state_store.memory.tables import Row, Tables
from multiagents.state_store.payloads import dumps
from multiagents.state_store.records import Delivery, DueKind, Page, Search
from multiagents.state_store.records.page import parse_cursor
from multiagents.workflow.definition.definition import Definition
from multiagents.workflow.state.run_state import RunStatus


class Tabled(Held):
    """The part of the store in memory that needs no more than its tables."""

    _tables: Tables

    def definition(self, content_hash: str, transaction_id: str) -> Definition:  # noqa: ARG002 - there is one partition
        return self._definition(content_hash)

    @abstractmethod
    def _definition(self, content_hash: str) -> Definition:
        """What is kept under a hash, with the code of this process if it has it."""

    def _row(self, transaction_id: str) -> Row:
        row = self._tables.row(transaction_id)
        if row is None:
            raise WorkflowNotFoundError(transaction_id)
        return row

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

    def count(self, status: RunStatus, workflow: str | None = None) -> int:
        with self._tables.lock:
            return len(self._tables.in_status(status.value, workflow))

    def status(self, transaction_id: str) -> RunStatus:
        with self._tables.lock:
            return RunStatus(self._row(transaction_id).fields["status"])

    def wait_for_end(self, transaction_id: str, timeout: float | None) -> RunStatus:
        give_up = None if timeout is None else time.monotonic() + timeout
        with self._tables.lock:
            while not (status := RunStatus(self._row(transaction_id).fields["status"])).is_end:
                left = None if give_up is None else give_up - time.monotonic()
                if left is not None and left <= 0:
                    raise still_running(transaction_id, status, timeout)
                self._tables.ended.wait(left)
            return status

    def deleted(self, *, limit: int = 100, before_ms: int | None = None) -> list[tuple[int, str]]:
        with self._tables.lock:
            rows = [row for row in self._tables.deleted if before_ms is None or row[0] < before_ms]
        return sorted(rows, reverse=True)[:limit]

    def bury(self, transaction_id: str, key: str, letter: Mapping[str, Any]) -> None:  # noqa: ARG002 - as above
        noted = self.policy.text(dict(letter))
        with self._tables.lock:
            self._tables.dead[key] = noted

    def dead_letters(self) -> dict[str, dict[str, Any]]:
        with self._tables.lock:
            return {key: self.policy.dead_letter_shown(letter) for key, letter in self._tables.dead.items()}

    def dead_letter(self, transaction_id: str, key: str) -> dict[str, Any] | None:  # noqa: ARG002 - as above
        with self._tables.lock:
            found = self._tables.dead.get(key)
        return None if found is None else self.policy.dead_letter(found)

    def announce_workers(self, workers: Mapping[str, Mapping[str, Any]]) -> None:
        noted = {name: dumps(dict(facts)) for name, facts in workers.items()}
        with self._tables.lock:
            self._tables.workers |= noted

    def announced_workers(self) -> dict[str, dict[str, Any]]:
        with self._tables.lock:
            return {name: from_json(facts) for name, facts in self._tables.workers.items()}

    def schedule_state(self, name: str) -> tuple[int | None, str | None]:
        with self._tables.lock:
            return self._tables.ticked.get(name), self._tables.paused.get(name)

    def schedule_ticked(self, name: str, at_ms: int) -> bool:
        with self._tables.lock:
            if self._tables.ticked.get(name, -1) >= at_ms:
                return False
            self._tables.ticked[name] = at_ms
            return True

    def pause_schedule(self, name: str, note: str | None) -> None:
        with self._tables.lock:
            self._tables.paused.pop(name, None)
            if note is not None:
                self._tables.paused[name] = note

    def unattended(self) -> list[str]:
        with self._tables.lock:
            alive = (RunStatus.RUNNING, RunStatus.COMPENSATING)
            names = [name for status in alive for name in self._tables.in_status(status.value, None)]
            return [name for name in names if not self._is_attended(name)]

    def _is_attended(self, transaction_id: str) -> bool:
        snapshot = self.load(transaction_id)
        if snapshot.awaits_others or DueKind.DECISION.entry(transaction_id) in self._tables.due:
            return True
        for entry in snapshot.in_flight.values():
            member = entry.member(transaction_id)
            if member in self._tables.due or (
                entry.delivery is Delivery.PUSH and member in self._tables.sent[entry.target]
            ):
                return True
        return False
