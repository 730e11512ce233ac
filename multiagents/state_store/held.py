"""Locks on business keys, in memory."""

from __future__ import annotations

from multiagents.state_store.base import StateStore
from multiagents.state_store.isolation import LOCK_CHECK_MS, Lock
from multiagents.state_store.tables import Lock as Row
from multiagents.state_store.tables import Tables


class Held(StateStore):
    """The part of the store in memory that keeps runs out of each other's way."""

    _tables: Tables

    def lock(self, key: str, holder: str, *, lease_ms: int = 0, asking_ms: int, over: int = 0) -> Lock:
        tables = self._tables
        with tables.lock:
            now = tables.now()
            row = tables.locks.setdefault(key, Row())
            free = not row.holder or row.token == over or 0 < row.until <= now
            if not free and row.holder == holder:
                row.until = max(row.until, now + lease_ms) if row.until and lease_ms else 0
                return Lock(True, row.token, holder)
            came = row.line[holder][0] if holder in row.line else now
            row.line[holder] = (came, now + asking_ms)
            row.line = {name: times for name, times in row.line.items() if times[1] > now}
            in_turn = sorted(row.line, key=lambda name: (row.line[name][0], name))
            place = in_turn.index(holder)
            if not free or place:
                return Lock(False, 0 if free else row.token, "" if free else row.holder, place)
            tables.token += 1
            del row.line[holder]
            row.holder, row.token, row.until = holder, tables.token, lease_ms and now + lease_ms
            tables.due[f"k|{key}"] = now + (lease_ms or LOCK_CHECK_MS)
            return Lock(True, row.token, holder)

    def unlock(self, key: str, token: int) -> bool:
        with self._tables.lock:
            row = self._tables.locks.get(key)
            if row is None or not row.holder or row.token != token:
                return False
            row.holder, row.token, row.until = "", 0, 0
            if not row.line:
                del self._tables.locks[key]
            self._tables.due.pop(f"k|{key}", None)
            return True

    def lock_of(self, key: str) -> Lock | None:
        with self._tables.lock:
            row = self._tables.locks.get(key)
            return None if row is None or not row.holder else Lock(False, row.token, row.holder, until_ms=row.until)
