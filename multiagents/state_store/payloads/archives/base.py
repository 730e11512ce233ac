"""The port of an archive of histories.

Events are put into it before they leave the run's history, so nothing is ever in neither; and as they were stored: what
a codec has encrypted stays encrypted. An archive outlives the runs, and nothing here removes anything from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class HistoryArchive(Protocol):
    """Keep the older events of runs. Every call may come twice, and from any process.

    Whatever a method raises counts as the archive being away.
    """

    def append(self, transaction_id: str, first: int, records: Sequence[str]) -> None:
        """Keep events; when this returns, they are durable.

        Args:
            transaction_id: the run.
            first: the number of the first of these events in its run, from 0. What is there from this number on, from a
                move that was not finished or from an earlier run of this id, is replaced.
            records: the events as the store had them.
        """

    def read(self, transaction_id: str, first: int, last: int) -> Sequence[str]:
        """The events from number ``first`` up to, and without, ``last``; fewer where they are not there."""
