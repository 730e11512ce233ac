"""The order as a saga: what is done, in which order, and what undoes it."""

from __future__ import annotations

from typing import Any

from examples._support.shop import CATALOGUE
from examples.ecommerce_order.order import Order
from examples.ecommerce_order.workers import (
    cancel_shipment,
    fulfil_order,
    notify_customer,
    process_payment,
    refund_payment,
    release_stock,
    reserve_stock,
    validate_order,
    write_confirmation,
)
from multiagents import WorkflowBuilder


def has_something_to_pay(context: dict[str, Any]) -> bool:
    """Whether a card is to be charged at all: a gift card may cover the whole order."""
    return bool(context["total_amount"] > 0)


def what_to_confirm(context: dict[str, Any]) -> dict[str, Any]:
    """What the model is told of an order: no address, no card."""
    order = Order.model_validate(context)
    return {"order_details": "\n".join(order.lines(CATALOGUE)), "customer_name": order.shipping_info.name}


ecommerce_order = (
    WorkflowBuilder("ecommerce_order", version="2")
    .add_step("validate", validate_order, no_compensation="it only looks")
    .add_step("reserve", reserve_stock, compensation=release_stock)
    .add_step("payment", process_payment, compensation=refund_payment, when=has_something_to_pay)
    .add_step("confirmation", write_confirmation, inputs=what_to_confirm, no_compensation="a text that nobody has seen")
    .add_step("fulfil", fulfil_order, compensation=cancel_shipment)
    .add_step("notify", notify_customer, no_compensation="what was sent is sent; nothing can fail behind it")
    .build()
)
