"""The world of the claims: the budgets and the till of an office. Its rules are those of `examples.world`."""

from __future__ import annotations

from typing import Any

from examples.world import World, add


class Office(World):
    """Budgets and a till."""

    file = "expense_approval.db"

    def hold(self, key: str, claim: str, amount: int) -> dict[str, Any]:
        """Set money of the budget aside, in cents."""
        with self.doing("budget", key, claim, amount) as (db, known):
            return known or add(db, "budget", key, claim, amount, {"held": amount})

    def pay(self, key: str, claim: str, amount: int) -> dict[str, Any]:
        """Pay out, in cents."""
        with self.doing("payment", key, claim, amount) as (db, known):
            return known or add(db, "payment", key, claim, amount, {"paid": amount})

    def pids(self, claim: str, call: str) -> list[int]:
        """The processes that made a call about a claim."""
        return [entry["pid"] for entry in self.journal_of(claim) if entry["call"] == call]
