"""Locks on business keys, and limits by key, in memory."""

from __future__ import annotations

from multiagents.names import Correlation
from multiagents.state_store.isolation import APART_MS, AWAY_MS, LOCK_CHECK_MS, Isolation, Lock, Slot
from multiagents.state_store.memory.tables import LimitRow, LockRow, Tables
from multiagents.state_store.records import DueKind


class InMemoryIsolation(Isolation):
    """Keep runs out of each other's way.

    Args:
        tables: what is kept.
        lease_ms: how long a slot is kept for an attempt that does not ask again.
    """

    def __init__(self, tables: Tables, lease_ms: int) -> None:
        self._tables = tables
        self._lease_ms = lease_ms

    def lock(self, key: str, holder: str, *, lease_ms: int = 0, asking_ms: int, over: int = 0) -> Lock:
        tables = self._tables
        with tables.lock:
            now = tables.now()
            row = tables.locks.setdefault(key, LockRow())
            free = not row.holder or row.token == over or 0 < row.until <= now
            if not free and row.holder == holder:
                row.until = max(row.until, now + lease_ms) if row.until and lease_ms else 0
                return Lock(True, row.token, holder)
            row.line[holder] = now + asking_ms
            row.line = {name: until for name, until in row.line.items() if until > now}
            place = list(row.line).index(holder)
            if not free or place:
                return Lock(False, 0 if free else row.token, "" if free else row.holder, place)
            tables.token += 1
            del row.line[holder]
            row.holder, row.token, row.until = holder, tables.token, lease_ms and now + lease_ms
            tables.due[DueKind.LOCK.entry(key)] = now + (lease_ms or LOCK_CHECK_MS)
            return Lock(True, row.token, holder)

    def unlock(self, key: str, token: int) -> bool:
        with self._tables.lock:
            row = self._tables.locks.get(key)
            if row is None or not row.holder or row.token != token:
                return False
            row.holder, row.token, row.until = "", 0, 0
            if not row.line:
                del self._tables.locks[key]
            self._tables.due.pop(DueKind.LOCK.entry(key), None)
            return True

    def lock_of(self, key: str) -> Lock | None:
        with self._tables.lock:
            row = self._tables.locks.get(key)
            return None if row is None or not row.holder else Lock(False, row.token, row.holder, until_ms=row.until)

    def take_slot(
        self,
        key: str,
        correlation: Correlation,
        *,
        concurrency: int = 0,
        every_us: int = 0,
        pause_ms: int = 0,
        keep: bool = False,
    ) -> Slot:
        holder = correlation.of_its_run
        with self._tables.lock:
            now, now_us = self._tables.now(), int(self._tables.clock() * 1_000_000)
            row = self._tables.limits.setdefault(key, LimitRow())
            row.slots = {name: until for name, until in row.slots.items() if until > now}
            if keep or holder in row.slots:
                row.slots[holder] = now + self._lease_ms
                return Slot(True)
            row.away = {name: at for name, at in row.away.items() if at > now and name != holder}
            wait = max(1, pause_ms) if concurrency and len(row.slots) >= concurrency else 0
            if every_us and row.next_us - every_us / 2 > now_us:
                wait = max(wait, -((now_us - row.next_us) // 1_000))
            if not wait:
                if concurrency:
                    row.slots[holder] = now + self._lease_ms
                if every_us:
                    row.next_us = max(row.next_us, now_us) + every_us
                return Slot(True)
            apart = max(-(-every_us // 1_000), APART_MS)
            at = min(max([now + wait, *(other + apart for other in row.away.values())]), now + AWAY_MS)
            row.away[holder] = at
            return Slot(False, at - now)

    def free_slot(self, key: str, correlation: Correlation) -> None:
        with self._tables.lock:
            row = self._tables.limits.get(key)
            if row is not None:
                row.slots.pop(correlation.of_its_run, None)
                if row == LimitRow():
                    del self._tables.limits[key]
