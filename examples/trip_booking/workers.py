"""The steps of a trip and their undos, as workers."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from examples.trip_booking.agency import Agency
from examples.world import NoAnswerError, RefusedError
from multiagents import OutcomeUnknownError, RetryPolicy, current_step, worker

#: What the outside world refuses, it refuses again.
UNLESS_REFUSED = RetryPolicy(max_attempts=3, initial_interval=0.3, non_retryable=(RefusedError,))


@cache
def agency() -> Agency:
    """The agency of this process, opened at first use: importing this module opens nothing."""
    return Agency.from_environment()


def _book(kind: str, context: dict[str, Any], seconds: float) -> dict[str, Any]:
    time.sleep(agency().delay(seconds))
    try:
        return agency().book(kind, current_step().idempotency_key, context["id"], context["where"])
    except NoAnswerError as error:
        raise OutcomeUnknownError(str(error)) from error


def _cancel(kind: str, context: dict[str, Any], seconds: float) -> dict[str, Any]:
    time.sleep(agency().delay(seconds))
    return {"cancelled": agency().undo(f"cancel {kind}", current_step().idempotency_key, context["id"], kind)}


@worker("book_flight", retry=UNLESS_REFUSED)
def book_flight(context: dict[str, Any]) -> dict[str, Any]:
    """Book the flight."""
    return _book("flight", context, 0.5)


@worker("cancel_flight")
def cancel_flight(context: dict[str, Any]) -> dict[str, Any]:
    """Give the seat back."""
    return _cancel("flight", context, 0.5)


@worker("book_hotel", retry=UNLESS_REFUSED)
def book_hotel(context: dict[str, Any]) -> dict[str, Any]:
    """Book the room."""
    return _book("hotel", context, 0.3)


@worker("cancel_hotel")
def cancel_hotel(context: dict[str, Any]) -> dict[str, Any]:
    """Give the room back."""
    return _cancel("hotel", context, 0.6)


@worker("book_car", retry=UNLESS_REFUSED)
def book_car(context: dict[str, Any]) -> dict[str, Any]:
    """Book the car."""
    return _book("car", context, 0.4)


@worker("cancel_car")
def cancel_car(context: dict[str, Any]) -> dict[str, Any]:
    """Give the car back; where none was booked, this is a recorded no-op."""
    return _cancel("car", context, 0.4)


@worker("pay_trip", retry=UNLESS_REFUSED)
def pay_trip(context: dict[str, Any]) -> dict[str, Any]:
    """Charge the traveller's card."""
    time.sleep(agency().delay(0.2))
    return agency().charge(current_step().idempotency_key, context["id"], context["price"], context["token"])
