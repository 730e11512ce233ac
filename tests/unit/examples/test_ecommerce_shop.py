"""The example's outside world: what its books promise, and that they notice when a promise is broken."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from examples._support.board import Board, Case, Expectation, Followed, outcomes, read_cases
from examples._support.pictures import Bar, bars_of, checks_table, timeline
from examples._support.shop import (
    CATALOGUE,
    AddressNotServedError,
    Busy,
    CardDeclinedError,
    GatewayUnavailableError,
    OutOfStockError,
    Shop,
    check_books,
    euros,
)
from examples._support.world import PACE, AlreadyUndoneError, NoAnswerError
from examples.ecommerce_order.main import ORDERS
from examples.ecommerce_order.order import Order
from multiagents.events import CommandEvent, CompensationEvent, ErrorEvent, ErrorInfo, ErrorKind, ResultEvent

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv(PACE, "0")
    return Shop(tmp_path)


def charge(shop: Shop, amount: int = 890, token: str = "tok_visa", order_id: str = "A-1") -> dict[str, Any]:
    return asyncio.run(shop.charge(f"{order_id}/payment", order_id, amount, token))


def refund(shop: Shop) -> bool:
    return asyncio.run(shop.refund("A-1/payment", "A-1"))


def sell(shop: Shop, order_id: str, amount: int = 890) -> None:
    """Sell one packet of tea."""
    shop.reserve(f"{order_id}/reserve", order_id, {"TEA-EARL-GREY": 1})
    charge(shop, amount, order_id=order_id)
    shop.ship(f"{order_id}/fulfil", order_id, f"{order_id}/reserve", "Lindenweg 4", "AT")


def pieces(shop: Shop, product: str) -> int:
    with shop.transaction() as db:
        return int(db.execute("SELECT pieces FROM stock WHERE product = ?", (product,)).fetchone()[0])


def answers(shop: Shop, order_id: str, call: str) -> list[str]:
    return [entry["answer"] for entry in shop.journal(order_id, call)]


def broken(shop: Shop, completed: dict[str, int]) -> set[str]:
    return {line.rule for line in check_books(shop, completed) if not line.holds}


# -- idempotency keys --------------------------------------------------------------------------------------------------


def test_a_charge_that_is_asked_for_twice_is_made_once_and_answered_alike(shop: Shop) -> None:
    first = charge(shop)
    second = charge(shop)

    assert first == second
    assert answers(shop, "A-1", "charge") == ["done", "repeated"]


def test_a_key_cannot_be_used_for_another_amount(shop: Shop) -> None:
    charge(shop)

    with pytest.raises(ValueError, match="was used for charge of 890, not for charge of 891"):
        charge(shop, 891)


def test_a_refund_that_is_asked_for_twice_is_made_once(shop: Shop) -> None:
    charge(shop)

    assert refund(shop) is True
    assert refund(shop) is False
    assert answers(shop, "A-1", "refund") == ["done", "repeated"]


def test_a_refund_of_nothing_is_a_noted_no_op(shop: Shop) -> None:
    assert refund(shop) is False
    assert answers(shop, "A-1", "refund") == ["nothing to undo"]


@pytest.mark.parametrize("undone_before", [True, False])
def test_a_charge_that_comes_after_its_refund_is_refused(shop: Shop, undone_before: bool) -> None:
    if undone_before:
        charge(shop)
    refund(shop)

    with pytest.raises(AlreadyUndoneError):
        charge(shop)

    assert answers(shop, "A-1", "charge")[-1] == "refused: AlreadyUndoneError"
    assert broken(shop, {}) == set()


# -- stock and parcels -------------------------------------------------------------------------------------------------


def test_of_twenty_buyers_of_the_last_piece_exactly_one_gets_it(shop: Shop) -> None:
    def buy(n: int) -> bool:
        try:
            shop.reserve(f"r{n}/reserve", f"A-{n}", {"TURNTABLE": 1})
        except OutOfStockError:
            return False
        return True

    with ThreadPoolExecutor(8) as buyers:
        bought = list(buyers.map(buy, range(20)))

    assert Counter(bought) == {True: 1, False: 19}
    assert pieces(shop, "TURNTABLE") == 0


def test_an_order_of_which_one_product_is_sold_out_reserves_nothing(shop: Shop) -> None:
    with pytest.raises(OutOfStockError, match="1 x POSTER-GOLD were ordered, 0 are left"):
        shop.reserve("r/reserve", "A-1", {"MUG-BLUE": 1, "POSTER-GOLD": 1})

    assert pieces(shop, "MUG-BLUE") == CATALOGUE["MUG-BLUE"][2]


def test_an_order_undone_from_its_parcel_on_leaves_the_books_as_they_were(shop: Shop) -> None:
    sell(shop, "A-1")

    assert shop.cancel_shipment("A-1/fulfil", "A-1") is True
    assert refund(shop) is True
    assert shop.release("A-1/reserve", "A-1") is True

    assert pieces(shop, "TEA-EARL-GREY") == CATALOGUE["TEA-EARL-GREY"][2]
    assert broken(shop, {}) == set()


@pytest.mark.parametrize(("street", "country"), [("Amundsen-Scott Station", "AQ"), ("PO Box 12", "CH")])
def test_a_place_without_a_carrier_is_refused_and_noted(shop: Shop, street: str, country: str) -> None:
    with pytest.raises(AddressNotServedError):
        shop.ship("r/fulfil", "A-1", "r/reserve", street, country)

    assert answers(shop, "A-1", "ship") == ["refused: AddressNotServedError"]


# -- the provider's moods ----------------------------------------------------------------------------------------------


def test_a_declined_card_is_never_charged(shop: Shop) -> None:
    with pytest.raises(CardDeclinedError):
        charge(shop, token="tok_declined")

    assert answers(shop, "A-1", "charge") == ["refused: CardDeclinedError"]


def test_a_flaky_provider_fails_once_and_then_works(shop: Shop) -> None:
    with pytest.raises(GatewayUnavailableError):
        charge(shop, token="tok_flaky")

    assert charge(shop, token="tok_flaky")["charged"] == 890


def test_a_silent_provider_has_taken_the_money(shop: Shop) -> None:
    with pytest.raises(NoAnswerError):
        charge(shop, token="tok_silent")

    assert refund(shop) is True


def test_a_payment_is_busy_between_its_charge_and_its_answer(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Busy]] = [shop.busy()]

    async def look(_: float) -> None:
        seen.append(shop.busy())

    monkeypatch.setattr("examples._support.shop.asyncio.sleep", look)
    charge(shop)

    assert seen == [[], [], [Busy(os.getpid(), "A-1")]]
    assert shop.busy() == []


# -- the ledger --------------------------------------------------------------------------------------------------------


def test_the_books_of_a_quiet_day_add_up(shop: Shop) -> None:
    sell(shop, "A-1")
    sell(shop, "A-2")

    lines = check_books(shop, {"A-1": 890, "A-2": 890})

    assert [line.rule for line in lines if not line.holds] == []
    assert next(line.figures for line in lines if "money" in line.rule) == "17.80 € charged - 0.00 € refunded = 17.80 €"


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ("UPDATE stock SET pieces = pieces - 1 WHERE product = 'MUG-BLUE'", "stock adds up to the piece"),
        ("UPDATE reserved SET shipped = 0", "nothing is left reserved"),
        ("UPDATE journal SET amount = 891 WHERE call = 'charge'", "money adds up to the cent"),
        ("UPDATE journal SET key = 'A-1/payment', call = 'x'", "no key took effect twice"),
        (
            """INSERT INTO effects SELECT 'again', kind, subject, amount, detail, status FROM effects
               WHERE kind = 'charge'""",
            "no order was charged twice",
        ),
        ("UPDATE effects SET status = 'undone' WHERE kind = 'charge'", "no refunded order was shipped"),
        (
            "UPDATE effects SET status = 'undone' WHERE kind = 'ship'",
            "the orders that were shipped are the completed ones",
        ),
    ],
)
def test_the_ledger_notices_damaged_books(shop: Shop, damage: str, rule: str) -> None:
    sell(shop, "A-1")
    with sqlite3.connect(shop.path) as db:
        db.execute(damage)
    db.close()

    assert rule in broken(shop, {"A-1": 890})


def test_the_ledger_notices_a_completed_order_that_the_shop_never_saw(shop: Shop) -> None:
    rules = {"money adds up to the cent", "the orders that were shipped are the completed ones"}

    assert broken(shop, {"A-9": 100}) == rules


# -- the orders --------------------------------------------------------------------------------------------------------


def test_most_orders_succeed_and_every_other_end_occurs() -> None:
    cases = read_cases(ORDERS)
    reasons = {case.expect.reason for case in cases}

    assert len(cases) == len({case.id for case in cases}) == 36
    assert sum(case.expect.status == "completed" for case in cases) >= len(cases) / 2
    assert {case.expect.status for case in cases} == {"completed", "compensated", "failed"}
    assert reasons >= {"CardDeclinedError", "OutOfStockError", "AddressNotServedError", "InvalidOrderError"}
    assert any(case.expect.skipped == ("payment",) for case in cases)
    assert len([case for case in cases if case.expect.group == "last turntable"]) == 2


def test_there_is_stock_for_all_orders_but_those_that_are_to_find_none() -> None:
    wanted: Counter[str] = Counter()
    for case in read_cases(ORDERS):
        if case.expect.reason not in ("OutOfStockError", "InvalidOrderError", "ArgumentsError"):
            wanted.update(Order.model_validate(case.order).quantities())

    short = {product: number for product, number in wanted.items() if number > CATALOGUE[product][2]}

    assert short == {}


def test_the_totals_are_right_but_for_the_orders_that_are_to_be_refused() -> None:
    for case in read_cases(ORDERS):
        if case.expect.reason == "ArgumentsError":
            with pytest.raises(ValidationError):
                Order.model_validate(case.order)
        elif case.expect.reason != "InvalidOrderError":
            order = Order.model_validate(case.order)
            assert order.total_amount == order.amount_due(), case.id


@pytest.mark.parametrize(("cents", "text"), [(0, "0.00 €"), (5, "0.05 €"), (123456, "1,234.56 €"), (-150, "-1.50 €")])
def test_cents_are_shown_as_euros(cents: int, text: str) -> None:
    assert euros(cents) == text


# -- the view ----------------------------------------------------------------------------------------------------------


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def history_of_a_killed_and_refunded_payment() -> list[Any]:
    def ids(direction: str, attempt: int) -> dict[str, Any]:
        correlation = f"A-1/payment/{direction}/{attempt}"
        return {"transaction_id": "A-1", "step": "payment", "attempt": attempt, "correlation_id": correlation}

    lost = ErrorInfo(type="multiagents.exceptions.WorkerLost", message="its process is gone")
    return [
        CommandEvent(**ids("do", 1), worker="process_payment", timestamp=at(0)),
        ErrorEvent(**ids("do", 1), kind=ErrorKind.LOST, error=lost, timestamp=at(2)),
        CommandEvent(**ids("do", 2), worker="process_payment", timestamp=at(2)),
        ResultEvent(**ids("do", 2), started_at=at(3), timestamp=at(4)),
        ResultEvent(**ids("do", 2), started_at=at(3), timestamp=at(9)),
        CompensationEvent(**ids("undo", 1), worker="refund_payment", timestamp=at(8)),
    ]


def test_a_history_reads_as_one_bar_an_attempt_whatever_is_repeated() -> None:
    bars = bars_of(history_of_a_killed_and_refunded_payment())

    shown = [(bar.direction, bar.attempt, bar.outcome, bar.start, bar.end) for bar in bars]
    assert shown == [
        ("do", 1, "lost", at(0), at(2)),
        ("do", 2, "succeeded", at(3), at(4)),
        ("undo", 1, "open", at(8), None),
    ]


def test_the_timeline_shows_an_undo_on_the_line_of_its_step() -> None:
    bars = bars_of(history_of_a_killed_and_refunded_payment())

    picture = timeline("A-1", "compensating", ["reserve", "payment"], bars, 80, now=at(19))

    assert [line.rstrip() for line in picture.plain.splitlines()] == [
        "A-1  compensating  19.0 s",
        "  reserve",
        "  payment      ░░░██···▒▒▒▒▒▒▒▒▒▒▒▒  attempt 1 lost with its process, attempt 2 ✓, ← refund_payment",
    ]


def test_a_bar_of_one_moment_can_be_drawn() -> None:
    bars = [Bar("validate", "do", 1, NOON, NOON, "succeeded")]

    assert "█" in timeline("A-1", "completed", ["validate"], bars, 80).plain


# -- verdicts ----------------------------------------------------------------------------------------------------------


def followed(
    order_id: str, expect: Expectation, status: str, reason: str = "", steps: dict[str, str] | None = None
) -> Followed:
    case = Case(about="a test", order={"id": order_id, "total_amount": 1}, expect=expect)
    return Followed(case, run=SimpleNamespace(), status=status, steps=steps or {}, reason=reason)


LAST_PIECE = Expectation(status="failed", reason="OutOfStockError", group="last piece")


@pytest.mark.parametrize(
    ("ends", "as_expected"),
    [
        ([("completed", ""), ("failed", "OutOfStockError")], [True, True]),
        ([("failed", "OutOfStockError"), ("completed", "")], [True, True]),
        ([("completed", ""), ("completed", "")], [True, False]),
        ([("failed", "OutOfStockError"), ("failed", "OutOfStockError")], [True, True, False]),
        ([("completed", ""), ("failed", "CardDeclinedError")], [True, False]),
    ],
)
def test_of_a_group_exactly_one_may_win(ends: list[tuple[str, str]], as_expected: list[bool]) -> None:
    board = Board([followed(f"A-{n}", LAST_PIECE, *end) for n, end in enumerate(ends)])

    assert [verdict.as_expected for verdict in board.verdicts()] == as_expected


@pytest.mark.parametrize(
    ("status", "reason", "steps", "as_expected"),
    [
        ("compensated", "CardDeclinedError", {"reserve": "compensated", "payment": "failed"}, True),
        ("failed", "CardDeclinedError", {"reserve": "compensated", "payment": "failed"}, False),
        ("compensated", "OutOfStockError", {"reserve": "compensated", "payment": "failed"}, False),
        ("compensated", "CardDeclinedError", {"reserve": "succeeded", "payment": "failed"}, False),
        ("compensated", "CardDeclinedError", {"reserve": "compensated", "payment": "skipped"}, False),
    ],
)
def test_status_reason_undone_and_skipped_steps_all_count(
    status: str, reason: str, steps: dict[str, str], as_expected: bool
) -> None:
    expect = Expectation(status="compensated", reason="CardDeclinedError", undone=("reserve",))
    (verdict,) = Board([followed("A-1", expect, status, reason, steps)]).verdicts()

    assert verdict.as_expected is as_expected


def test_tables_render_on_a_narrow_terminal() -> None:
    expect = Expectation(status="completed")
    board = Board([followed(f"A-{n}", expect, "completed", steps={"validate": "succeeded"}) for n in range(7)])
    console = Console(width=40, record=True, file=StringIO())
    console.print(board.grid(), outcomes(board.verdicts(), 40), checks_table([]))

    assert "A-6" in console.export_text()
