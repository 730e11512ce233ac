"""Whether the shop's books add up: to the piece and to the cent, whatever was killed on the way."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from examples.books import Line, keys_twice
from examples.ecommerce_order.order import euros
from examples.ecommerce_order.shop import Shop


def ledger_report(shop: Shop, completed: Mapping[str, int]) -> list[Line]:
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
            keys_twice(shop),
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


def _none(db: sqlite3.Connection, rule: str, query: str) -> Line:
    found = [str(row[0]) for row in db.execute(query)]
    return Line(rule, not found, ", ".join(found) or "none")


def _pieces(db: sqlite3.Connection) -> Line:
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
    return Line("stock adds up to the piece", not wrong, "; ".join(wrong) or figures)


def _nothing_set_aside(db: sqlite3.Connection) -> Line:
    open_keys = [row["key"] for row in db.execute("SELECT DISTINCT key FROM reserved WHERE shipped = 0 ORDER BY key")]
    return Line("nothing is left reserved", not open_keys, ", ".join(open_keys) or "none")


def _money(db: sqlite3.Connection, completed: Mapping[str, int]) -> Line:
    charged = _number(db, "SELECT sum(amount) FROM journal WHERE call = 'charge' AND answer = 'done'")
    refunded = _number(db, "SELECT sum(amount) FROM journal WHERE call = 'refund' AND answer = 'done'")
    revenue = sum(completed.values())
    figures = f"{euros(charged)} charged - {euros(refunded)} refunded = {euros(charged - refunded)}"
    holds = charged - refunded == revenue
    owed = "" if holds else f", but the completed orders come to {euros(revenue)}"
    return Line("money adds up to the cent", holds, figures + owed)


def _parcels(db: sqlite3.Connection, completed: Mapping[str, int]) -> Line:
    shipped = {
        row["subject"] for row in db.execute("SELECT subject FROM effects WHERE kind = 'ship' AND status = 'live'")
    }
    wrong = sorted(shipped ^ set(completed))
    return Line(
        "the orders that were shipped are the completed ones", not wrong, ", ".join(wrong) or f"{len(shipped)} parcels"
    )
