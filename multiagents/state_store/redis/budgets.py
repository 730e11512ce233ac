"""Budgets in Redis: one text an account, in a key of its own by day or month, or beside the run."""

from __future__ import annotations

from functools import partial
from typing import Any

from multiagents.failpoints import WriteSite
from multiagents.keys import Keys
from multiagents.names import Direction, parse_identity
from multiagents.state_store.budgets import Budgets
from multiagents.state_store.records import Account, Amount, Balance, Ledger, Reserved, ReserveVerdict
from multiagents.state_store.records.budget import FORGOTTEN_MS, RESERVED_MS
from multiagents.state_store.redis.script_server import ScriptServer

#: What the script says, in words.
_VERDICTS = (ReserveVerdict.GRANTED, ReserveVerdict.TAKEN, ReserveVerdict.SPENT, ReserveVerdict.GONE)


class RedisBudgets(Budgets):
    """Keep what is spent under keys.

    Args:
        server: runs the scripts.
        keys: the key names.
    """

    def __init__(self, server: ScriptServer, keys: Keys) -> None:
        self._server = server
        self._client: Any = server.client
        self._keys = keys

    def reserve(
        self,
        account: Account,
        call: str,
        owner: str,
        *,
        bound: Amount,
        limit: Amount,
        keep_ms: int,
        direction: Direction = Direction.DO,
    ) -> Reserved:
        until = account.ends_ms + keep_ms if account.ends_ms else 0
        args = [account.identity, account.field, call, owner, *bound, *limit, RESERVED_MS, FORGOTTEN_MS, until]
        site = WriteSite.BUDGET_RESERVE_UNDO if direction is Direction.UNDO else WriteSite.BUDGET_RESERVE
        verdict, now, *sums = self._server.run(site, "budget_reserve", self._keys_of(account), args)
        self._server.heard(now)
        return Reserved(_VERDICTS[verdict], Balance(Amount(*sums[:2]), Amount(*sums[2:])))

    def settle(
        self, account: Account, call: str, owner: str, used: Amount, direction: Direction = Direction.DO
    ) -> bool:
        site = WriteSite.BUDGET_SETTLE_UNDO if direction is Direction.UNDO else WriteSite.BUDGET_SETTLE
        args = [account.field, call, owner, *used]
        return bool(self._server.run(site, "budget_settle", self._keys_of(account)[:1], args)[0])

    def balance(self, account: Account) -> Balance:
        read = partial(self._client.hget, self._keys_of(account)[0], account.field)
        return Ledger.decode(self._server.call(read)).balance(self._server.now_ms())

    def _keys_of(self, account: Account) -> list[str]:
        if account.identity:
            run = self._keys.of_run(parse_identity(account.identity)[0])
            return [run.journal, run.run]
        return [self._keys.of_key(account.key).budget(account.key, account.period)]
