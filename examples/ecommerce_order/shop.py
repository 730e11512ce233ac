"""The outside world of the example: a shop's stock, its payment provider, its carrier and its mail, in one SQLite file.

The rules that make its effects safe to ask for again are those of `examples.world`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from examples.world import NoAnswerError, RefusedError, UnavailableError, World, add

#: Where workers find the shop's database; the default is for a worker started by hand in the project's folder.
DATABASE = "SHOP_DB"
#: The world's own slowness: 1 is that of the demo, 0 is none.
PACE = "SHOP_PACE"

#: product -> name, cents a piece, pieces in stock when the shop opens
CATALOGUE: Mapping[str, tuple[str, int, int]] = {
    "TEA-EARL-GREY": ("Earl Grey, 100 g", 890, 60),
    "MUG-BLUE": ("Blue mug", 1250, 50),
    "KETTLE-1L": ("Kettle, 1 l", 4990, 20),
    "BOOK-SAGAS": ("Sagas, a reader", 2995, 40),
    "LAMP-DESK": ("Desk lamp", 3900, 15),
    "PEN-SET": ("Pen set", 1575, 60),
    "NOTEBOOK-A5": ("Notebook A5", 650, 120),
    "HEADPHONES": ("Headphones", 12900, 12),
    "CHAIR-OAK": ("Oak chair", 18900, 10),
    "TURNTABLE": ("Turntable", 24900, 1),
    "POSTER-GOLD": ("Gold poster", 1900, 0),
}

_TABLES = """
CREATE TABLE IF NOT EXISTS stock (
    product TEXT PRIMARY KEY, opening INTEGER NOT NULL, pieces INTEGER NOT NULL CHECK (pieces >= 0));
CREATE TABLE IF NOT EXISTS reserved (
    key TEXT NOT NULL, product TEXT NOT NULL, pieces INTEGER NOT NULL, shipped INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS work (
    n INTEGER PRIMARY KEY, key TEXT NOT NULL, order_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    pid INTEGER NOT NULL, started_at REAL NOT NULL, finished_at REAL);
"""


class CardDeclinedError(RefusedError):
    """The bank refused the charge."""


class OutOfStockError(RefusedError):
    """There are not enough pieces."""


class AddressNotServedError(RefusedError):
    """The carrier does not deliver there."""


class MailBouncedError(RefusedError):
    """Nobody reads mail at that address."""


class GatewayUnavailableError(UnavailableError):
    """The payment provider is down; nothing was charged, and trying again may help."""


@dataclass(frozen=True)
class Work:
    """A process that is busy with a payment, as it wrote down when it began."""

    n: int
    key: str
    order_id: str
    attempt: int
    pid: int


class Shop(World):
    """One shop; the opening stock is there when its file is new."""

    tables = _TABLES

    @classmethod
    def from_environment(cls) -> Self:
        """The shop that ``SHOP_DB`` names, else ``.multiagents/shop.db``."""
        return cls(os.environ.get(DATABASE, ".multiagents/shop.db"), float(os.environ.get(PACE, "1")))

    def open(self, db: sqlite3.Connection) -> None:
        """Fill the shelves."""
        opening = [(product, pieces, pieces) for product, (_, _, pieces) in CATALOGUE.items()]
        db.executemany("INSERT OR IGNORE INTO stock VALUES (?, ?, ?)", opening)

    # -- stock ---------------------------------------------------------------------------------------------------------

    def reserve(self, key: str, order_id: str, pieces: Mapping[str, int]) -> dict[str, Any]:
        """Set pieces aside for an order: all of them or none.

        Raises:
            OutOfStockError: when there are not enough pieces of a product.
        """
        with self.doing("reserve", key, order_id) as (db, known):
            if known:
                return known
            for product, wanted in sorted(pieces.items()):
                row = db.execute("SELECT pieces FROM stock WHERE product = ?", (product,)).fetchone()
                left = row["pieces"] if row else 0
                if left < wanted:
                    raise OutOfStockError(f"{wanted} x {product} were ordered, {left} are left")
                db.execute("UPDATE stock SET pieces = pieces - ? WHERE product = ?", (wanted, product))
                db.execute("INSERT INTO reserved VALUES (?, ?, ?, 0)", (key, product, wanted))
            return add(db, "reserve", key, order_id, 0, {"reservation": key, "pieces": sum(pieces.values())})

    def release(self, key: str, order_id: str, of: str) -> bool:
        """Put the pieces of a reservation back; False when there was nothing to put back."""
        with self.undoing("release", key, order_id, of, "reserve") as (db, live):
            if live:
                for row in db.execute("SELECT product, pieces FROM reserved WHERE key = ?", (of,)).fetchall():
                    db.execute(
                        "UPDATE stock SET pieces = pieces + ? WHERE product = ?", (row["pieces"], row["product"])
                    )
                db.execute("DELETE FROM reserved WHERE key = ?", (of,))
            return live

    # -- money ---------------------------------------------------------------------------------------------------------

    def charge(self, key: str, order_id: str, amount: int, token: str) -> dict[str, Any]:
        """Charge a card, in cents. The token says how the provider behaves, as with any provider's test cards.

        ``tok_declined`` is refused; ``tok_flaky`` fails the first time; ``tok_down`` fails always; ``tok_silent``
        charges the card and then does not answer.

        Raises:
            CardDeclinedError: when the bank refuses.
            GatewayUnavailableError: when the provider is down and nothing was charged.
            NoAnswerError: when nobody knows.
        """
        with self.doing("charge", key, order_id, amount) as (db, known):
            if token == "tok_declined":
                raise CardDeclinedError(f"the bank refused {amount} cents: insufficient funds")
            tries = db.execute("SELECT count(*) FROM journal WHERE call = 'charge' AND key = ?", (key,)).fetchone()[0]
            if token == "tok_down" or (token == "tok_flaky" and tries == 0):
                raise GatewayUnavailableError("the payment provider answered 503")
            answer = known or add(
                db, "charge", key, order_id, amount, {"charge_id": f"ch_{_digest(key)}", "charged": amount}
            )
        if token == "tok_silent":
            raise NoAnswerError("the payment provider did not answer in time")
        return answer

    def refund(self, key: str, order_id: str, of: str) -> bool:
        """Give back what a charge took; False when there was no charge."""
        with self.undoing("refund", key, order_id, of, "charge") as (_, live):
            return live

    # -- parcels -------------------------------------------------------------------------------------------------------

    def ship(self, key: str, order_id: str, reservation: str, street: str, country: str) -> dict[str, Any]:
        """Hand the reserved pieces to a carrier, who gives a tracking number.

        Raises:
            AddressNotServedError: when no carrier delivers there.
        """
        with self.doing("ship", key, order_id) as (db, known):
            if known:
                return known
            if country == "AQ" or street.upper().startswith("PO BOX"):
                raise AddressNotServedError(f"no carrier delivers to {street!r} in {country}")
            carrier = (
                "EuroParcel" if country in ("AT", "CH", "DE", "DK", "ES", "FR", "IT", "NL", "PL") else "AirFreight"
            )
            db.execute("UPDATE reserved SET shipped = 1 WHERE key = ?", (reservation,))
            detail = {"carrier": carrier, "tracking_number": f"{carrier[:2].upper()}{_digest(key)}", "of": reservation}
            return add(db, "ship", key, order_id, 0, detail)

    def cancel_shipment(self, key: str, order_id: str, of: str) -> bool:
        """Call a parcel back into the warehouse; False when there was none."""
        with self.undoing("cancel", key, order_id, of, "ship") as (db, live):
            if live:
                detail = json.loads(db.execute("SELECT detail FROM effects WHERE key = ?", (of,)).fetchone()["detail"])
                db.execute("UPDATE reserved SET shipped = 0 WHERE key = ?", (detail["of"],))
            return live

    def mail(self, key: str, order_id: str, to: str, text: str) -> dict[str, Any]:
        """Send a mail.

        Raises:
            MailBouncedError: when nobody reads it.
        """
        with self.doing("mail", key, order_id) as (db, known):
            if known:
                return known
            if to.endswith("@bounce.example"):
                raise MailBouncedError(f"mail to {to} came back")
            return add(db, "mail", key, order_id, 0, {"mailed_to": to, "characters": len(text)})

    # -- who is busy ---------------------------------------------------------------------------------------------------

    @contextmanager
    def at_work(self, key: str, order_id: str, attempt: int) -> Iterator[None]:
        """Note that this process is busy with a payment, until the block ends. A killed process never ends it."""
        with self.transaction() as db:
            row = (key, order_id, attempt, os.getpid(), time.time())
            insert = "INSERT INTO work (key, order_id, attempt, pid, started_at) VALUES (?, ?, ?, ?, ?)"
            n = db.execute(insert, row).lastrowid
        try:
            yield
        finally:
            with self.transaction() as db:
                db.execute("UPDATE work SET finished_at = ? WHERE n = ?", (time.time(), n))

    def busy_after_charge(self) -> list[Work]:
        """Processes that have charged a card and have not yet told anybody: the worst moment to be killed."""
        query = """
            SELECT n, key, order_id, attempt, pid FROM work
            WHERE finished_at IS NULL AND key IN (SELECT key FROM effects WHERE kind = 'charge' AND status = 'live')"""
        with self.transaction(write=False) as db:
            return [Work(**dict(row)) for row in db.execute(query)]

    def charges_made(self) -> int:
        """How many cards have been charged."""
        with self.transaction(write=False) as db:
            query = "SELECT count(*) FROM journal WHERE call = 'charge' AND answer = 'done'"
            return int(db.execute(query).fetchone()[0])


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:10].upper()
