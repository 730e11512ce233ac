"""Keep the leases of running steps alive, from a thread that runs whatever the steps do.

A step that is over within a third of its lease costs two dict operations here and no message: the thread looks at what
runs every sixth of a lease and renews what it saw for a third. A heartbeat that a worker sends wakes it at once.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from multiagents.exceptions import StateStoreError
from multiagents.worker_sdk.attempt.detail import plain
from multiagents.worker_sdk.execution import threads

if TYPE_CHECKING:
    from multiagents.names import Correlation
    from multiagents.state_store import StateStore
    from multiagents.state_store.records import Renewal
    from multiagents.worker_sdk.attempt.rate_limits import Slot

logger = logging.getLogger(__name__)

#: Seconds after its time limit when a step that still runs counts as one that cannot be stopped.
OVERDUE = 1.0


class Lease:
    """One attempt that runs in this process.

    Attributes:
        cancelled: the run is to stop.
        slot: what it has under a limit, which is kept with the lease.
        calls: what the calls that it makes have under limits, likewise; None: nothing ever.
        detail, sent: what its last heartbeat said of its progress, and what the store has of that.
        lost: the store has given the attempt to somebody else, or its time is over: the outcome will be refused.
    """

    __slots__ = (
        "_leases",
        "beat",
        "calls",
        "cancelled",
        "correlation",
        "detail",
        "limit_at",
        "lost",
        "owner",
        "renewed_at",
        "sent",
        "slot",
    )

    def __init__(
        self, leases: Leases, correlation: Correlation, owner: str, *, cancelled: bool, seconds: float
    ) -> None:
        self._leases = leases
        self.correlation = correlation
        self.owner = owner
        self.cancelled = cancelled
        self.lost = False
        self.slot: Slot | None = None
        self.calls: set[Slot] | None = None
        self.beat = False
        self.detail: Any = None
        self.sent: Any = None
        self.renewed_at = time.monotonic()
        #: when its time limit is reached; 0 is never
        self.limit_at = self.renewed_at + seconds if seconds else 0.0

    def heartbeat(self, detail: Any) -> None:
        """Have the lease renewed now, as the worker's own sign of life. Neither waits nor raises."""
        self.detail = plain(detail)
        self.beat = True
        self._leases.wake()


class Leases:
    """The leases of a process, and the thread that renews them, which starts with the first."""

    def __init__(self, store_here: Callable[[], StateStore], lease: float) -> None:
        """Take what is needed to renew.

        Args:
            store_here: gives the store that the calling thread may use.
            lease: how long a lease lasts, in seconds.
        """
        self._store_here = store_here
        self._lease = lease
        self._leases: dict[int, Lease] = {}
        self._started = False
        self._starting = threads.new_lock()
        self._bell = threads.new_lock()
        self._bell.acquire()
        self._failing = False

    def add(self, correlation: Correlation, owner: str, *, cancelled: bool, seconds: float) -> Lease:
        """Watch over an attempt that was just claimed; ``seconds`` is its time limit, 0 is none."""
        if not self._started:
            self._start()
        lease = Lease(self, correlation, owner, cancelled=cancelled, seconds=seconds)
        self._leases[id(lease)] = lease
        return lease

    def remove(self, lease: Lease) -> None:
        """Let go of an attempt that is over."""
        self._leases.pop(id(lease), None)

    def wake(self) -> None:
        """Have the thread look now."""
        with contextlib.suppress(RuntimeError):  # it is awake already
            self._bell.release()

    def _start(self) -> None:
        with self._starting:
            if not self._started:
                self._started = True
                threads.start_daemon(self._run, "multiagents-leases")

    def _run(self) -> None:
        while True:
            # After an outage leases are to be renewed before the extension that the sweep gives them is over.
            self._bell.acquire(True, min(self._lease / 6, 1.0) if self._failing else self._lease / 6)
            try:
                self._look()
            except Exception:
                logger.exception("leases could not be looked after this time; trying again in %g s", self._lease / 6)

    def _look(self) -> None:
        now = time.monotonic()
        for lease in list(self._leases.values()):
            if lease.lost:
                continue
            if lease.limit_at and now >= lease.limit_at + OVERDUE:
                self._give_up(lease)
            elif lease.beat or now - lease.renewed_at >= self._lease / 3:
                self._renew(lease, now)

    def _give_up(self, lease: Lease) -> None:
        # A function that cannot be stopped (on threads) must not keep its attempt for ever by way of our renewals.
        logger.warning(
            "attempt %s has reached its time limit and still runs, as it could not be stopped. The run moves on "
            "without it; its slot of this worker stays taken until the function returns",
            lease.correlation,
        )
        lease.lost = True

    def _renew(self, lease: Lease, now: float) -> None:
        beat, lease.beat = lease.beat, False
        try:
            store, slot = self._store_here(), lease.slot
            answer = self._answer(store, lease, beat=beat)
            if answer.alive:
                for each in (slot, *tuple(lease.calls or ())):
                    if each is not None:
                        each.keep(store)
        except Exception as error:  # noqa: BLE001 - any fault of the store: this thread has to go on
            lease.beat = lease.beat or beat
            if not self._failing:
                self._failing = True
                logger.warning(
                    "the lease of attempt %s was not renewed (%s: %s); trying on. If the state store stays away for "
                    "longer than the lease of %g s, the attempt counts as lost",
                    lease.correlation,
                    type(error).__name__,
                    error,
                    self._lease,
                )
            return
        if self._failing:
            self._failing = False
            logger.info("leases are renewed again")
        lease.renewed_at = now
        lease.cancelled = lease.cancelled or answer.cancelled
        if not answer.alive and id(lease) in self._leases:
            logger.warning("attempt %s is no longer ours; what it returns will be refused", lease.correlation)
            lease.lost = True

    def _answer(self, store: StateStore, lease: Lease, *, beat: bool) -> Renewal:
        detail = None if lease.detail is lease.sent else lease.detail
        try:
            answer = store.renew(lease.correlation, lease.owner, beat=beat, detail=detail)
            if detail is not None:
                lease.sent = detail
            return answer
        except StateStoreError:
            raise
        except Exception:
            if detail is None:
                raise
            # It is the detail that cannot be written (a codec refuses it): the lease is renewed without.
            logger.warning("the detail of a heartbeat of %s could not be kept", lease.correlation, exc_info=True)
            lease.sent = detail
            return store.renew(lease.correlation, lease.owner, beat=beat)
