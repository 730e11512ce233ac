"""What an order is. Money is in integer cents: JSON has no decimals, and floats lose money."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, Field


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

    def lines(self, catalogue: Mapping[str, tuple[str, int, int]]) -> list[str]:
        """What was ordered, a line each."""
        return [f"  {item.quantity} x {catalogue[item.product_id][0]}" for item in self.items]

    def amount_due(self) -> int:
        """Cents to be charged, computed from the lines."""
        return max(0, sum(item.quantity * item.price for item in self.items) - self.payment_info.gift_card)
