"""The sweep and the reading of the bus, in a thread of each worker.

A thread of its own, because the worker's main loop must not wait for Redis, and stands still under the solo pool while
a step runs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from multiagents.event_bus import EventBus
from multiagents.events import ErrorEvent, ResultEvent
from multiagents.exceptions import MultiAgentsError
from multiagents.orchestrator.engine import Engine
from multiagents.orchestrator.recovery.sweep import Sweep

logger = logging.getLogger(__name__)

#: The consumer group under which all workers read the bus.
GROUP = "multiagents"
#: Seconds until an event that a dead worker had read from the bus is read by another.
STALE_AFTER = 30.0


class Upkeep:
    """What a worker does beside its steps, about once a second.

    Args:
        engine: makes an engine whose store gives up at once; called in the thread.
        bus: opens the bus; called in the thread.
        consumer: this worker's name.
    """

    def __init__(self, engine: Callable[[], Engine], bus: Callable[[], EventBus], consumer: str) -> None:
        self._open_engine = engine
        self._open_bus = bus
        self._consumer = consumer
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a daemon thread; calling it again does nothing."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._run, name="multiagents-upkeep", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End after the current tick."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout)
            self._thread = None

    def _run(self) -> None:
        engine = self._open_engine()
        sweep = Sweep(engine)
        interval = engine.settings.sweep_interval
        bus: EventBus | None = None
        silent = False
        checked = False
        announced = False
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = interval
            try:
                if not checked:
                    for finding in engine.store.check():
                        logger.error("state store: %s", finding)
                    checked = True
                if not announced:
                    engine.store.announce_workers(engine.dispatcher.workers_here())
                    announced = True
                pause = sweep.tick()
                bus = bus or self._open_bus()
                self._read(bus, engine)
                silent = False
            except MultiAgentsError as error:
                # An outage is no news after the first line; whatever is due stays due.
                logger.log(logging.DEBUG if silent else logging.ERROR, "upkeep waits: %s", error)
                silent = True
                announced = False  # the server that comes back may have forgotten it
                pause = interval
            except Exception:
                logger.exception("upkeep met an error; it goes on")

    def _read(self, bus: EventBus, engine: Engine) -> None:
        events = bus.read_group(GROUP, self._consumer)
        events += bus.claim_stale(GROUP, self._consumer, round(STALE_AFTER * 1000))
        for entry, event in events:
            if isinstance(event, ResultEvent | ErrorEvent):
                engine.receive(event)
            bus.ack(GROUP, entry)
