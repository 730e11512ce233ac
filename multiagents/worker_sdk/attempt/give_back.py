"""Give a claimed attempt back: it was none, and comes again.

It goes out again under the same correlation id, by a timer: no fact of the run, and none of the attempts that its retry
policy counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiagents.clock import to_ms
from multiagents.exceptions import OutcomeUnknownError, TerminalError
from multiagents.names import Direction
from multiagents.state_store.records import Claim, Delivery, Dispatch, attempt_key_of
from multiagents.workflow.state import RunStatus

if TYPE_CHECKING:
    from multiagents.state_store import StateStore


def give_back(
    store: StateStore, claim: Claim, delay_ms: int, why: str, *, target: str = "", begun: bool = False
) -> None:
    """Have a claimed attempt come again.

    Args:
        store: where its run is.
        claim: the attempt.
        delay_ms: when.
        why: it was not done, in words.
        target: what it waits for; the key of a limit.
        begun: it may have taken effect already; so its step is undone, should it never come again (rule S1b).

    Raises:
        TerminalError: when its run goes back: nothing ran, and nothing will.
        OutcomeUnknownError: likewise, of one that was begun.
    """
    correlation = claim.correlation
    direction = correlation.direction
    snapshot = store.load(correlation.transaction_id)
    if direction is Direction.DO and snapshot.state.status not in (RunStatus.RUNNING, RunStatus.PAUSED):
        if begun:
            raise OutcomeUnknownError(f"it was not finished: {why}, and the run goes back meanwhile")
        raise TerminalError(f"it was not begun: {why}, and the run goes back meanwhile")
    found = snapshot.in_flight.get(correlation.step)
    if found is not None and found.owner == claim.owner:
        activity = claim.state.step(correlation.step).activity(direction)
        closes = claim.definition.steps[correlation.step].schedule_to_close if direction is Direction.DO else None
        again = Dispatch(
            correlation.step,
            attempt_key_of(direction, correlation.attempt),
            Delivery.TIMER,
            target=target,
            delay_ms=delay_ms,
            close_ms=(activity.scheduled_at or to_ms(claim.now)) + round(closes * 1000) if closes else 0,
        )
        store.dispatch(correlation.identity, again, found.record, begun=begun)
