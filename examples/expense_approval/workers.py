"""The steps of a claim and its one undo, as workers. That somebody decides is no worker's affair."""

from __future__ import annotations

from functools import cache
from typing import Any

from examples.expense_approval.office import Office
from multiagents import current_step, worker


@cache
def office() -> Office:
    """The office of this process, opened at first use: importing this module opens nothing."""
    return Office.from_environment()


@worker("hold_budget")
def hold_budget(context: dict[str, Any]) -> dict[str, Any]:
    """Set the money aside while somebody decides."""
    return office().hold(current_step().idempotency_key, context["id"], context["amount"])


@worker("release_budget")
def release_budget(context: dict[str, Any]) -> dict[str, Any]:
    """Give the money back to the budget."""
    return {"released": office().undo("release", current_step().idempotency_key, context["id"], "budget")}


@worker("pay_claim")
def pay_claim(context: dict[str, Any]) -> dict[str, Any]:
    """Pay what was approved, which may be less than what was claimed."""
    return office().pay(current_step().idempotency_key, context["id"], context["granted"])
