"""The steps of a subscription and their undos, as workers."""

from __future__ import annotations

from typing import Any

from examples._support.world import Service, UnavailableError
from multiagents import RetryPolicy, current_step, worker

#: Dunning: a card that is declined is tried again, after twice as long each time. In life these are days.
DUNNING = RetryPolicy(max_attempts=3, initial_interval=0.2, backoff_coefficient=2.0, jitter=False)

# These stand for the client of a payment provider, and for whoever lets customers in.
card = Service("charge")
door = Service("access")


@worker("open_access")
def open_access(context: dict[str, Any]) -> dict[str, Any]:
    """Let the customer in."""
    return {"access": door.do(f"access/{context['id']}", context["id"])}


@worker("close_access")
def close_access(context: dict[str, Any]) -> dict[str, Any]:
    """Let the customer in no more: a step at the end of the subscription, and the undo of `open_access`."""
    return {"closed": door.undo(f"access/{context['id']}", context["id"])}


@worker("charge_month", retry=DUNNING)
def charge_month(context: dict[str, Any]) -> dict[str, Any]:
    """Charge a month; where the last reminder was for nothing, the subscription ends unpaid.

    That is a result and no failure: a failure would turn the run back, and refund the months that were used.
    """
    step = current_step()
    try:
        return {"charged": card.do(step.idempotency_key, context["id"], context["price"])}
    except UnavailableError:
        if step.attempt < DUNNING.max_attempts:
            raise
        return {"ended": "unpaid"}


@worker("refund_month")
def refund_month(context: dict[str, Any]) -> dict[str, Any]:
    """Give a month's money back; where nothing was charged, this is a recorded no-op."""
    return {"refunded": card.undo(current_step().idempotency_key, context["id"])}
