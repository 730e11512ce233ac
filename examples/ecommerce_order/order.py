"""What an order is. Money is in integer cents: JSON has no decimals, and floats lose money."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

#: The orders that the demo runs, one JSON object a line: ``{"about", "order", "expect"}``.
ORDERS = Path(__file__).with_name("orders.jsonl")


class Item(BaseModel):
    """One line of an order."""

    product_id: str
    quantity: int = Field(ge=1)
    #: cents a piece
    price: int = Field(ge=0)


class PaymentInfo(BaseModel):
    """How an order is paid. The token stands for a card at the payment provider; the shop never sees the card."""

    token: str
    #: cents that a gift card pays
    gift_card: int = Field(default=0, ge=0)


class ShippingInfo(BaseModel):
    """Where an order goes, and whom to tell."""

    name: str
    email: str
    street: str
    city: str
    postal_code: str
    country: str = Field(min_length=2, max_length=2)


class Order(BaseModel):
    """An order as a customer placed it."""

    id: str
    customer_id: str
    items: list[Item] = Field(min_length=1)
    #: cents to be charged: the items less the gift card
    total_amount: int = Field(ge=0)
    payment_info: PaymentInfo
    shipping_info: ShippingInfo

    def quantities(self) -> dict[str, int]:
        """How many pieces of each product, lines of the same product added up."""
        pieces: dict[str, int] = {}
        for item in self.items:
            pieces[item.product_id] = pieces.get(item.product_id, 0) + item.quantity
        return pieces

    def amount_due(self) -> int:
        """Cents to be charged, computed from the lines."""
        return max(0, sum(item.quantity * item.price for item in self.items) - self.payment_info.gift_card)


class Expectation(BaseModel):
    """How a run of an order is to end.

    Attributes:
        status: the run's end status.
        reason: class name of the error that led to it.
        undone: the steps that are to be undone, in workflow order.
        skipped: the steps that are to be skipped.
        group: orders of one group compete for the same thing: one of them is to end as ``completed``, each other one as
            the rest of this expectation says.
    """

    model_config = ConfigDict(extra="forbid")

    status: Literal["completed", "compensated", "failed"]
    reason: str | None = None
    undone: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    group: str | None = None


class Case(BaseModel):
    """An order to run, and how it is to end."""

    model_config = ConfigDict(extra="forbid")

    about: str
    #: as it came in: an order that does not make sense is a case too
    order: dict[str, Any]
    expect: Expectation

    @property
    def id(self) -> str:
        """The order's id."""
        return str(self.order["id"])


def read_cases(path: Path = ORDERS) -> list[Case]:
    """Read the cases of a JSONL file, in its order."""
    return list(_cases(path))


def _cases(path: Path) -> Iterator[Case]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield Case.model_validate_json(line)


def euros(cents: int) -> str:
    """Render cents as euros.

    >>> euros(123456)
    '1,234.56 €'
    """
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100:,}.{abs(cents) % 100:02d} €"
