"""The world of the trips: an airline, a hotel, a car rental and a bank. Its rules are those of `examples.world`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from examples.world import NoAnswerError, RefusedError, World, add

#: what is fully booked, and where
FULL: Mapping[str, str] = {"car": "Reykjavik"}
#: who books what he is asked for and then does not answer, and where
SILENT: Mapping[str, str] = {"car": "Oslo"}


class FullyBookedError(RefusedError):
    """There is none left."""


class CardDeclinedError(RefusedError):
    """The bank refused the charge."""


class Agency(World):
    """Everybody whom a trip needs."""

    file = "trip_booking.db"

    def book(self, kind: str, key: str, trip: str, where: str) -> dict[str, Any]:
        """Book a flight, a hotel or a car.

        Raises:
            FullyBookedError: when there is none left.
            NoAnswerError: when it may have been booked, and nobody says so.
        """
        with self.doing(kind, key, trip) as (db, known):
            if FULL.get(kind) == where:
                raise FullyBookedError(f"no {kind} is left in {where}")
            answer = known or add(db, kind, key, trip, 0, {f"{kind}_code": f"{kind[:2].upper()}-{trip}"})
        if SILENT.get(kind) == where:
            raise NoAnswerError(f"the {kind} people in {where} did not answer in time")
        return answer

    def charge(self, key: str, trip: str, amount: int, token: str) -> dict[str, Any]:
        """Charge a card, in cents.

        Raises:
            CardDeclinedError: when the bank refuses.
        """
        with self.doing("payment", key, trip, amount) as (db, known):
            if token == "tok_declined":
                raise CardDeclinedError(f"the bank refused {amount} cents: insufficient funds")
            return known or add(db, "payment", key, trip, amount, {"charged": amount})
