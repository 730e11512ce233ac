"""Limits by key: may a claimed attempt run now? If not, it is given back, and occupies no worker while it waits.

It is given back under the same correlation id, for a timer to send it out again: no fact of the run, and none of the
attempts that its retry policy counts. A slot is renewed with the lease of its attempt and runs out with it, so that
a worker that is killed takes none with it for longer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from multiagents.clock import to_ms
from multiagents.exceptions import StateStoreError, TerminalError, WorkflowError
from multiagents.names import Direction
from multiagents.state_store import pause_ms
from multiagents.state_store.records import Claim, ClaimRefused
from multiagents.worker_sdk.attempt.give_back import give_back
from multiagents.workflow.definition import Limit, filled_template

if TYPE_CHECKING:
    from multiagents.names import Correlation
    from multiagents.state_store import StateStore
    from multiagents.worker_sdk.registry import Worker

logger = logging.getLogger(__name__)


class Slot:
    """A slot that an attempt, or a call that it makes, has under a limit."""

    __slots__ = ("_call", "_correlation", "_freed", "_key", "_store")

    def __init__(self, store: StateStore, key: str, correlation: Correlation, call: str = "") -> None:
        self._store = store
        self._key = key
        self._correlation = correlation
        self._call = call
        self._freed = False

    def keep(self, store: StateStore) -> None:
        """Have it for another lease; ``store`` is one that the calling thread may use."""
        of_a_call: dict[str, Any] = {"call": self._call} if self._call else {}
        store.isolation.take_slot(self._key, self._correlation, keep=True, **of_a_call)
        if self._freed:  # meanwhile, in another thread
            store.isolation.free_slot(self._key, self._correlation, **of_a_call)

    def free(self, later_us: int = 0) -> None:
        """Give it back, and have the next one wait so much longer; if that fails, it runs out."""
        self._freed = True
        try:
            of_a_call: dict[str, Any] = {"call": self._call, "later_us": later_us} if self._call else {}
            self._store.isolation.free_slot(self._key, self._correlation, **of_a_call)
        except StateStoreError as error:
            logger.warning("the slot of %s under limit %r runs out by itself: %s", self._correlation, self._key, error)


def limit_in_force(worker: Worker, claim: Claim) -> Limit | None:
    """The step's, for doing it; else the worker's."""
    own = claim.definition.steps[claim.correlation.step].limit
    if own is not None and claim.correlation.direction is Direction.DO and not claim.probing:
        return own
    return worker.limit


def take(store: StateStore, limit: Limit, claim: Claim) -> Slot | None:
    """Ask whether a claimed attempt may run.

    Returns:
        its slot; None where only the rate is limited.

    Raises:
        ClaimRefused: when it may not: it has been given back.
        TerminalError: when it may not, and its run goes back: nothing ran, and nothing will.
            Also when the context does not fill the limit's key.
    """
    correlation = claim.correlation
    try:
        key = filled_template(limit.key, claim.context if isinstance(claim.context, Mapping) else {})
    except WorkflowError as error:
        raise TerminalError(f"step {correlation.step!r} was not begun, for its limit is not known: {error}") from error
    activity = claim.state.step(correlation.step).activity(correlation.direction)
    now_ms = to_ms(claim.now)
    answer = store.isolation.take_slot(
        key,
        correlation,
        concurrency=limit.concurrency or 0,
        every_us=round(limit.every * 1_000_000),
        pause_ms=pause_ms(now_ms - (activity.scheduled_at or now_ms)),
    )
    if answer.granted:
        return Slot(store, key, correlation) if limit.concurrency else None
    give_back(store, claim, answer.wait_ms, f"its limit {key!r} is reached", target=key)
    raise ClaimRefused(correlation, f"its limit {key!r} is reached; it comes again in {answer.wait_ms / 1000:g} s")
