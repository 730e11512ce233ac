"""The world of the batch: a warehouse that takes files in. Its rules are those of `examples.world`."""

from __future__ import annotations

import re
from typing import Any

from examples.world import RefusedError, UnavailableError, World, add

#: how often a file that somebody still writes is not to be had
LOCKED_FOR = 2


class BrokenFileError(RefusedError):
    """The file can never be read."""


class Warehouse(World):
    """Where the rows of the files go."""

    file = "batch_processing.db"

    def stage(self, key: str, batch: str, name: str) -> dict[str, Any]:
        """Copy a file to where it can be loaded from."""
        with self.doing("stage", key, batch) as (db, known):
            return known or add(db, "stage", key, batch, 0, {"staged": name})

    def load(self, key: str, batch: str, name: str) -> dict[str, Any]:
        """Take the rows of a file in.

        Raises:
            UnavailableError: while somebody still writes the file.
            BrokenFileError: when it can never be read.
        """
        with self.doing("load", key, batch, rows_in(name)) as (db, known):
            if "broken" in name:
                raise BrokenFileError(f"{name}, line 17: expected 5 columns, found 3")
            query = "SELECT count(*) FROM journal WHERE key = ? AND answer LIKE 'refused%'"
            if "locked" in name and db.execute(query, (key,)).fetchone()[0] < LOCKED_FOR:
                raise UnavailableError(f"{name} is still being written")
            return known or add(db, "load", key, batch, rows_in(name), {"file": name, "rows": rows_in(name)})

    def summarize(self, key: str, batch: str, rows: int, missing: int) -> dict[str, Any]:
        """Publish how many rows came in this night."""
        with self.doing("summary", key, batch, rows) as (db, known):
            return known or add(db, "summary", key, batch, rows, {"rows": rows, "missing": missing})


def rows_in(name: str) -> int:
    """How many rows a file has.

    >>> rows_in("orders-03.csv")
    103
    """
    found = re.search(r"\d+", name)
    return 100 + int(found[0] if found else 0)
