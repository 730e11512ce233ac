"""The world of the subscriptions: access and a payment provider. Its rules are those of `examples.world`."""

from __future__ import annotations

from typing import Any

from examples.world import UnavailableError, World, add


class CardDeclinedError(UnavailableError):
    """The bank refused the charge now; in a few days it may not."""


class Provider(World):
    """Who lets customers in, and who charges their cards."""

    file = "subscription_billing.db"

    def let_in(self, key: str, customer: str) -> dict[str, Any]:
        """Give a customer access."""
        with self.doing("access", key, customer) as (db, known):
            return known or add(db, "access", key, customer, 0, {"access": key})

    def charge(self, key: str, customer: str, amount: int, token: str, month: int) -> dict[str, Any]:
        """Charge a card for a month, in cents. The token says how the bank behaves.

        ``tok_short`` is refused twice in the second month; ``tok_dead`` always from the second month on.

        Raises:
            CardDeclinedError: when the bank refuses.
        """
        with self.doing("charge", key, customer, amount) as (db, known):
            query = "SELECT count(*) FROM journal WHERE call = 'charge' AND key = ?"
            tries = int(db.execute(query, (key,)).fetchone()[0])
            if month > 1 and (token == "tok_dead" or (token == "tok_short" and month == 2 and tries < 2)):
                raise CardDeclinedError(f"the bank refused {amount} cents for month {month}")
            return known or add(db, "charge", key, customer, amount, {"charged": amount, "month": month})

    def refused(self, customer: str) -> int:
        """How often a customer's card was refused."""
        return sum(entry["answer"].startswith("refused") for entry in self.journal_of(customer))
