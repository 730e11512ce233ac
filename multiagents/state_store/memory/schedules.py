"""How far schedules have come, in memory."""

from __future__ import annotations

from multiagents.state_store.memory.tables import Tables
from multiagents.state_store.schedules import AHEAD_MS, FORGOTTEN_AFTER_MS, Schedules


class InMemorySchedules(Schedules):
    """Keep the last tick of each schedule, and who paused it.

    Args:
        tables: what is kept.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def state(self, name: str) -> tuple[int | None, str | None]:
        with self._tables.lock:
            return self._tables.ticked.get(name), self._tables.paused.get(name)

    def ticked(self, name: str, at_ms: int) -> bool:
        with self._tables.lock:
            last = self._tables.ticked.get(name, -1)
            if at_ms <= last <= self._tables.now() + AHEAD_MS:
                return False
            ticked, oldest = self._tables.ticked, self._tables.now() - FORGOTTEN_AFTER_MS
            if name not in ticked:  # one comes, so others may go
                for gone in [
                    each for each, last in ticked.items() if last < oldest and each not in self._tables.paused
                ]:
                    del ticked[gone]
            ticked[name] = at_ms
            return True

    def pause(self, name: str, note: str | None) -> None:
        with self._tables.lock:
            self._tables.paused.pop(name, None)
            if note is not None:
                self._tables.paused[name] = note
