"""The world outside the order example: a shop's stock, its payment provider, its carrier and its mail; and its books.

The rules that make its effects safe to ask for again are those of `examples._support.world`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from examples._support.world import Check, NoAnswerError, RefusedError, UnavailableError, World, add, digest

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
CREATE TABLE IF NOT EXISTS busy (pid INTEGER PRIMARY KEY, key TEXT NOT NULL, order_id TEXT NOT NULL);
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
class Busy:
    """A process that has charged a card and told nobody yet."""

    pid: int
    order_id: str


class Shop(World):
    """One shop; the opening stock is there when its file is new."""

    file = "shop.db"
    tables = _TABLES

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
        time.sleep(self.time(0.12))
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

    def release(self, key: str, order_id: str) -> bool:
        """Put the pieces of a reservation back; False when there was nothing to put back."""
        time.sleep(self.time(0.12))
        with self.undoing("release", key, order_id, "reserve") as (db, live):
            if live:
                for row in db.execute("SELECT product, pieces FROM reserved WHERE key = ?", (key,)).fetchall():
                    db.execute(
                        "UPDATE stock SET pieces = pieces + ? WHERE product = ?", (row["pieces"], row["product"])
                    )
                db.execute("DELETE FROM reserved WHERE key = ?", (key,))
            return live

    # -- money ---------------------------------------------------------------------------------------------------------

    async def charge(self, key: str, order_id: str, amount: int, token: str) -> dict[str, Any]:
        """Charge a card, in cents. The token says how the provider behaves, as with any provider's test cards.

        ``tok_declined`` is refused; ``tok_flaky`` fails the first time; ``tok_down`` fails always; ``tok_silent``
        charges the card and then does not answer.

        Raises:
            CardDeclinedError: when the bank refuses.
            GatewayUnavailableError: when the provider is down and nothing was charged.
            NoAnswerError: when nobody knows.
        """
        await asyncio.sleep(self.time(0.15))
        with self.doing("charge", key, order_id, amount) as (db, known):
            if token == "tok_declined":
                raise CardDeclinedError(f"the bank refused {amount} cents: insufficient funds")
            tries = db.execute("SELECT count(*) FROM journal WHERE call = 'charge' AND key = ?", (key,)).fetchone()[0]
            if token == "tok_down" or (token == "tok_flaky" and tries == 0):
                raise GatewayUnavailableError("the payment provider answered 503")
            detail = {"charge_id": f"ch_{digest(key)}", "charged": amount}
            answer = known or add(db, "charge", key, order_id, amount, detail)
            db.execute("INSERT OR REPLACE INTO busy VALUES (?, ?, ?)", (os.getpid(), key, order_id))
        # The answer is on its way back: the worst moment to be killed. A killed process is busy for ever.
        await asyncio.sleep(self.time(0.3))
        with self.transaction() as db:
            db.execute("DELETE FROM busy WHERE pid = ?", (os.getpid(),))
        if token == "tok_silent":
            raise NoAnswerError("the payment provider did not answer in time")
        return answer

    async def refund(self, key: str, order_id: str) -> bool:
        """Give back what a charge took; False when there was no charge."""
        await asyncio.sleep(self.time(0.22))
        with self.undoing("refund", key, order_id, "charge") as (_, live):
            return live

    def charges_made(self) -> int:
        """How many cards have been charged."""
        with self.transaction(write=False) as db:
            return _number(db, "SELECT count(*) FROM journal WHERE call = 'charge' AND answer = 'done'")

    def busy(self) -> list[Busy]:
        """The processes that have charged a card and have not told anybody yet."""
        with self.transaction(write=False) as db:
            return [Busy(row["pid"], row["order_id"]) for row in db.execute("SELECT * FROM busy")]

    # -- parcels -------------------------------------------------------------------------------------------------------

    def ship(self, key: str, order_id: str, reservation: str, street: str, country: str) -> dict[str, Any]:
        """Hand the reserved pieces to a carrier, who gives a tracking number.

        Raises:
            AddressNotServedError: when no carrier delivers there.
        """
        time.sleep(self.time(0.18))
        with self.doing("ship", key, order_id) as (db, known):
            if known:
                return known
            if country == "AQ" or street.upper().startswith("PO BOX"):
                raise AddressNotServedError(f"no carrier delivers to {street!r} in {country}")
            near = ("AT", "CH", "DE", "DK", "ES", "FR", "IT", "NL", "PL")
            carrier = "EuroParcel" if country in near else "AirFreight"
            db.execute("UPDATE reserved SET shipped = 1 WHERE key = ?", (reservation,))
            detail = {"carrier": carrier, "tracking_number": f"{carrier[:2].upper()}{digest(key)}", "of": reservation}
            return add(db, "ship", key, order_id, 0, detail)

    def cancel_shipment(self, key: str, order_id: str) -> bool:
        """Call a parcel back into the warehouse; False when there was none."""
        time.sleep(self.time(0.18))
        with self.undoing("cancel", key, order_id, "ship") as (db, live):
            if live:
                detail = json.loads(db.execute("SELECT detail FROM effects WHERE key = ?", (key,)).fetchone()["detail"])
                db.execute("UPDATE reserved SET shipped = 0 WHERE key = ?", (detail["of"],))
            return live

    def mail(self, key: str, order_id: str, to: str, text: str) -> dict[str, Any]:
        """Send a mail.

        Raises:
            MailBouncedError: when nobody reads it.
        """
        time.sleep(self.time(0.08))
        with self.doing("mail", key, order_id) as (db, known):
            if known:
                return known
            if to.endswith("@bounce.example"):
                raise MailBouncedError(f"mail to {to} came back")
            return add(db, "mail", key, order_id, 0, {"mailed_to": to, "characters": len(text)})


def check_books(shop: Shop, completed: Mapping[str, int]) -> list[Check]:
    """Check the shop's books against the orders that the engine says are completed.

    Call it when no run is in flight: a reservation that is about to become a parcel breaks a rule until it is one.

    Args:
        shop: the outside world.
        completed: id -> total in cents, of every order that ended as completed.
    """
    with shop.transaction(write=False) as db:
        return [
            _pieces(db),
            _nothing_set_aside(db),
            _money(db, completed),
            shop.check_keys(),
            _none(db, "no order was charged twice", _CHARGED_TWICE),
            _none(db, "no refunded order was shipped", _SHIPPED_UNPAID),
            _parcels(db, completed),
        ]


_CHARGED_TWICE = """
    SELECT subject FROM effects WHERE kind = 'charge' AND status <> 'void' GROUP BY subject HAVING count(*) > 1"""
_SHIPPED_UNPAID = """
    SELECT subject FROM effects WHERE kind = 'charge' AND status = 'undone'
    INTERSECT SELECT subject FROM effects WHERE kind = 'ship' AND status = 'live'"""


def _number(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0] or 0)


def _none(db: sqlite3.Connection, rule: str, query: str) -> Check:
    found = [str(row[0]) for row in db.execute(query)]
    return Check(rule, not found, ", ".join(found) or "none")


def _pieces(db: sqlite3.Connection) -> Check:
    wrong = [
        f"{row['product']}: {row['opening']} at first, {row['pieces']} in stock, {row['gone']} reserved or shipped"
        for row in db.execute("""SELECT product, opening, pieces,
                      (SELECT coalesce(sum(pieces), 0) FROM reserved WHERE reserved.product = stock.product) AS gone
               FROM stock ORDER BY product""")
        if row["opening"] != row["pieces"] + row["gone"]
    ]
    opening = _number(db, "SELECT sum(opening) FROM stock")
    left = _number(db, "SELECT sum(pieces) FROM stock")
    shipped = _number(db, "SELECT sum(pieces) FROM reserved WHERE shipped = 1")
    figures = f"{opening} at first = {left} in stock + {shipped} shipped"
    return Check("stock adds up to the piece", not wrong, "; ".join(wrong) or figures)


def _nothing_set_aside(db: sqlite3.Connection) -> Check:
    open_keys = [row["key"] for row in db.execute("SELECT DISTINCT key FROM reserved WHERE shipped = 0 ORDER BY key")]
    return Check("nothing is left reserved", not open_keys, ", ".join(open_keys) or "none")


def _money(db: sqlite3.Connection, completed: Mapping[str, int]) -> Check:
    charged = _number(db, "SELECT sum(amount) FROM journal WHERE call = 'charge' AND answer = 'done'")
    refunded = _number(db, "SELECT sum(amount) FROM journal WHERE call = 'refund' AND answer = 'done'")
    revenue = sum(completed.values())
    figures = f"{euros(charged)} charged - {euros(refunded)} refunded = {euros(charged - refunded)}"
    holds = charged - refunded == revenue
    owed = "" if holds else f", but the completed orders come to {euros(revenue)}"
    return Check("money adds up to the cent", holds, figures + owed)


def _parcels(db: sqlite3.Connection, completed: Mapping[str, int]) -> Check:
    shipped = {
        row["subject"] for row in db.execute("SELECT subject FROM effects WHERE kind = 'ship' AND status = 'live'")
    }
    wrong = sorted(shipped ^ set(completed))
    return Check(
        "the orders that were shipped are the completed ones", not wrong, ", ".join(wrong) or f"{len(shipped)} parcels"
    )


def euros(cents: int) -> str:
    """Render cents as euros.

    >>> euros(123456)
    '1,234.56 €'
    """
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100:,}.{abs(cents) % 100:02d} €"
