"""An attempt whose message was taken by a worker that does not know its task: in a deployment, many do not yet."""

from __future__ import annotations

import random

from multiagents.names import Correlation
from multiagents.state_store.records import Delivery, Dispatch, InFlight

#: ms between two offers, at least.
SHORTEST_PAUSE = 500


def offered_later(found: InFlight, correlation: Correlation, *, now_ms: int, longest_ms: float) -> Dispatch:
    """The attempt as it is sent again after a pause.

    The pause grows with the time this has gone on. It is taken at odd lengths: idle workers take turns in a rhythm, and
    a message in that rhythm finds the same one every time. The time that the message had waited in the queue before
    somebody took it does not count.

    Args:
        found: the attempt's record.
        correlation: the attempt.
        now_ms: the store's clock.
        longest_ms: how long the pause may grow.
    """
    again = found.first_ms < found.since_ms
    waited = now_ms - found.first_ms if again else 0
    pause = max(min(waited, longest_ms), SHORTEST_PAUSE)
    return Dispatch(
        correlation.step,
        found.attempt_key,
        Delivery.UNREGISTERED,
        target=found.target,
        delay_ms=round(pause * random.uniform(0.5, 1.5)),  # noqa: S311 - no secret
        first_ms=found.first_ms if again else 0,
        close_ms=found.close_ms,
    )
