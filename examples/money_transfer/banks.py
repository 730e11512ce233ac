"""The world of the transfers: two banks, and the register that they report to, by the rules of `examples.world`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from examples.world import NoAnswerError, RefusedError, UnavailableError, World, add

#: account -> cents at first; those at the other bank begin with "O"
OPENING: Mapping[str, int] = {"H-ANN": 500_000, "O-BOB": 20_000, "O-SHOP": 0, "O-SLOW": 0}
#: an account that takes no money any more
CLOSED = "O-CLOSED"
#: an account whose bank does as it is told, and does not answer
SLOW = "O-SLOW"
#: the fact that says whether the register answers
REGISTER = "register"


class AccountClosedError(RefusedError):
    """The account takes no money."""


class InsufficientFundsError(RefusedError):
    """There is not enough money."""


class Banks(World):
    """Both banks and the register."""

    file = "money_transfer.db"

    def balances(self) -> dict[str, int]:
        """What is on each account, in cents: what was there, and what live effects moved."""
        balances = dict(OPENING)
        for effect in self.effects():
            if effect.status == "live" and effect.kind in ("debit", "credit"):
                balances[effect.detail["account"]] += effect.amount if effect.kind == "credit" else -effect.amount
        return balances

    def debit(self, key: str, transfer: str, account: str, amount: int) -> dict[str, Any]:
        """Take money from an account.

        Raises:
            InsufficientFundsError: when there is not enough.
        """
        if (left := self.balances()[account]) < amount:
            raise InsufficientFundsError(f"{account} has {left} cents, {amount} are asked for")
        with self.doing("debit", key, transfer, amount) as (db, known):
            return known or add(db, "debit", key, transfer, amount, {"account": account})

    def credit(self, key: str, transfer: str, account: str, amount: int) -> dict[str, Any]:
        """Give money to an account of the other bank. What has arrived there cannot be fetched back.

        Raises:
            AccountClosedError: when the account takes none.
            NoAnswerError: when it may have arrived, and nobody says so.
        """
        with self.doing("credit", key, transfer, amount) as (db, known):
            if account == CLOSED:
                raise AccountClosedError(f"{account} was closed by its owner")
            answer = known or add(db, "credit", key, transfer, amount, {"account": account})
        if account == SLOW:
            raise NoAnswerError("the other bank did not answer in time")
        return answer

    def report(self, key: str, transfer: str, amount: int) -> dict[str, Any]:
        """Report a transfer to the register, as the law wants it.

        Raises:
            UnavailableError: when the register is down.
        """
        down = self.fact(REGISTER) == "down"
        with self.doing("report", key, transfer, amount) as (db, known):
            if down:
                raise UnavailableError("the register answered 503")
            return known or add(db, "report", key, transfer, amount, {"report": f"RG-{transfer}"})
