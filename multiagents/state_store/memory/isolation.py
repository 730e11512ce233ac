"""Locks on business keys, and limits by key, in memory."""

from __future__ import annotations

from multiagents.names import Correlation
from multiagents.state_store.isolation import APART_MS, AWAY_MS, LINE_MS, LOCK_CHECK_MS, Isolation, Lock, Slot
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
            free = not row.holder or row.token == over or (0 < row.until <= now and tables.is_calm())
            if not free and row.holder == holder:
                row.until = max(row.until, now + lease_ms) if row.until and lease_ms else 0
                return Lock(True, row.token, holder)
            row.line[holder] = now + asking_ms
            row.line = {name: until for name, until in row.line.items() if until > now}
            place = list(row.line).index(holder)
            if free and place:  # none counts as waiting for so long, but by a clock that has been set back since
                row.line = {each: now + asking_ms if at > now + LINE_MS else at for each, at in row.line.items()}
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
        call: str = "",
        weight: int = 1,
    ) -> Slot:
        holder, interval = _holder(correlation, call), every_us * weight
        with self._tables.lock:
            now, now_us = self._tables.now(), int(self._tables.clock() * 1_000_000)
            row = self._tables.limits.setdefault(key, LimitRow())
            if keep or holder in row.slots:
                row.slots[holder] = now + self._lease_ms
                return Slot(True)
            row.away = {name: at for name, at in row.away.items() if at > now and name != holder}
            if concurrency and len(row.slots) >= concurrency:
                row.slots = self._kept(row.slots, now)
            wait = max(1, pause_ms) if concurrency and len(row.slots) >= concurrency else 0
            if row.next_us > now_us + 2 * (row.every_us or interval):  # by a clock that has been set back since
                row.next_us = now_us + (row.every_us or interval)
            if every_us and row.next_us - every_us / 2 > now_us:
                wait = max(wait, -((now_us - row.next_us) // 1_000))
            if not wait:
                if concurrency or call:
                    row.slots[holder] = now + self._lease_ms
                if every_us:
                    row.next_us, row.every_us = max(row.next_us, now_us) + interval, interval
                return Slot(True)
            row.away = {name: at for name, at in row.away.items() if at <= now + AWAY_MS}
            apart = max(-(-interval // 1_000), APART_MS)
            at = min(max([now + wait, *(other + apart for other in row.away.values())]), now + AWAY_MS)
            row.away[holder] = at
            return Slot(False, at - now)

    def _kept(self, slots: dict[str, float], now: int) -> dict[str, float]:
        """The slots that have not run out; those of the living are kept once for as long as leases are extended."""
        if not self._tables.is_calm():
            return slots
        extended = self._tables.grace_ms if self._tables.grace_ms > now else 0
        kept = {name: min(until, now + self._lease_ms) for name, until in slots.items() if until > now}
        return kept | {
            name: extended + 0.5 for name, until in slots.items() if until <= now and extended and until % 1 == 0
        }

    def free_slot(self, key: str, correlation: Correlation, *, call: str = "", later_us: int = 0) -> None:
        with self._tables.lock:
            row = self._tables.limits.get(key)
            if row is None or row.slots.pop(_holder(correlation, call), None) is None:
                return
            if later_us:
                row.next_us = max(0, (row.next_us or int(self._tables.clock() * 1_000_000)) + later_us)
                row.every_us += max(later_us, 0)
            if row == LimitRow():
                del self._tables.limits[key]


def _holder(correlation: Correlation, call: str) -> str:
    return f"{correlation.of_its_run}/{call}" if call else correlation.of_its_run
