"""The six steps of an order and their three undos, as workers.

Each is an ordinary Celery task that is safe to run again: it hands the step's idempotency key to the outside world. One
of them asks a model.
"""

from __future__ import annotations

from typing import Any

from examples._support.shop import CATALOGUE, Shop, euros
from examples._support.world import NoAnswerError, RefusedError
from examples.ecommerce_order.order import Order
from multiagents import OutcomeUnknownError, RetryPolicy, TerminalError, current_step, dspy_worker, worker

#: What the outside world refuses, it refuses again; anything else is worth two more attempts.
UNLESS_REFUSED = RetryPolicy(max_attempts=3, initial_interval=0.3, non_retryable=(RefusedError,))
#: It stands for the clients of a warehouse, a payment provider, a carrier and a mail server.
shop = Shop()


class InvalidOrderError(TerminalError):
    """The order does not make sense."""


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
    return shop.reserve(current_step().idempotency_key, order.id, order.quantities())


@worker("release_stock")
def release_stock(context: dict[str, Any]) -> dict[str, Any]:
    """Put the reserved pieces back."""
    return {"released": shop.release(current_step().idempotency_key, context["id"])}


@worker("process_payment", retry=UNLESS_REFUSED, timeout=30)
async def process_payment(order: Order) -> dict[str, Any]:
    """Charge the card. Its process may be killed between the charge and the answer: `main` does just that."""
    try:
        token = order.payment_info.token
        return await shop.charge(current_step().idempotency_key, order.id, order.total_amount, token)
    except NoAnswerError as error:
        # The card may be charged. That is no failure: the step is undone too, to be safe.
        raise OutcomeUnknownError(str(error)) from error


@worker("refund_payment")
async def refund_payment(context: dict[str, Any]) -> dict[str, Any]:
    """Give the money back; where nothing was charged, this is a recorded no-op."""
    return {"refunded": await shop.refund(current_step().idempotency_key, context["id"])}


@dspy_worker(
    "write_confirmation",
    signature="order_details, customer_name -> confirmation_message",
    instructions="Thank the customer by name for the order, in two or three plain sentences. Promise nothing.",
)
async def write_confirmation(context: dict[str, Any]) -> None:
    """Have a model write what the customer is told. What has to be right is added by `notify_customer`."""


@worker("fulfil_order", retry=UNLESS_REFUSED)
def fulfil_order(context: dict[str, Any]) -> dict[str, Any]:
    """Hand the reserved pieces to a carrier."""
    order = Order.model_validate(context)
    address = order.shipping_info
    key, reservation = current_step().idempotency_key, context["reservation"]
    shipped = shop.ship(key, order.id, reservation, address.street, address.country)
    return {"carrier": shipped["carrier"], "tracking_number": shipped["tracking_number"]}


@worker("cancel_shipment")
def cancel_shipment(context: dict[str, Any]) -> dict[str, Any]:
    """Call the parcel back into the warehouse."""
    return {"shipment_cancelled": shop.cancel_shipment(current_step().idempotency_key, context["id"])}


@worker("notify_customer", retry=UNLESS_REFUSED)
def notify_customer(context: dict[str, Any]) -> dict[str, Any]:
    """Mail the confirmation. No parcel leaves unannounced: an address that bounces turns the order back."""
    order = Order.model_validate(context)
    paid = f"We charged {euros(order.total_amount)}." if order.total_amount else "Your gift card paid for all of it."
    carrier = f"{context['carrier']} brings it: {context['tracking_number']}"
    text = "\n".join([context["confirmation_message"], *order.lines(CATALOGUE), paid, carrier])
    return shop.mail(current_step().idempotency_key, order.id, order.shipping_info.email, text)
