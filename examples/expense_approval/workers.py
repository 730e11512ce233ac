"""The steps of a claim and its one undo, as workers. That somebody decides is no worker's affair."""

from __future__ import annotations

from typing import Any

from examples._support.world import Service
from multiagents import current_step, worker

# These stand for the clients of the office's accounting.
budget = Service("budget")
till = Service("payment")


@worker("hold_budget")
def hold_budget(context: dict[str, Any]) -> dict[str, Any]:
    """Set the money aside while somebody decides."""
    return {"held": budget.do(current_step().idempotency_key, context["id"], context["amount"])}


@worker("release_budget")
def release_budget(context: dict[str, Any]) -> dict[str, Any]:
    """Give the money back to the budget."""
    return {"released": budget.undo(current_step().idempotency_key, context["id"])}


@worker("pay_claim")
def pay_claim(context: dict[str, Any]) -> dict[str, Any]:
    """Pay what was approved, which may be less than what was claimed."""
    return {"paid": till.do(current_step().idempotency_key, context["id"], context["decision"]["granted"])}
