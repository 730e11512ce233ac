"""The steps of a transfer and its one undo, as workers."""

from __future__ import annotations

from typing import Any

from examples._support.world import NoAnswerError, RefusedError, Service
from multiagents import OutcomeUnknownError, RetryPolicy, TerminalError, current_step, worker

#: What the outside world refuses, it refuses again; what is down is asked once more.
UNLESS_REFUSED = RetryPolicy(max_attempts=2, initial_interval=0.3, jitter=False, non_retryable=(RefusedError,))

# These stand for the clients of two banks, and of the register that they report to.
own_bank = Service("debit", seconds=0.15)
other_bank = Service("credit", seconds=0.2)
register = Service("report", seconds=0.1)


@worker("check_transfer")
def check_transfer(context: dict[str, Any]) -> dict[str, Any]:
    """Check what can be checked without moving money."""
    if context["amount"] <= 0:
        raise TerminalError(f"{context['amount']} cents are no transfer")
    return {"checked": True}


@worker("debit_account", retry=UNLESS_REFUSED)
def debit_account(context: dict[str, Any]) -> dict[str, Any]:
    """Take the money from the source."""
    own_bank.do(current_step().idempotency_key, context["id"], context["amount"], account=context["source"])
    return {"debited": context["amount"]}


@worker("give_back")
def give_back(context: dict[str, Any]) -> dict[str, Any]:
    """Give the money back to the source."""
    return {"given_back": own_bank.undo(current_step().idempotency_key, context["id"])}


@worker("settle_transfer", retry=UNLESS_REFUSED)
def settle_transfer(context: dict[str, Any]) -> dict[str, Any]:
    """Credit the account at the other bank: the point of no return."""
    try:
        other_bank.do(current_step().idempotency_key, context["id"], context["amount"], account=context["target"])
    except NoAnswerError as error:
        raise OutcomeUnknownError(str(error)) from error
    return {"settled": context["amount"]}


@worker("report_transfer", retry=UNLESS_REFUSED)
def report_transfer(context: dict[str, Any]) -> dict[str, Any]:
    """Report it to the register, as the law wants it."""
    return {"report": register.do(current_step().idempotency_key, context["id"], context["amount"])}


@worker("write_receipt")
def write_receipt(context: dict[str, Any]) -> dict[str, Any]:
    """Write what the customer is given."""
    return {"receipt": f"{context['amount']} cents went to {context['target']}, reported as {context['report']}"}
