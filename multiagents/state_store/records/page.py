"""A page of a listing, and the cursor from which the next one goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from multiagents.exceptions import WorkflowError

#: Where a page ended: when the last run of it started (ms), and its id.
Cursor = tuple[int, str]


class Page(NamedTuple):
    """A page of a listing; ``cursor`` is None on the last one."""

    transaction_ids: list[str]
    cursor: str | None

    @classmethod
    def of(cls, found: Iterable[Cursor], limit: int, after: Cursor | None) -> Page:
        """The runs that come next, newest first.

        Args:
            found: at least the first ``limit + 1`` that come after the cursor, in any order.
            limit: how many at most.
            after: the last one of the page before.
        """
        rows = sorted({row for row in found if after is None or row < after}, reverse=True)
        page = rows[:limit]
        more = f"{page[-1][0]}:{page[-1][1]}" if page and len(rows) > limit else None
        return cls([name for _, name in page], more)


def parse_cursor(cursor: str | None) -> Cursor | None:
    """The inverse of `Page.cursor`.

    Raises:
        WorkflowError: when it is none.
    """
    if not cursor:
        return None
    started, _, name = cursor.partition(":")
    if not (started.isdigit() and name):
        raise WorkflowError(f"cursor {cursor!r} was not understood; give the cursor of the page before, unchanged")
    return int(started), name
