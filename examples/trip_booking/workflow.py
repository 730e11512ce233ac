"""The trip as a saga: three bookings side by side, then the payment."""

from __future__ import annotations

from examples.trip_booking.workers import (
    book_car,
    book_flight,
    book_hotel,
    cancel_car,
    cancel_flight,
    cancel_hotel,
    pay_trip,
)
from multiagents import Step, WorkflowBuilder

trip_booking = (
    WorkflowBuilder("trip_booking", version="1")
    .add_parallel(
        "book",
        [
            Step("flight", book_flight, compensation=cancel_flight),
            Step("hotel", book_hotel, compensation=cancel_hotel),
            Step("car", book_car, compensation=cancel_car),
        ],
    )
    .add_step("payment", pay_trip, no_compensation="nothing can fail behind it")
    .build()
)
