"""What the heartbeats of steps say while somebody watches a run."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from typing import Any

from multiagents.events import CommandEvent, CompensationEvent, Event, StatusEvent
from multiagents.state_store import StateStore
from multiagents.state_store.records import Ending

#: Seconds between two looks at what heartbeats say.
LOOK_EVERY = 1.0
#: How many steps are looked at.
MOST = 100


class Progress:
    """Tells what is new of the heartbeats of a run's steps; while no worker has a step, it asks nothing.

    Args:
        store: where the run is.
        transaction_id: the run.
    """

    def __init__(self, store: StateStore, transaction_id: str) -> None:
        self._store = store
        self._transaction_id = transaction_id
        #: the steps that a worker was asked for, and has not answered
        self._out: dict[str, None] = {}
        #: step -> what was told of it last
        self._told: dict[str, Any] = {}

    def take_in(self, event: Event) -> None:
        """Learn from the history which steps are out."""
        if event.step is None:
            return
        if isinstance(event, CommandEvent | CompensationEvent) and event.worker:
            self._out[event.step] = None
        else:
            self._out.pop(event.step, None)

    def until(self, news: Ending, every: float) -> Iterator[Event]:
        """What heartbeats say until there is news of the run.

        Args:
            news: the run's next event, or its end.
            every: seconds between two looks.
        """
        while self._out and not wait([news], every).done:
            steps = list(self._out)[:MOST]
            for step, detail in self._store.details(self._transaction_id, steps).items():
                if step not in self._told or self._told[step] != detail:
                    self._told[step] = detail
                    yield StatusEvent(
                        transaction_id=self._transaction_id, step=step, status="heartbeat", payload=detail
                    )
