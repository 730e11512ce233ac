"""What the heartbeats of steps say while somebody watches a run."""

from __future__ import annotations

from typing import Any

from multiagents.events import CommandEvent, CompensationEvent, Event, StatusEvent
from multiagents.state_store import StateStore

#: Seconds between two looks at what heartbeats say.
LOOK_EVERY = 1.0
#: How many steps are looked at.
MOST = 100


class Progress:
    """Tells what is new of the heartbeats of a run's steps; while no worker has a step, there is nothing to ask.

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

    @property
    def is_silent(self) -> bool:
        """Whether no worker has a step."""
        return not self._out

    def take_in(self, event: Event) -> None:
        """Learn from the history which steps are out."""
        if event.step is None:
            return
        if isinstance(event, CommandEvent | CompensationEvent) and event.worker:
            self._out[event.step] = None
        else:
            self._out.pop(event.step, None)

    def look(self) -> list[Event]:
        """What heartbeats say that they did not say the last time."""
        news: list[Event] = []
        for step, detail in self._store.details(self._transaction_id, list(self._out)[:MOST]).items():
            if step not in self._told or self._told[step] != detail:
                self._told[step] = detail
                news.append(
                    StatusEvent(transaction_id=self._transaction_id, step=step, status="heartbeat", payload=detail)
                )
        return news
