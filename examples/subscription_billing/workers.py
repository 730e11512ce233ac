"""The steps of a subscription and their undos, as workers."""

from __future__ import annotations

from functools import cache
from typing import Any

from examples.subscription_billing.provider import CardDeclinedError, Provider
from multiagents import RetryPolicy, current_step, worker

#: Dunning: a card that is declined is tried again, after twice as long each time. In life these are days.
DUNNING = RetryPolicy(max_attempts=3, initial_interval=0.2, backoff_coefficient=2.0, jitter=False)


@cache
def provider() -> Provider:
    """The provider of this process, opened at first use: importing this module opens nothing."""
    return Provider.from_environment()


@worker("open_access")
def open_access(context: dict[str, Any]) -> dict[str, Any]:
    """Let the customer in."""
    return provider().let_in(current_step().idempotency_key, context["id"])


@worker("close_access")
def close_access(context: dict[str, Any]) -> dict[str, Any]:
    """Let the customer in no more: at the end of the subscription, or as the undo of `open_access`."""
    return {"closed": provider().undo("close", context["access"], context["id"], "access")}


@worker("charge_month", retry=DUNNING)
def charge_month(context: dict[str, Any]) -> dict[str, Any]:
    """Charge the next month; where the last reminder was for nothing, the subscription ends unpaid.

    That is a result and no failure: a failure would turn the run back, and refund the months that were used.
    """
    step = current_step()
    month = context.get("month", 0) + 1
    try:
        return provider().charge(step.idempotency_key, context["id"], context["price"], context["token"], month)
    except CardDeclinedError:
        if step.attempt < DUNNING.max_attempts:
            raise
        return {"ended": "unpaid"}


@worker("refund_month")
def refund_month(context: dict[str, Any]) -> dict[str, Any]:
    """Give a month's money back; where nothing was charged, this is a recorded no-op."""
    return {"refunded": provider().undo("refund", current_step().idempotency_key, context["id"], "charge")}
