"""A subscription: a thread that takes entries from a feed and gives their events to a handler.

The rules:

1. An entry leaves the feed (``done``) only after the handler returned. What is to be told the bus and cannot be, as the
   connection is lost, is kept and told first when it is back: so a reconnect alone does not handle an event twice.
2. A handler that raises is logged. What then becomes of the entry is the feed's affair: with a group it comes again.
3. An entry that nobody can read is set aside and never blocks the ones behind it.
4. Nothing that a monitor or a logger raises reaches the feed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from multiagents.event_bus.entry import Entry
from multiagents.events import Event
from multiagents.exceptions import DecodeError

#: Seconds that one read waits for new entries: also the longest that ``stop()`` has to wait for an idle subscription.
BLOCK = 0.5
#: Seconds between the first attempts to reconnect; doubled each time.
FIRST_BACKOFF = 0.05
#: Seconds that no wait between two attempts to reconnect exceeds.
MAX_BACKOFF = 2.0


class BusMonitor(Protocol):
    """What a bus tells a monitor, if it is given one (`multiagents.monitoring.EventMonitor` is such a monitor)."""

    def published(self, event: Event) -> object:
        """Note that the event is on the bus."""

    def received(self, event: Event) -> object:
        """Note that a subscription took the event and is about to handle it."""

    def handled(self, event: Event, seconds: float, error: BaseException | None) -> object:
        """Note that the handler came to an end, after so many seconds, with this error or with none."""


class BusLogger(Protocol):
    """Where a bus writes; a `logging.Logger` is one."""

    def warning(self, message: str, /) -> object:
        """Write what an operator may want to look at."""

    def error(self, message: str, /) -> object:
        """Write what went wrong."""


class Feed(Protocol):
    """Where a subscription takes its entries from. A lost connection is an `EventBusError`."""

    def take(self, block: float) -> list[Entry]:
        """Wait up to ``block`` seconds for entries and return those there are."""

    def done(self, entry: Entry) -> None:
        """Note that the entry is settled."""

    def failed(self, entry: Entry, error: Exception) -> None:
        """Note that the handler raised."""

    def reject(self, entry: Entry, error: DecodeError) -> None:
        """Set aside an entry that cannot be read."""

    def close(self) -> None:
        """Leave the bus; called once, by the thread that read."""


class Subscription:
    """Events on their way to a handler; made by `EventBus.subscribe`, ended by `stop` or at the end of ``with``."""

    def __init__(
        self,
        feed: Feed,
        handler: Callable[[Event], object],
        *,
        name: str,
        types: Collection[type[Event]] | None,
        transaction_id: str | None,
        monitor: BusMonitor | None,
        logger: BusLogger,
    ) -> None:
        self._feed = feed
        self._handler = handler
        self._types = tuple(types) if types is not None else None
        self._transaction_id = transaction_id
        self._monitor = monitor
        self._logger = logger
        self._stopping = threading.Event()
        #: what the feed has not been told yet, oldest first
        self._owed: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether its thread is alive."""
        return self._thread.is_alive()

    def stop(self, timeout: float = 5.0) -> bool:
        """End the subscription, after the event that is being handled. A handler may stop its own subscription.

        Args:
            timeout: seconds to wait for the handler.

        Returns:
            Whether it has ended; False when the handler is still at work (it ends when that returns).
        """
        self._stopping.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        backoff = FIRST_BACKOFF
        while not self._stopping.is_set():
            try:
                self._settle()
                entries = self._feed.take(BLOCK)
            except Exception as error:  # noqa: BLE001  the thread must outlive whatever a reader meets
                if backoff == FIRST_BACKOFF:
                    message = f"subscription {self._thread.name} lost the bus and tries again: {error}"
                    self._logger.warning(message)
                self._stopping.wait(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF)
                continue
            backoff = FIRST_BACKOFF
            for entry in entries:
                if self._stopping.is_set():
                    break
                self._one(entry)
        try:
            self._settle()
            self._feed.close()
        except Exception as error:  # noqa: BLE001  nobody is there to catch it
            message = f"subscription {self._thread.name} ended without the bus: {error}"
            self._logger.warning(message)

    def _one(self, entry: Entry) -> None:
        try:
            event = entry.decode()
        except DecodeError as error:
            problem = error
            self._tell(lambda feed: feed.reject(entry, problem))
            return
        if self._wants(event):
            failure = self._handle(event)
            if failure is not None:
                message = (
                    f"handler of subscription {self._thread.name} raised {type(failure).__name__}: {failure} on "
                    f"{event.type} event {event.id} of run {event.transaction_id!r} (delivery {entry.deliveries})"
                )
                self._logger.error(message)
                self._tell(lambda feed: feed.failed(entry, failure))
                return
        self._tell(lambda feed: feed.done(entry))

    def _wants(self, event: Event) -> bool:
        return (self._types is None or isinstance(event, self._types)) and (
            self._transaction_id is None or event.transaction_id == self._transaction_id
        )

    def _handle(self, event: Event) -> Exception | None:
        monitor = self._monitor
        if monitor is not None:
            guard(self._logger, lambda: monitor.received(event))
        failure: Exception | None = None
        started = time.perf_counter()
        try:
            self._handler(event)
        except Exception as error:  # noqa: BLE001  user code raises what it likes
            failure = error
        if monitor is not None:
            seconds = time.perf_counter() - started
            guard(self._logger, lambda: monitor.handled(event, seconds, failure))
        return failure

    def _tell(self, report: Callable[[Feed], None]) -> None:
        self._owed.append(lambda: report(self._feed))
        with suppress(Exception):  # it is told again before the next read, which reports the outage and waits
            self._settle()

    def _settle(self) -> None:
        while self._owed:
            self._owed[0]()
            del self._owed[0]


def guard(logger: BusLogger, call: Callable[[], object]) -> None:
    """Call a monitor, and log what it raises."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  rule 4
        message = f"the event monitor raised {type(error).__name__}: {error}; the event goes on all the same"
        logger.warning(message)
