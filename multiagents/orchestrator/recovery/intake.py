"""What foreign producers publish on the bus is taken in, one event at a time.

An event that cannot be taken in holds up none behind it. If that may change, because its run cannot be read now or
others keep writing to it, it is left unacknowledged and comes again; if it will not, or has been so too often, it goes
to the dead letters beside its run.
"""

from __future__ import annotations

import logging
import time

from multiagents.event_bus import EventBus
from multiagents.event_bus.base import MAX_DELIVERIES
from multiagents.event_bus.entry import Entry
from multiagents.events import ErrorEvent, Event, ResultEvent
from multiagents.exceptions import (
    ConfigurationError,
    DecodeError,
    EventBusError,
    PayloadStoreError,
    StateConflictError,
    StateRefusedError,
    StateStoreError,
    WorkflowNotFoundError,
)
from multiagents.orchestrator.engine import Engine, keep

__all__ = ["GROUP", "Intake"]

logger = logging.getLogger(__name__)

#: The consumer group under which all workers read the bus.
GROUP = "multiagents"
#: Seconds until an event that a worker has read and not acknowledged is read by another.
STALE_AFTER = 30.0
#: How many events one read takes, of each partition: they may be large, and who dies with them delays all of them.
AT_ONCE = 20
#: Seconds that one call may go on reading while there is more.
LONG_ENOUGH = 1.0


class Intake:
    """One worker's share of the events on the bus.

    Args:
        bus: where they are.
        engine: takes them in.
        consumer: this worker's name.
    """

    def __init__(self, bus: EventBus, engine: Engine, consumer: str) -> None:
        self._bus = bus
        self._engine = engine
        self._consumer = consumer
        self._look_at = 0.0

    def read(self) -> None:
        """Take in what is there, for a while.

        Raises:
            EventBusError: when the bus is away.
            StateStoreError: when the store is away; what was read comes again.
        """
        until = time.monotonic() + LONG_ENOUGH
        while self.take() and time.monotonic() < until:
            pass

    def take(self) -> int:
        """Take in what one read brings; how many events those were."""
        entries = self._next()
        for entry in entries:
            self._one(entry)
        return len(entries)

    def _next(self) -> list[Entry]:
        if time.monotonic() >= self._look_at:
            idle = round(STALE_AFTER * 1000)
            # What was handed out too often without an answer ended its readers, one after the other.
            stale = self._bus.claim_entries(GROUP, self._consumer, idle, AT_ONCE, MAX_DELIVERIES)
            if stale:
                return stale
            # One look in each quarter of the interval: an event waits a quarter longer at most.
            self._look_at = time.monotonic() + STALE_AFTER / 4
        return self._bus.group_entries(GROUP, self._consumer, AT_ONCE, None)

    def _one(self, entry: Entry) -> None:
        try:
            event = entry.decode()
        except DecodeError as error:
            self._bus.reject(entry, GROUP, error)
            return
        try:
            if isinstance(event, ResultEvent | ErrorEvent):
                self._engine.receive(event)
        except EventBusError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an event, or its run's data, comes to
            if not self._is_settled(entry, event, error):
                return
        self._bus.ack(GROUP, entry.id)

    def _is_settled(self, entry: Entry, event: Event, error: Exception) -> bool:
        """See to an event that was not taken in; whether it need not come again."""
        if isinstance(error, StateStoreError) and not isinstance(error, StateRefusedError | PayloadStoreError):
            self._engine.store.reach()  # away: nothing can be taken in now
        if isinstance(error, _MAY_CHANGE) and entry.deliveries < MAX_DELIVERIES:
            logger.warning("event %s of run %r comes again: %s", event.id, event.transaction_id, error)
            return False
        why = f"the event could not be taken in: {type(error).__name__}: {error}"
        logger.error("event %s of run %r is a dead letter: %s", event.id, event.transaction_id, why, exc_info=error)
        try:
            keep(self._engine.store, event, why)
        except Exception as worse:  # noqa: BLE001 - the bus has dead letters of its own
            self._bus.give_up(GROUP, entry, f"{why}; and it could not be kept beside its run: {worse}")
        return True


#: With these, another process or another moment may have more luck.
_MAY_CHANGE = (ConfigurationError, StateConflictError, StateStoreError, WorkflowNotFoundError)
