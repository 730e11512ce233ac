"""Four trips: one that goes well, and three that are taken back: no car, no answer, no money.

``python -m examples.trip_booking.main``, from the project's folder.
"""

from __future__ import annotations

import sys

from examples._support.scene import Scene, in_words, run
from examples._support.world import NoAnswerError, RefusedError
from examples.trip_booking.workflow import trip_booking

BOOKED = ("flight", "hotel", "car")


def story(scene: Scene) -> None:
    """Book the trips one after the other, and show what became of each."""
    scene.print(trip_booking.diagram("ascii"))

    take_a_trip(scene, "T-1", "all goes well")

    scene.fail("car", "T-2", RefusedError("no car is left in Reykjavik"))
    take_a_trip(scene, "T-2", "no car is left", undone=("flight", "hotel"))

    scene.fail("car", "T-3", NoAnswerError("the car rental in Oslo did not answer in time"))
    take_a_trip(scene, "T-3", "the car rental does not answer: who knows?", undone=BOOKED)

    scene.fail("payment", "T-4", RefusedError("the card is declined: insufficient funds"))
    take_a_trip(scene, "T-4", "all is booked, and the card is declined", undone=BOOKED)

    scene.show_world([*BOOKED, "payment"], ["T-1", "T-2", "T-3", "T-4"])


def take_a_trip(scene: Scene, name: str, about: str, undone: tuple[str, ...] = ()) -> None:
    """Book a trip, wait for its end, and check what was undone, when, and whether that is so outside too."""
    trip = scene.start(trip_booking, name, price=89_000)
    if undone:
        seen = scene.end(trip, about, "compensated", **dict.fromkeys(undone, "undone"))
        # Undos that do not depend on each other go out in one commit, so they have one and the same time.
        sent = {event.step: f"{event.at:%H:%M:%S.%f}" for event in trip.history() if event.type == "compensation"}
        times = set(sent.values())
        figures = f"{', '.join(sent)} at {', '.join(sorted(times))}"
        scene.check(
            f"{name}: its undos go out at the same moment", set(sent) == set(undone) and len(times) == 1, figures
        )
    else:
        seen = scene.end(trip, about, "completed", flight="live", hotel="live", car="live", payment="live")
    outside = {effect.kind: effect.status for effect in scene.effects(name)}
    scene.check(f"{name}: the engine and the world agree", dict(seen.effects) == outside, in_words(outside))


if __name__ == "__main__":
    sys.exit(run("trip_booking", story, concurrency=3))
