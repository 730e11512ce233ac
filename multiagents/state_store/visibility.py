"""The part of the port that only looks: runs found and counted, dead letters, tombstones, runs nothing looks after.

The engine decides nothing by it: what is seen may be some moments old, and a listing may miss what moves meanwhile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from multiagents.state_store.records import Page, Search
from multiagents.workflow.state import RunStatus


class Visibility(ABC):
    """What there is to see of all runs. Every method is safe to call from any thread."""

    @abstractmethod
    def list_runs(
        self,
        *,
        statuses: Sequence[RunStatus],
        workflow: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """The runs in these statuses, newest first."""

    @abstractmethod
    def search(self, search: Search) -> Page:
        """The runs with certain attributes; a page may be short, or empty, and not the last."""

    def count_found(self, search: Search) -> int:
        """How many runs a search finds; unless one index has the answer, all that it walks are looked at, in pages."""
        found, search = 0, search._replace(limit=1_000, cursor=None)
        while True:
            page = self.search(search)
            found += len(page.transaction_ids)
            if page.cursor is None:
                return found
            search = search._replace(cursor=page.cursor)

    @abstractmethod
    def versions(self, transaction_ids: Sequence[str]) -> dict[str, str]:
        """Run -> the version of its workflow, of those of these runs that there are, in one round trip."""

    @abstractmethod
    def count(self, status: RunStatus, workflow: str | None = None) -> int:
        """How many runs are in a status."""

    @abstractmethod
    def deleted(self, *, limit: int = 100, before_ms: int | None = None) -> list[tuple[int, str]]:
        """When runs were deleted (ms of the store's clock), and their tombstones, newest first."""

    @abstractmethod
    def dead_letters(self) -> dict[str, dict[str, Any]]:
        """What was buried and is not settled, by key: as it may be shown."""

    @abstractmethod
    def letters_of(self, transaction_id: str) -> list[str]:
        """The keys of all that was buried of runs with an id (`records.LetterKey`); it looks at all letters."""

    @abstractmethod
    def unattended(self) -> list[str]:
        """Runs that nothing looks after (guarantee G4 says that there are none)."""
