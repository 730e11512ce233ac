"""An archive in the memory of this process: for tests."""

from __future__ import annotations

from collections.abc import Sequence


class InMemoryArchive:
    """Keep the older events of runs in this process.

    >>> archive = InMemoryArchive()
    >>> archive.append("order-1", 0, ["a", "b", "c"])
    >>> archive.append("order-1", 2, ["c", "d"])
    >>> archive.read("order-1", 1, 4)
    ['b', 'c', 'd']
    """

    def __init__(self) -> None:
        self._runs: dict[str, list[str]] = {}

    def append(self, transaction_id: str, first: int, records: Sequence[str]) -> None:
        """Keep events of a run."""
        self._runs[transaction_id] = [*self._runs.get(transaction_id, [])[:first], *records]

    def read(self, transaction_id: str, first: int, last: int) -> Sequence[str]:
        """Events of a run by number."""
        return self._runs.get(transaction_id, [])[first:last]
