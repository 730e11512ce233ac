"""Four trips: one that goes well, and three that are taken back: no car, no answer, no money.

``python -m examples.trip_booking.main``, from the project's folder.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from examples.books import Line, effects_table, keys_twice
from examples.scene import Scene, run
from examples.trip_booking.agency import Agency

BOOKED = ("flight", "hotel", "car")


@dataclass(frozen=True)
class Trip:
    """A trip, and how it is to end."""

    id: str
    about: str
    where: str
    status: str
    #: the steps that are undone, side by side
    undone: tuple[str, ...] = ()
    token: str = "tok_visa"


TRIPS = (
    Trip("T-1", "all goes well", "Lisbon", "completed"),
    Trip("T-2", "no car is left", "Reykjavik", "compensated", ("flight", "hotel")),
    Trip("T-3", "the car rental does not answer: who knows?", "Oslo", "compensated", BOOKED),
    Trip("T-4", "all is booked, and the card is declined", "Rome", "compensated", BOOKED, "tok_declined"),
)


def play(scene: Scene) -> list[Line]:
    """Book the trips one after the other, and show what became of each."""
    from examples.trip_booking.workflow import trip_booking

    scene.print(trip_booking.diagram("ascii"))
    lines = []
    for trip in TRIPS:
        booking = scene.start(trip_booking, trip.id, where=trip.where, price=89_000, token=trip.token)
        seen = scene.end(booking)
        scene.show(booking, trip.about)
        lines.append(_ended_as_it_should(trip, seen))
        if trip.undone:
            lines.append(_side_by_side(trip, booking.history()))
        lines.append(_agreed(trip, seen))
    effects = [effect for trip in TRIPS for effect in agency().effects(scene.id(trip.id))]
    ids = [scene.id(trip.id) for trip in TRIPS]
    scene.print(effects_table("What the world has", effects, [*BOOKED, "payment"], ids))
    return [*lines, keys_twice(agency())]


def agency() -> Agency:
    """The world, as the workers see it."""
    return Agency.from_environment()


def _ended_as_it_should(trip: Trip, seen: Any) -> Line:
    undone = tuple(name for name, step in seen.steps.items() if step.status == "compensated")
    figures = f"{seen.status}; undone: {', '.join(undone) or 'nothing'}"
    return Line(f"{trip.id} ends as {trip.status}", (seen.status, undone) == (trip.status, trip.undone), figures)


def _side_by_side(trip: Trip, history: list[Any]) -> Line:
    """The undos of a parallel block are sent out together: they stand in the history with one and the same time."""
    sent = {event.step: event.at for event in history if event.type == "compensation" and event.attempt == 1}
    holds = set(sent) == set(trip.undone) and len(set(sent.values())) == 1
    figures = ", ".join(f"{step} at {at:%H:%M:%S.%f}"[:-3] for step, at in sent.items())
    return Line(f"{trip.id}: its undos go out at the same moment", holds, figures)


def _agreed(trip: Trip, seen: Any) -> Line:
    """What the engine says of each effect is what the world has."""
    world = {effect.kind: effect.status for effect in agency().effects(seen.transaction_id)}
    said = dict(seen.effects)
    figures = ", ".join(f"{name} {status}" for name, status in said.items())
    return Line(f"{trip.id}: the engine and the world agree", said == world, figures)


if __name__ == "__main__":
    sys.exit(run("trip_booking", play, concurrency=3))
