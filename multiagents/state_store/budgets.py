"""The part of the port that keeps budgets: what may be spent under a key, and what was.

A budget of a day or a month lies in the partition of its *key*, because runs of all partitions share it. So it is no
part of a run's commit, and has to hold without one:

1. What a call may cost at most is set aside *before* it is made, and what it has cost is put in its place after it. So
   those who spend at the same time never spend more together than the limit.
2. Both are safe to send twice, by the call and by who makes it.
3. Of a call whose maker died nobody knows whether it was paid: what was set aside counts as spent, at once if the call
   is made again, and else after `records.budget.RESERVED_MS`.
4. An account goes by itself, some time after its period; that of a run, or of a step, with the run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from multiagents.names import Direction
from multiagents.state_store.records import Account, Amount, Balance, Reserved


class Budgets(ABC):
    """What is spent under keys. Every method is safe to call again, and safe to call from any thread."""

    @abstractmethod
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
        """Set aside what a call may cost at most, unless the account has too little left. One round trip.

        Args:
            account: where.
            call: the call; one for which something is set aside already gets nothing more.
            owner: who makes it: another one makes it again, and what the one before had set aside counts as spent.
            bound: what it costs at most.
            limit: what may be spent; 0 is without limit.
            keep_ms: how long the account is kept after its period.
            direction: whether the step that makes it is being done or undone.
        """

    @abstractmethod
    def settle(
        self, account: Account, call: str, owner: str, used: Amount, direction: Direction = Direction.DO
    ) -> bool:
        """Put what a call has cost in the place of what was set aside for it. One round trip.

        Args:
            account: where.
            call: the call.
            owner: who made it.
            used: what it has cost; nothing gives all of it back.
            direction: whether the step that made it is being done or undone.

        Returns:
            whether something was set aside for it.
        """

    @abstractmethod
    def balance(self, account: Account) -> Balance:
        """How it stands with an account; with one that is not there, that nothing was spent."""
