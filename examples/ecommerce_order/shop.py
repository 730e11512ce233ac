"""The outside world of the example: a shop's stock, its payment provider, its carrier and its mail, in one SQLite file.

It knows nothing of the engine, so it can testify about it. Three rules make an effect safe to ask for again:

1. Every call names an idempotency key. The first call with a key takes effect; a repeated one gets the same answer.
2. An undo has a key of its own and names the key of what it undoes. Undoing what never happened is a normal no-op.
3. An undo that comes first leaves a mark, and the late call that it was meant for is refused. Otherwise a worker that
   was given up and wakes up again would charge a customer whose order is long cancelled.

Every call, repeated and refused ones included, is a line of the journal.
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
from pathlib import Path
from typing import Any

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

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stock (
    product TEXT PRIMARY KEY, opening INTEGER NOT NULL, pieces INTEGER NOT NULL CHECK (pieces >= 0));
CREATE TABLE IF NOT EXISTS effects (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, order_id TEXT, amount INTEGER NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '{}', status TEXT NOT NULL CHECK (status IN ('live', 'undone', 'void')));
CREATE TABLE IF NOT EXISTS reserved (
    key TEXT NOT NULL, product TEXT NOT NULL, pieces INTEGER NOT NULL, shipped INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS journal (
    n INTEGER PRIMARY KEY, at REAL NOT NULL, call TEXT NOT NULL, key TEXT NOT NULL, order_id TEXT,
    amount INTEGER NOT NULL, answer TEXT NOT NULL, pid INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS work (
    n INTEGER PRIMARY KEY, key TEXT NOT NULL, order_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    pid INTEGER NOT NULL, started_at REAL NOT NULL, finished_at REAL);
"""


class RefusedError(Exception):
    """The outside world said no, and will say no again."""


class CardDeclinedError(RefusedError):
    """The bank refused the charge."""


class OutOfStockError(RefusedError):
    """There are not enough pieces."""


class AddressNotServedError(RefusedError):
    """The carrier does not deliver there."""


class MailBouncedError(RefusedError):
    """Nobody reads mail at that address."""


class AlreadyUndoneError(RefusedError):
    """This was undone before it came (rule 3 of this module)."""


class GatewayUnavailableError(Exception):
    """The payment provider is down; nothing was charged, and trying again may help."""


class NoAnswerError(Exception):
    """The payment provider did not answer; the card may have been charged."""


@dataclass(frozen=True)
class Work:
    """A process that is busy with a payment, as it wrote down when it began."""

    n: int
    key: str
    order_id: str
    attempt: int
    pid: int


class Shop:
    """One shop. Every call opens the database anew, so that any process and thread may use the same object.

    Args:
        path: the SQLite file; it and the opening stock are made when the file is new.
        pace: by what the world's own slowness is multiplied; 0 is none.
    """

    def __init__(self, path: str | Path, pace: float = 1.0) -> None:
        self.path = Path(path)
        self.pace = pace
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.transaction() as db:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            opening = [(product, pieces, pieces) for product, (_, _, pieces) in CATALOGUE.items()]
            db.executemany("INSERT OR IGNORE INTO stock VALUES (?, ?, ?)", opening)

    @classmethod
    def from_environment(cls) -> Shop:
        """The shop that ``SHOP_DB`` names, else ``.multiagents/shop.db``."""
        return cls(os.environ.get(DATABASE, ".multiagents/shop.db"), float(os.environ.get(PACE, "1")))

    def delay(self, seconds: float) -> float:
        """How long the world takes for something that takes so many seconds at pace 1."""
        return seconds * self.pace

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing; writers wait for each other up to 10 s, readers never wait."""
        db = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE" if write else "BEGIN DEFERRED")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
        finally:
            db.close()

    # -- stock ---------------------------------------------------------------------------------------------------------

    def reserve(self, key: str, order_id: str, pieces: Mapping[str, int]) -> dict[str, Any]:
        """Set pieces aside for an order: all of them or none.

        Raises:
            OutOfStockError: when there are not enough pieces of a product.
        """
        with self._call("reserve", key, order_id) as (db, known):
            if known:
                return known
            for product, wanted in sorted(pieces.items()):
                row = db.execute("SELECT pieces FROM stock WHERE product = ?", (product,)).fetchone()
                left = row["pieces"] if row else 0
                if left < wanted:
                    raise OutOfStockError(f"{wanted} x {product} were ordered, {left} are left")
                db.execute("UPDATE stock SET pieces = pieces - ? WHERE product = ?", (wanted, product))
                db.execute("INSERT INTO reserved VALUES (?, ?, ?, 0)", (key, product, wanted))
            return _add(db, "reserve", key, order_id, 0, {"reservation": key, "pieces": sum(pieces.values())})

    def release(self, key: str, order_id: str, of: str) -> bool:
        """Put the pieces of a reservation back; False when there was nothing to put back."""
        with self._undo("release", key, order_id, of, "reserve") as (db, live):
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
        with self._call("charge", key, order_id, amount) as (db, known):
            if token == "tok_declined":
                raise CardDeclinedError(f"the bank refused {amount} cents: insufficient funds")
            tries = db.execute("SELECT count(*) FROM journal WHERE call = 'charge' AND key = ?", (key,)).fetchone()[0]
            if token == "tok_down" or (token == "tok_flaky" and tries == 0):
                raise GatewayUnavailableError("the payment provider answered 503")
            answer = known or _add(
                db, "charge", key, order_id, amount, {"charge_id": f"ch_{_digest(key)}", "charged": amount}
            )
        if token == "tok_silent":
            raise NoAnswerError("the payment provider did not answer in time")
        return answer

    def refund(self, key: str, order_id: str, of: str) -> bool:
        """Give back what a charge took; False when there was no charge."""
        with self._undo("refund", key, order_id, of, "charge") as (_, live):
            return live

    # -- parcels -------------------------------------------------------------------------------------------------------

    def ship(self, key: str, order_id: str, reservation: str, street: str, country: str) -> dict[str, Any]:
        """Hand the reserved pieces to a carrier, who gives a tracking number.

        Raises:
            AddressNotServedError: when no carrier delivers there.
        """
        with self._call("ship", key, order_id) as (db, known):
            if known:
                return known
            if country == "AQ" or street.upper().startswith("PO BOX"):
                raise AddressNotServedError(f"no carrier delivers to {street!r} in {country}")
            carrier = (
                "EuroParcel" if country in ("AT", "CH", "DE", "DK", "ES", "FR", "IT", "NL", "PL") else "AirFreight"
            )
            db.execute("UPDATE reserved SET shipped = 1 WHERE key = ?", (reservation,))
            detail = {"carrier": carrier, "tracking_number": f"{carrier[:2].upper()}{_digest(key)}", "of": reservation}
            return _add(db, "ship", key, order_id, 0, detail)

    def cancel_shipment(self, key: str, order_id: str, of: str) -> bool:
        """Call a parcel back into the warehouse; False when there was none."""
        with self._undo("cancel", key, order_id, of, "ship") as (db, live):
            if live:
                detail = json.loads(db.execute("SELECT detail FROM effects WHERE key = ?", (of,)).fetchone()["detail"])
                db.execute("UPDATE reserved SET shipped = 0 WHERE key = ?", (detail["of"],))
            return live

    def mail(self, key: str, order_id: str, to: str, text: str) -> dict[str, Any]:
        """Send a mail.

        Raises:
            MailBouncedError: when nobody reads it.
        """
        with self._call("mail", key, order_id) as (db, known):
            if known:
                return known
            if to.endswith("@bounce.example"):
                raise MailBouncedError(f"mail to {to} came back")
            return _add(db, "mail", key, order_id, 0, {"mailed_to": to, "characters": len(text)})

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

    def journal_of(self, order_id: str) -> list[dict[str, Any]]:
        """Every call about an order, oldest first."""
        query = "SELECT at, call, key, amount, answer, pid FROM journal WHERE order_id = ? ORDER BY n"
        with self.transaction(write=False) as db:
            return [dict(row) for row in db.execute(query, (order_id,))]

    # -- the rules at the head of this module --------------------------------------------------------------------------

    @contextmanager
    def _call(
        self, call: str, key: str, order_id: str, amount: int = 0
    ) -> Iterator[tuple[sqlite3.Connection, dict[str, Any] | None]]:
        """Run a call in a transaction, with the answer that its key got before; refused or not, the journal has it."""
        try:
            with self.transaction() as db:
                row = db.execute("SELECT status, kind, amount, detail FROM effects WHERE key = ?", (key,)).fetchone()
                if row and row["status"] != "live":
                    raise AlreadyUndoneError(f"{call} {key} came after it was undone")
                if row and (row["kind"], row["amount"]) != (call, amount):
                    raise ValueError(
                        f"key {key} was used for {row['kind']} of {row['amount']}, not for {call} of {amount}"
                    )
                yield db, json.loads(row["detail"]) if row else None
                _note(db, call, key, order_id, amount, "repeated" if row else "done")
        except (RefusedError, GatewayUnavailableError) as error:
            with self.transaction() as db:
                _note(db, call, key, order_id, amount, f"refused: {type(error).__name__}")
            raise

    @contextmanager
    def _undo(
        self, call: str, key: str, order_id: str, of: str, kind: str
    ) -> Iterator[tuple[sqlite3.Connection, bool]]:
        """Run an undo in a transaction; it is told whether there is anything to undo."""
        with self.transaction() as db:
            row = db.execute("SELECT status, amount FROM effects WHERE key = ?", (of,)).fetchone()
            live = row is not None and row["status"] == "live"
            yield db, live
            if row is None:
                mark = (of, kind, order_id)
                db.execute("INSERT INTO effects (key, kind, order_id, status) VALUES (?, ?, ?, 'void')", mark)
            elif live:
                db.execute("UPDATE effects SET status = 'undone' WHERE key = ?", (of,))
            answer = "done" if live else "nothing to undo" if row is None or row["status"] == "void" else "repeated"
            _note(db, call, key, order_id, row["amount"] if row else 0, answer)


def _add(
    db: sqlite3.Connection, kind: str, key: str, order_id: str, amount: int, detail: dict[str, Any]
) -> dict[str, Any]:
    row = (key, kind, order_id, amount, json.dumps(detail))
    db.execute("INSERT INTO effects (key, kind, order_id, amount, detail, status) VALUES (?, ?, ?, ?, ?, 'live')", row)
    return detail


def _note(db: sqlite3.Connection, call: str, key: str, order_id: str, amount: int, answer: str) -> None:
    insert = "INSERT INTO journal (at, call, key, order_id, amount, answer, pid) VALUES (?, ?, ?, ?, ?, ?, ?)"
    db.execute(insert, (time.time(), call, key, order_id, amount, answer, os.getpid()))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:10].upper()
