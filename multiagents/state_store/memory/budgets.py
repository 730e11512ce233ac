"""Budgets in memory: the same texts as on Redis."""

from __future__ import annotations

from collections.abc import MutableMapping

from multiagents.names import Direction
from multiagents.state_store.budgets import Budgets
from multiagents.state_store.memory.tables import Tables
from multiagents.state_store.records import Account, Amount, Balance, Ledger, Reserved, ReserveVerdict


class InMemoryBudgets(Budgets):
    """Keep what is spent under keys.

    Args:
        tables: what is kept.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def reserve(
        self,
        account: Account,
        call: str,
        owner: str,
        *,
        bound: Amount,
        limit: Amount,
        keep_ms: int,
        direction: Direction = Direction.DO,  # noqa: ARG002 - names a write of another store
    ) -> Reserved:
        with self._tables.lock:
            place = self._place(account, new=True)
            if place is None:
                return Reserved(ReserveVerdict.GONE)
            ledger = Ledger.decode(place.get(account.field))
            answer = ledger.reserve(call, owner, bound, limit, self._tables.now())
            place[account.field] = ledger.encode()
            if not account.identity:
                self._tables.budgets_until[account.key, account.period] = account.ends_ms + keep_ms
            return answer

    def settle(
        self,
        account: Account,
        call: str,
        owner: str,
        used: Amount,
        direction: Direction = Direction.DO,  # noqa: ARG002 - names a write of another store
    ) -> bool:
        with self._tables.lock:
            place = self._place(account)
            ledger = Ledger.decode(None if place is None else place.get(account.field))
            if place is None or not ledger.settle(call, owner, used):
                return False
            place[account.field] = ledger.encode()
            return True

    def balance(self, account: Account) -> Balance:
        with self._tables.lock:
            place = self._place(account)
            return Ledger.decode(None if place is None else place.get(account.field)).balance(self._tables.now())

    def _place(self, account: Account, *, new: bool = False) -> MutableMapping[str, str] | None:
        """Where an account lies; None: nowhere, or its run is not there."""
        tables = self._tables
        if account.identity:
            row = tables.run(account.identity)
            return None if row is None else row.journal
        now = tables.now()
        for name in [name for name, until in tables.budgets_until.items() if until <= now]:
            del tables.budgets[name], tables.budgets_until[name]
        name = (account.key, account.period)
        return tables.budgets.setdefault(name, {}) if new else tables.budgets.get(name)
