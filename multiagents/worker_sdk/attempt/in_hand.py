"""Which attempts of a run a process has in hand, as the store knows it: for whoever saw it end, or may have to end it.

A message names the attempt that it brought. By the time its process is looked at, that may be over, and a local step
that follows from it may be in hand (`multiagents.orchestrator.engine.local_steps`), under the same token.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from multiagents.names import Correlation
from multiagents.state_store.records import Delivery, InFlight

if TYPE_CHECKING:
    from multiagents.state_store import StateStore


#: Called when the process of a step has ended, or is ending, before the step: with the step's Celery task, the id
#: and the arguments of the message that brought it, the node, the process, and why, in words that follow "its process
#: on worker ...".
broken_off: list[Callable[[Any, str, Any, str, int, str], None]] = []


class Tokens:
    """Makes the tokens under which a process claims: none is ever made twice, and each names its process."""

    def __init__(self) -> None:
        self._mine = uuid4().hex[:16]
        self._numbers = itertools.count()

    def next(self) -> str:
        """A token for one execution: a claim under the same one gets the same answer."""
        return f"{self._mine}:{os.getpid()}:{next(self._numbers)}"


def in_hand(store: StateStore, attempt: Correlation, node: str, pid: int) -> list[tuple[Correlation, InFlight]]:
    """The attempts that a process of a worker holds of the run of one that it was given.

    Args:
        store: where the run is.
        attempt: the one that it was given.
        node: the worker's Celery node name.
        pid: the process.
    """
    snapshot = store.load(attempt.transaction_id)
    if snapshot.state.nonce != attempt.nonce:
        return []
    return [
        (attempt._replace(step=found.step, direction=found.direction, attempt=found.attempt), found)
        for found in snapshot.in_flight.values()
        if found.delivery is Delivery.CLAIMED and found.worker == node and found.owner.split(":")[1:2] == [str(pid)]
    ]
