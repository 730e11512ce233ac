"""The steps of a transfer and its one undo, as workers."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from examples.money_transfer.banks import OPENING, Banks
from examples.world import NoAnswerError, RefusedError
from multiagents import OutcomeUnknownError, RetryPolicy, TerminalError, current_step, worker

#: What the outside world refuses, it refuses again; what is down is asked once more.
UNLESS_REFUSED = RetryPolicy(max_attempts=2, initial_interval=0.3, jitter=False, non_retryable=(RefusedError,))


@cache
def banks() -> Banks:
    """The banks of this process, opened at first use: importing this module opens nothing."""
    return Banks.from_environment()


@worker("check_transfer")
def check_transfer(context: dict[str, Any]) -> dict[str, Any]:
    """Check what can be checked without moving money."""
    if context["source"] not in OPENING or context["amount"] <= 0:
        raise TerminalError(f"{context['amount']} cents from {context['source']} is no transfer")
    return {"checked": True}


@worker("debit_account", retry=UNLESS_REFUSED)
def debit_account(context: dict[str, Any]) -> dict[str, Any]:
    """Take the money from the source."""
    time.sleep(banks().delay(0.15))
    banks().debit(current_step().idempotency_key, context["id"], context["source"], context["amount"])
    return {"debited": context["amount"]}


@worker("give_back")
def give_back(context: dict[str, Any]) -> dict[str, Any]:
    """Give the money back to the source."""
    time.sleep(banks().delay(0.2))
    return {"given_back": banks().undo("give back", current_step().idempotency_key, context["id"], "debit")}


@worker("settle_transfer", retry=UNLESS_REFUSED)
def settle_transfer(context: dict[str, Any]) -> dict[str, Any]:
    """Credit the account at the other bank: the point of no return."""
    time.sleep(banks().delay(0.2))
    try:
        banks().credit(current_step().idempotency_key, context["id"], context["target"], context["amount"])
    except NoAnswerError as error:
        raise OutcomeUnknownError(str(error)) from error
    return {"settled": context["amount"]}


@worker("report_transfer", retry=UNLESS_REFUSED)
def report_transfer(context: dict[str, Any]) -> dict[str, Any]:
    """Report it to the register."""
    time.sleep(banks().delay(0.1))
    return banks().report(current_step().idempotency_key, context["id"], context["amount"])


@worker("write_receipt")
def write_receipt(context: dict[str, Any]) -> dict[str, Any]:
    """Write what the customer is given."""
    return {"receipt": f"{context['amount']} cents went to {context['target']}, reported as {context['report']}"}
