"""The six steps of an order and their three undos, as workers.

Each is an ordinary Celery task that is safe to run again: it hands the step's idempotency key to the outside world, and
an undo appends ``/undo`` to it, because no provider may see one key for a charge and for its refund.
"""

from __future__ import annotations

import asyncio
import time
from functools import cache
from typing import Any

from examples.ecommerce_order.order import Order, euros
from examples.ecommerce_order.shop import CATALOGUE, Shop
from examples.world import NoAnswerError, RefusedError
from multiagents import OutcomeUnknownError, RetryPolicy, TerminalError, current_step, worker

#: What the outside world refuses, it refuses again; anything else is worth two more attempts.
UNLESS_REFUSED = RetryPolicy(max_attempts=3, initial_interval=0.3, non_retryable=(RefusedError,))


class InvalidOrderError(TerminalError):
    """The order does not make sense."""


@cache
def shop() -> Shop:
    """The shop of this process, opened at first use: importing this module opens nothing."""
    return Shop.from_environment()


@worker("validate_order")
def validate_order(order: Order) -> dict[str, Any]:
    """Check what a customer may get wrong; that every field is there was checked before this runs."""
    for item in order.items:
        if item.product_id not in CATALOGUE:
            raise InvalidOrderError(f"product {item.product_id!r} is not in the catalogue")
        price = CATALOGUE[item.product_id][1]
        if item.price != price:
            raise InvalidOrderError(f"{item.product_id} costs {euros(price)}, the order says {euros(item.price)}")
    if order.total_amount != order.amount_due():
        raise InvalidOrderError(
            f"the order comes to {euros(order.amount_due())}, its total says {euros(order.total_amount)}"
        )
    return {"lines": len(order.items)}


@worker("reserve_stock", retry=UNLESS_REFUSED)
def reserve_stock(order: Order) -> dict[str, Any]:
    """Set the ordered pieces aside."""
    time.sleep(shop().delay(0.08))
    return shop().reserve(current_step().idempotency_key, order.id, order.quantities())


@worker("release_stock")
def release_stock(context: dict[str, Any]) -> dict[str, Any]:
    """Put the reserved pieces back."""
    time.sleep(shop().delay(0.08))
    key = current_step().idempotency_key
    return {"released": shop().release(f"{key}/undo", context["id"], of=key)}


@worker("process_payment", retry=UNLESS_REFUSED, timeout=30)
async def process_payment(order: Order) -> dict[str, Any]:
    """Charge the card. Its process may be killed between the charge and the answer: the demo does just that."""
    step = current_step()
    with shop().at_work(step.idempotency_key, order.id, step.attempt):
        await asyncio.sleep(shop().delay(0.1))
        try:
            charge = shop().charge(step.idempotency_key, order.id, order.total_amount, order.payment_info.token)
        except NoAnswerError as error:
            raise OutcomeUnknownError(str(error)) from error
        await asyncio.sleep(shop().delay(0.2))
    return charge


@worker("refund_payment")
async def refund_payment(context: dict[str, Any]) -> dict[str, Any]:
    """Give the money back; where nothing was charged, this is a recorded no-op."""
    await asyncio.sleep(shop().delay(0.15))
    key = current_step().idempotency_key
    return {"refunded": shop().refund(f"{key}/undo", context["id"], of=key)}


@worker("write_confirmation")
def write_confirmation(order: Order) -> dict[str, Any]:
    """Write what the customer is told."""
    lines = [f"  {item.quantity} x {CATALOGUE[item.product_id][0]}" for item in order.items]
    paid = f"We charged {euros(order.total_amount)}." if order.total_amount else "Your gift card paid for all of it."
    text = "\n".join([f"Dear {order.shipping_info.name},", f"thank you for order {order.id}:", *lines, paid])
    return {"confirmation": text}


@worker("fulfil_order", retry=UNLESS_REFUSED)
def fulfil_order(context: dict[str, Any]) -> dict[str, Any]:
    """Hand the reserved pieces to a carrier."""
    order = Order.model_validate(context)
    time.sleep(shop().delay(0.12))
    address = order.shipping_info
    shipped = shop().ship(
        current_step().idempotency_key, order.id, context["reservation"], address.street, address.country
    )
    return {"carrier": shipped["carrier"], "tracking_number": shipped["tracking_number"]}


@worker("cancel_shipment")
def cancel_shipment(context: dict[str, Any]) -> dict[str, Any]:
    """Call the parcel back into the warehouse."""
    time.sleep(shop().delay(0.12))
    key = current_step().idempotency_key
    return {"shipment_cancelled": shop().cancel_shipment(f"{key}/undo", context["id"], of=key)}


@worker("notify_customer", retry=UNLESS_REFUSED)
def notify_customer(context: dict[str, Any]) -> dict[str, Any]:
    """Mail the confirmation. No parcel leaves unannounced: an address that bounces turns the order back."""
    order = Order.model_validate(context)
    time.sleep(shop().delay(0.05))
    text = f"{context['confirmation']}\n{context['carrier']} brings it: {context['tracking_number']}"
    return shop().mail(current_step().idempotency_key, order.id, order.shipping_info.email, text)
