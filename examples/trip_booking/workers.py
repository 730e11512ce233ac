"""The steps of a trip and their undos, as workers."""

from __future__ import annotations

from typing import Any

from examples._support.world import NoAnswerError, RefusedError, Service
from multiagents import OutcomeUnknownError, RetryPolicy, current_step, worker

#: What the outside world refuses, it refuses again.
UNLESS_REFUSED = RetryPolicy(max_attempts=3, initial_interval=0.3, non_retryable=(RefusedError,))

# These stand for the clients of an airline, a hotel, a car rental and a bank.
airline = Service("flight", seconds=0.5)
hotel = Service("hotel", seconds=0.3)
rental = Service("car", seconds=0.4)
bank = Service("payment", seconds=0.2)


def ask(service: Service, context: dict[str, Any], amount: int = 0) -> str:
    """Ask for something; once, however often the step is tried, as its idempotency key stays the same."""
    try:
        return service.do(current_step().idempotency_key, context["id"], amount)
    except NoAnswerError as error:
        # It may have been done. That is no failure: the step is undone too, to be safe.
        raise OutcomeUnknownError(str(error)) from error


def take_back(service: Service, context: dict[str, Any]) -> bool:
    """Undo it: an undo has the key of the step that it undoes. Where nothing was done, this is a recorded no-op."""
    return service.undo(current_step().idempotency_key, context["id"])


@worker("book_flight", retry=UNLESS_REFUSED)
def book_flight(context: dict[str, Any]) -> dict[str, Any]:
    """Book the flight."""
    return {"flight": ask(airline, context)}


@worker("cancel_flight")
def cancel_flight(context: dict[str, Any]) -> dict[str, Any]:
    """Give the seat back."""
    return {"cancelled": take_back(airline, context)}


@worker("book_hotel", retry=UNLESS_REFUSED)
def book_hotel(context: dict[str, Any]) -> dict[str, Any]:
    """Book the room."""
    return {"hotel": ask(hotel, context)}


@worker("cancel_hotel")
def cancel_hotel(context: dict[str, Any]) -> dict[str, Any]:
    """Give the room back."""
    return {"cancelled": take_back(hotel, context)}


@worker("book_car", retry=UNLESS_REFUSED)
def book_car(context: dict[str, Any]) -> dict[str, Any]:
    """Book the car."""
    return {"car": ask(rental, context)}


@worker("cancel_car")
def cancel_car(context: dict[str, Any]) -> dict[str, Any]:
    """Give the car back."""
    return {"cancelled": take_back(rental, context)}


@worker("pay_trip", retry=UNLESS_REFUSED)
def pay_trip(context: dict[str, Any]) -> dict[str, Any]:
    """Charge the traveller's card."""
    return {"payment": ask(bank, context, context["price"])}
