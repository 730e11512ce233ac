"""What an attempt says while it runs, on its way to the store: gathered for a moment, then written in one command.

Who says something waits for nobody. A thread of the process writes what was said, of all attempts, some times a second;
what is left is written when the attempt is over. A stream is for people who look on: nothing that goes wrong with it
makes a step fail, but for an item that is no JSON, or too large.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from multiagents.exceptions import WorkerError
from multiagents.interruption import is_interrupted
from multiagents.plain_json import dumps, plain
from multiagents.state_store.records import MAX_ENTRY, EntryKind, Said
from multiagents.worker_sdk.execution import threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from multiagents.state_store import StateStore
    from multiagents.state_store.records import Claim

logger = logging.getLogger(__name__)

#: Seconds for which what is said is gathered.
GATHER = 0.05
#: How many entries one command writes.
AT_ONCE = 200
#: How many entries wait for being written; who says more writes them himself.
MOST_WAITING = 1_000
#: Characters of pieces of text that become one entry.
MOST_TOGETHER = 4_096


class Streaming:
    """What one attempt says; from any of its threads.

    Args:
        claim: the attempt.
        store_here: gives the store that the calling thread may use.
        most: how many entries its run's stream keeps, about.
    """

    def __init__(self, claim: Claim, store_here: Callable[[], StateStore], most: int) -> None:
        self._claim = claim
        self._store_here = store_here
        self._most = most
        self._waiting: deque[Said] = deque()
        #: what was taken to be written, and perhaps is
        self._taken: list[Said] = []
        self._written = 0
        self._writing = threads.new_lock()
        self._failed = False
        #: whether the thread knows that something waits
        self._is_known = False
        #: whether the attempt is somebody else's by now
        self.lost = False

    def item(self, item: Any) -> None:
        """Say something, as a worker does.

        Raises:
            WorkerError: when it is no JSON, or too large.
        """
        data = plain(item, f"what step {self._claim.correlation.step!r} streams", error=WorkerError)
        size = _size(data)
        if size > MAX_ENTRY:
            raise WorkerError(
                f"step {self._claim.correlation.step!r} streams an item of {size:,} bytes of JSON, more than "
                f"{MAX_ENTRY:,}; a stream is for progress: return large data, or say where it is kept"
            )
        self.say(Said(EntryKind.ITEM, data))

    def say(self, said: Said) -> None:
        """Say something that is JSON, and not too large."""
        if self.lost:
            return
        self._waiting.append(said)
        if len(self._waiting) >= MOST_WAITING:
            self.write()
        elif not self._is_known:
            self._is_known = True
            _writer.wake(self)

    def begin_again(self) -> None:
        """Say that what was said so far is void."""
        self.say(Said(EntryKind.ATTEMPT, self._claim.correlation.attempt))

    def status(self, status: Mapping[str, Any], call: str) -> None:
        """Say what is being done in a call; of what is large, only that it is there."""
        short = {name: value if _size(value) <= MOST_TOGETHER else None for name, value in status.items()}
        self.say(Said(EntryKind.STATUS, short, call=call))

    def final(self, outputs: Any) -> None:
        """Say what the step comes to."""
        self.say(Said(EntryKind.FINAL, outputs if _size(outputs) <= MAX_ENTRY else None))

    def write(self) -> None:
        """Write what was said, all of it; if the store does not take it, that is tried again the next time."""
        while not self._writing.acquire(False):
            time.sleep(0.001)  # A greenlet must not hold up the one that has the lock.
        self._is_known = False
        claim = self._claim
        try:
            while not self.lost and self._take():
                said, before = self._taken, self._written
                append = self._store_here().streams.append
                self.lost = not append(claim.correlation, claim.owner, said, before=before, most=self._most)
                self._written += len(self._taken)
                self._taken = []
            if self.lost:
                self._waiting.clear()
        except Exception as error:
            if is_interrupted(error):
                raise
            if not self._failed:
                logger.warning("what %s streams was not written: %s", claim.correlation, error)
            self._failed = True
            while len(self._waiting) > MOST_WAITING // 2:
                self._waiting.popleft()
        finally:
            self._writing.release()

    def _take(self) -> bool:
        """Take what is written next: what could not be written before is taken with what came since."""
        taken, known = self._taken, len(self._taken)
        while self._waiting and len(taken) < AT_ONCE:
            said, last = self._waiting.popleft(), taken[-1] if len(taken) > known else None
            if last is not None and _go_together(last, said):
                taken[-1] = last._replace(data=last.data + said.data)
            else:
                taken.append(said)
        return bool(taken)


def _size(data: Any) -> int:
    return len(dumps(data).encode(errors="surrogatepass"))


def _go_together(last: Said, said: Said) -> bool:
    """Whether two pieces of text are one entry."""
    if said.kind is not EntryKind.TOKEN or last._replace(data="") != said._replace(data=""):
        return False
    return len(last.data) + len(said.data) <= MOST_TOGETHER


class _Writer:
    """The thread of a process that writes what its attempts say; it starts with the first that says something."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        self._started = False
        self._starting = threads.new_lock()
        self._bell = threads.new_lock()
        self._bell.acquire()
        # Also under gevent the thread is a real one, and waits as such.
        self._pause = threads.new_lock()
        self._pause.acquire()
        self._spoke: deque[Streaming] = deque()

    def wake(self, streaming: Streaming) -> None:
        self._spoke.append(streaming)
        if not self._started:
            with self._starting:
                if not self._started:
                    self._started = True
                    threads.start_daemon(self._run, "multiagents-streams")
        with contextlib.suppress(RuntimeError):  # it is awake already
            self._bell.release()

    def _run(self) -> None:
        while True:
            self._bell.acquire()
            self._pause.acquire(True, GATHER)
            while self._spoke:
                self._spoke.popleft().write()


_writer = _Writer()
os.register_at_fork(after_in_child=_writer.begin_anew)
