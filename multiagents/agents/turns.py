"""Limits of what an agent calls: a call waits for its turn within the attempt, or has the attempt come again.

A wait of up to two seconds is waited in place. A longer one frees the worker: the attempt is given back, and finds all
that it was answered in its journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from multiagents.agents.by_model import found_for
from multiagents.clock import to_ms
from multiagents.exceptions import TerminalError, WorkflowError
from multiagents.state_store import pause_ms
from multiagents.state_store.records import Begun
from multiagents.worker_sdk.attempt.asked import GivenBack
from multiagents.worker_sdk.attempt.rate_limits import Slot
from multiagents.workflow.definition import Limit, filled_template

if TYPE_CHECKING:
    from multiagents.agents.calls import Calls

#: Seconds that are waited in place, over all; a longer wait frees the worker.
IN_PLACE = 2.0
#: Seconds after which a call asks again whose attempt is asking a model meanwhile, which would be lost if it left.
AMONG_OTHERS = 0.25
#: Where all slots are taken it is asked again after so many ms, while the call waits in place.
_SHORTLY_MS = 250
_MINUTE_US = 60_000_000


class Share(NamedTuple):
    """What a call takes of a limit.

    Attributes:
        key: what is limited.
        concurrency: how many calls at once; 0 is without limit.
        every_us: microseconds between two beginnings; 0 is without limit.
        weight: for how many beginnings the call counts.
        is_guess: that is corrected once the call is answered.
    """

    key: str
    concurrency: int = 0
    every_us: int = 0
    weight: int = 1
    is_guess: bool = False


def shares_of_model(model: str, limits: Mapping[str, Mapping[str, float]], tokens: int) -> list[Share]:
    """What a call of a model takes of ``multiagents_lm_limits``.

    Args:
        model: what is asked.
        limits: the setting.
        tokens: how many the call is thought to take.
    """
    found = found_for(model, limits)
    if found is None:
        return []
    name, limit = found
    shares = []
    if "tokens_per_minute" in limit:
        every = max(1, round(_MINUTE_US / limit["tokens_per_minute"]))
        shares.append(Share(f"lm:{name}:tokens", every_us=every, weight=tokens, is_guess=True))
    concurrency, requests = int(limit.get("concurrency", 0)), limit.get("requests_per_minute", 0)
    if concurrency or requests:
        shares.append(Share(f"lm:{name}", concurrency, round(_MINUTE_US / requests) if requests else 0))
    return shares


def share_of(limit: Limit, context: Mapping[str, Any]) -> Share:
    """What a call takes of a `Limit`.

    Raises:
        TerminalError: when the context does not fill its key.
    """
    try:
        key = filled_template(limit.key, context)
    except WorkflowError as error:
        raise TerminalError(f"a tool was not called, for its limit is not known: {error}") from error
    return Share(key, limit.concurrency or 0, round(limit.every * 1_000_000))


class Turn:
    """The turn of one call that was begun, under all its limits.

    Args:
        calls: those of the attempt.
        begun: the call.
        shares: what it takes.
    """

    def __init__(self, calls: Calls, begun: Begun, shares: Sequence[Share]) -> None:
        self._calls = calls
        self._begun = begun
        self._shares = shares if calls.step.limited else ()
        self._taken: list[tuple[Share, Slot]] = []
        self._waited = 0.0

    def take(self) -> float:
        """Ask whether it may be made now.

        Returns:
            in how many seconds to ask again; 0: it may.

        Raises:
            Leave: when it has to wait for longer than anybody waits in place.
        """
        step = self._calls.step
        correlation = step.claim.correlation
        for share in self._shares[len(self._taken) :]:
            store = step.store_here()
            answer = store.isolation.take_slot(
                share.key,
                correlation,
                concurrency=share.concurrency,
                every_us=share.every_us,
                pause_ms=_SHORTLY_MS if self._waited < IN_PLACE else self._pause_ms(),
                call=self._begun.slot,
                weight=share.weight,
            )
            if not answer.granted:
                return self._wait(share, answer.wait_ms / 1000)
            slot = Slot(store, share.key, correlation, self._begun.slot)
            step.hold(slot)
            self._taken.append((share, slot))
        return 0.0

    def end(self, used: int | None = None) -> None:
        """Give back what it has, and correct what was guessed.

        Args:
            used: what it weighed; None: as it was thought.
        """
        for share, slot in self._taken:
            more = 0 if used is None or not share.is_guess else used - share.weight
            self._calls.step.let_go(slot, more * share.every_us)
        self._taken = []

    def give_up(self) -> None:
        """Give back what it has, for the call is not made."""
        for share, slot in self._taken:
            self._calls.step.let_go(slot, -share.weight * share.every_us)
        self._taken = []

    def _wait(self, share: Share, seconds: float) -> float:
        if self._calls.under_way:
            return min(seconds, AMONG_OTHERS)
        if self._waited + seconds <= IN_PLACE:
            self._waited += seconds
            return seconds
        self.give_up()
        self._calls.withhold(self._begun)
        longer = seconds if share.every_us else max(seconds, self._pause_ms() / 1000)
        why = f"its turn under the limit {share.key!r} has not come"
        raise self._calls.leave(GivenBack(why, longer, target=share.key))

    def _pause_ms(self) -> int:
        """How long to wait where nobody knows: ever longer."""
        step = self._calls.step
        correlation, now_ms = step.claim.correlation, to_ms(step.store_here().now())
        activity = step.claim.state.step(correlation.step).activity(correlation.direction)
        return pause_ms(now_ms - (activity.scheduled_at or now_ms))
