"""When a schedule ticks, and which of its ticks are due."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice

#: How many missed ticks one tick makes up for; the next goes on.
CATCH_UP = 100
#: How far back, step by step, the latest tick is looked for.
_LOOK_BACK = [
    timedelta(minutes=2),
    timedelta(hours=1),
    timedelta(days=1),
    timedelta(days=32),
    timedelta(days=1500),
]


class Ticks(ABC):
    """The moments at which a schedule starts a run; the same ones, whoever asks and whenever.

    Attributes:
        early: how long before its time a tick counts as come.
    """

    early: timedelta

    @abstractmethod
    def after(self, moment: datetime) -> datetime:
        """The first tick after a moment."""

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The ticks after a moment and not after another."""
        moment = self.after(after)
        while moment <= until:
            yield moment
            moment = self.after(moment)

    def latest(self, until: datetime) -> datetime | None:
        """The last tick that is not after a moment; None when there was none for years."""
        for span in _LOOK_BACK:
            found = None
            for found in self.between(until - span, until):  # noqa: B007 - the last one counts
                pass
            if found is not None:
                return found
        return None

    def due(self, last: datetime | None, until: datetime, *, catch_up: bool) -> list[datetime]:
        """The ticks that were not dealt with yet: the latest, or, to catch up, all since the last, so many at a time.

        Args:
            last: the last tick that was dealt with; None before the first.
            until: now.
            catch_up: whether those before the latest are due, too.
        """
        if catch_up and last is not None:
            return list(islice(self.between(last, until), CATCH_UP))
        latest = self.latest(until)
        return [] if latest is None or (last is not None and latest <= last) else [latest]
