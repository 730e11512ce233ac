"""The sweep and the reading of the bus, in a thread of each worker.

A thread of its own, because the worker's main loop must not wait for Redis, and stands still under the solo pool while
a step runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property

from multiagents.event_bus import EventBus
from multiagents.exceptions import MultiAgentsError, StateRefusedError, StateStoreError
from multiagents.names import Correlation
from multiagents.orchestrator.engine import Engine
from multiagents.orchestrator.recovery.announcer import Announcer
from multiagents.orchestrator.recovery.intake import GROUP, Intake
from multiagents.orchestrator.recovery.sweep import Sweep
from multiagents.state_store.records import Node

logger = logging.getLogger(__name__)

#: Seconds between two times that a worker tidies up.
TIDY_EVERY = 600.0
#: A worker that has not asked the bus for so long, in ms, is no more.
SILENT_MS = 86_400_000
#: How many of the messages that a worker has not begun with it lets others have, once a lease.
SPARED = 10


class Upkeep:
    """What a worker does beside its steps, about once a second.

    Args:
        engine: makes an engine whose store gives up at once; called in the thread.
        bus: opens the bus; called in the thread.
        consumer: this worker's name.
        about: what this worker announces of itself, as it is now.
        held: the attempts whose messages it has taken and not begun with, oldest first.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        bus: Callable[[], EventBus],
        consumer: str,
        about: Callable[[], Node],
        held: Callable[[], Sequence[Correlation]] = tuple,
    ) -> None:
        self._open_engine = engine
        self._open_bus = bus
        self._consumer = consumer
        self._about = about
        self._held = held
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
        duties = Duties(self._open_engine(), self._open_bus, self._consumer, self._about, self._held)
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = duties.do()
        duties.end()


class Duties:
    """What there is to do, and when; a duty that comes to grief keeps none of the others from being done."""

    def __init__(
        self,
        engine: Engine,
        bus: Callable[[], EventBus],
        consumer: str,
        about: Callable[[], Node],
        held: Callable[[], Sequence[Correlation]] = tuple,
    ) -> None:
        self._engine = engine
        self._open_bus = bus
        self._consumer = consumer
        self._held = held
        self._sweep = Sweep(engine)
        self._intake: Intake | None = None
        self._checked = False
        self._announcer = Announcer(engine, about)
        #: what was held at the last look
        self._held_before: set[Correlation] = set()
        #: seconds until the sweep has more to do
        self._pause = 0.0
        #: what is done now and then, and what is done whenever the sweep wakes
        self._duties: dict[str, Callable[[], None]] = {
            "check": self._check,
            "announce": self._announcer.announce,
            "hold": Paced(self._hold, engine.settings.lease / 3),
            "sweep": self._tick,
            "read": Paced(self._read, engine.settings.sweep_interval),
            "tidy": Paced(self._tidy, TIDY_EVERY),
        }
        #: duties of which it has been said that they wait
        self._said: set[str] = set()

    def do(self) -> float:
        """Do what is due.

        Returns:
            the seconds until there may be more.
        """
        self._pause = self._engine.settings.sweep_interval
        for name, duty in self._duties.items():
            try:
                duty()
                self._said.discard(name)
            except MultiAgentsError as error:
                # An outage is no news after the first line; whatever is due stays due.
                logger.log(logging.DEBUG if name in self._said else logging.ERROR, "upkeep waits: %s", error)
                self._said.add(name)
                if isinstance(error, StateStoreError) and not isinstance(error, StateRefusedError):
                    self._announcer.again()  # the server that comes back may have forgotten it
                    break
            except Exception:
                logger.exception("upkeep met an error; it goes on")
        return self._pause

    @cached_property
    def _bus(self) -> EventBus:
        return self._open_bus()

    def end(self) -> None:
        """Say that this worker goes; where that fails, it is noticed."""
        try:
            self._announcer.withdraw()
        except MultiAgentsError as error:
            logger.debug("it could not be said that this worker goes: %s", error)

    def _check(self) -> None:
        if not self._checked:
            for finding in self._engine.store.check():
                logger.error("state store: %s", finding)
            self._checked = True

    def _hold(self) -> None:
        """Say of messages that are here and wait their turn that they are not lost.

        Not of the first few, which others may have that are idle while this worker has a long step in hand; nor of what
        has come since the last look.
        """
        held = self._held()
        known, self._held_before = self._held_before, set(held)
        self._engine.store.hold([each for each in held[SPARED:] if each in known])

    def _tick(self) -> None:
        self._pause = self._sweep.tick()

    def _read(self) -> None:
        self._intake = self._intake or Intake(self._bus, self._engine, self._consumer)
        self._intake.read()

    def _tidy(self) -> None:
        for key in self._engine.store.tidy(round(self._engine.settings.dead_letter_retention * 1000)):
            logger.warning("dead letter %s has gone: nobody settled it, and its retention is over", key)
        self._engine.store.examples.tidy(round(self._engine.settings.example_retention * 1000))
        self._bus.remove_silent_consumers(GROUP, SILENT_MS)


class Paced:
    """A duty that is done now and then, however often it is called."""

    def __init__(self, duty: Callable[[], None], seconds: float) -> None:
        self._duty = duty
        self._seconds = seconds
        self._next = 0.0

    def __call__(self) -> None:
        """Do it, if it is time."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._seconds
            self._duty()
