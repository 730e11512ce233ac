"""The values of budgets: what may be spent under a key in a time, what was, and what is set aside for calls."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Self

from multiagents.clock import to_ms
from multiagents.names import Correlation
from multiagents.plain_json import dumps

#: After so many ms what was set aside counts as spent: whoever made the call would have said by now what it has cost.
RESERVED_MS = 600_000
#: What was set aside so long ago (ms) is not told apart from what was spent any more.
FORGOTTEN_MS = 86_400_000


class Per(StrEnum):
    """For what a budget is, each time anew."""

    #: one call of a model
    CALL = "call"
    #: a step, all attempts together
    STEP = "step"
    #: a run
    RUN = "run"
    #: a day, in UTC
    DAY = "day"
    #: a month, in UTC
    MONTH = "month"


class Amount(NamedTuple):
    """Millionths of a US dollar, and tokens."""

    micro_usd: int = 0
    tokens: int = 0

    @property
    def usd(self) -> float:
        """The dollars."""
        return self.micro_usd / 1_000_000

    def plus(self, other: Amount) -> Amount:
        """Both together."""
        return Amount(self.micro_usd + other.micro_usd, self.tokens + other.tokens)

    def within(self, limit: Amount) -> bool:
        """Whether it is no more than a limit, of which 0 is none."""
        return all(not most or one <= most for one, most in zip(self, limit, strict=True))


_NOTHING = Amount()


class Account(NamedTuple):
    """Where is written what is spent of a budget.

    Attributes:
        key: what has it.
        period: the day or the month; empty: the run, or one step of it.
        ends_ms: when that is over, by the store's clock; 0 goes with the run.
        identity: the run whose own it is, as `multiagents.names.identity_of` writes it; empty: all runs share it.
        place: the step and its direction, of a step's own.
    """

    key: str
    period: str = ""
    ends_ms: int = 0
    identity: str = ""
    place: str = "|r"

    @property
    def field(self) -> str:
        """Under which name it is written."""
        return f"b|{self.place}|{self.key}" if self.identity else "b"


def account_of(key: str, per: Per, now: datetime, correlation: Correlation | None = None) -> Account:
    """The account of a key at a time.

    Args:
        key: what has the budget.
        per: for what the budget is.
        now: by the store's clock.
        correlation: the attempt that wants to spend; for a run or a step.

    >>> account_of("tenant:acme", Per.MONTH, datetime(2026, 12, 31, 23, 59, tzinfo=UTC)).period
    '2026-12'
    """
    if correlation is not None and per in (Per.STEP, Per.RUN):
        place = f"{correlation.step}|{correlation.direction.value[0]}" if per is Per.STEP else "|r"
        return Account(key, identity=correlation.identity, place=place)
    begun = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if per is Per.DAY:
        return Account(key, begun.date().isoformat(), to_ms(begun + timedelta(days=1)))
    begun = begun.replace(day=1)
    after = (begun + timedelta(days=32)).replace(day=1)
    return Account(key, f"{begun:%Y-%m}", to_ms(after))


class ReserveVerdict(StrEnum):
    """What whoever wants to spend is told."""

    #: it is set aside: make the call
    GRANTED = "granted"
    #: there is not enough left while calls of others are under way: ask again
    TAKEN = "taken"
    #: there is not enough left
    SPENT = "spent"
    #: the run whose own the account is is not there any more
    GONE = "gone"


class Balance(NamedTuple):
    """How it stands with an account.

    Attributes:
        spent: what calls have cost, those among it of which nobody knows whether they were paid.
        reserved: what is set aside for calls under way.
    """

    spent: Amount = Amount()
    reserved: Amount = Amount()


class Reserved(NamedTuple):
    """The answer to who wants to spend; the balance is that after it."""

    verdict: ReserveVerdict
    balance: Balance = Balance()


class Reservation(NamedTuple):
    """What is set aside for a call: by whom, how much, and when (ms)."""

    owner: str
    micro_usd: int
    tokens: int
    at: int

    @property
    def amount(self) -> Amount:
        """How much."""
        return Amount(self.micro_usd, self.tokens)


@dataclass
class Ledger:
    """An account as it is stored, the same in every store; the scripts know its form, too."""

    spent: Amount = _NOTHING
    held: dict[str, Reservation] = field(default_factory=dict)

    @classmethod
    def decode(cls, text: str | None) -> Self:
        """Read the stored form."""
        if text is None:
            return cls()
        kept = json.loads(text)
        return cls(Amount(*kept["spent"]), {call: Reservation(*each) for call, each in kept["held"].items()})

    def encode(self) -> str:
        """The stored form."""
        return dumps({"spent": list(self.spent), "held": {call: list(each) for call, each in self.held.items()}})

    def balance(self, now_ms: int) -> Balance:
        """How it stands at a time."""
        spent, reserved = self.spent, Amount()
        for each in self.held.values():
            if now_ms - each.at >= RESERVED_MS:
                spent = spent.plus(each.amount)
            else:
                reserved = reserved.plus(each.amount)
        return Balance(spent, reserved)

    def reserve(self, call: str, owner: str, bound: Amount, limit: Amount, now_ms: int) -> Reserved:
        """Set aside what a call may cost, unless there is too little left."""
        for name, each in list(self.held.items()):
            # Who made the same call before is gone, and what was long ago set aside will not be told any more.
            if (name == call and each.owner != owner) or now_ms - each.at >= FORGOTTEN_MS:
                self.spent = self.spent.plus(each.amount)
                del self.held[name]
        before = self.balance(now_ms)
        if call in self.held:
            return Reserved(ReserveVerdict.GRANTED, before)
        if not before.spent.plus(bound).within(limit):
            return Reserved(ReserveVerdict.SPENT, before)
        if not before.spent.plus(before.reserved).plus(bound).within(limit):
            return Reserved(ReserveVerdict.TAKEN, before)
        self.held[call] = Reservation(owner, *bound, now_ms)
        return Reserved(ReserveVerdict.GRANTED, self.balance(now_ms))

    def settle(self, call: str, owner: str, used: Amount) -> bool:
        """Put what a call has cost in the place of what was set aside for it, if something was."""
        each = self.held.get(call)
        if each is None or each.owner != owner:
            return False
        del self.held[call]
        self.spent = self.spent.plus(used)
        return True
