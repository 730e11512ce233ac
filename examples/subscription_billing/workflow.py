"""The subscription as a saga: a loop of a charge, a month, and a look whether notice was given."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from examples.subscription_billing.workers import charge_month, close_access, open_access, refund_month
from multiagents import Sleep, Step, Wait, WorkflowBuilder

#: Seconds of a month: in life ``30 * 86_400``, and nothing else changes. No process waits meanwhile.
MONTH = 0.7
#: Months of the term.
TERM = 4


class Notice(BaseModel):
    """What the signal ``notice`` says: why the subscription ends."""

    ended: str


def goes_on(context: dict[str, Any]) -> bool:
    """Whether the customer is still one."""
    return "ended" not in context


def has_ended(context: dict[str, Any]) -> bool:
    """Whether this month was the last one."""
    return "ended" in context


subscription_billing = (
    WorkflowBuilder("subscription_billing", version="1")
    .add_step("access", open_access, compensation=close_access)
    .add_loop(
        "billing",
        [
            Step("charge", charge_month, compensation=refund_month),
            Sleep("month", MONTH, when=goes_on),
            # A notice is kept from whenever it comes to the end of the month that is paid; what it says is merged into
            # the context, where a month that could not be charged says the same.
            Wait("notice", schema=Notice, timeout=0.05, on_timeout="continue", merge=True, when=goes_on),
        ],
        until=has_ended,
        max_iterations=TERM,
    )
    .add_step("close", close_access, no_compensation="nothing can fail behind it")
    .build()
)
