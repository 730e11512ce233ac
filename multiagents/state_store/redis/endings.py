"""Who waits for which run to end, or to go on, and the one thread that listens and looks for all of them.

It subscribes to the channels of the runs that are waited for, on one connection, and looks at their status when one of
them says something. A notice may be lost, and only wakes; so it looks at each now and then, too, many in a round trip.
"""

from __future__ import annotations

import copy
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from functools import partial
from heapq import nsmallest
from typing import Any
from weakref import WeakSet

from typing_extensions import override

from multiagents.exceptions import MultiAgentsError, StateRefusedError, WorkflowNotFoundError
from multiagents.keys import Keys
from multiagents.redis import CLIENT_ERRORS, listening, socket_of
from multiagents.state_store.records import Ending
from multiagents.state_store.redis.script_server import ScriptServer
from multiagents.workflow.state import RunStatus

#: Seconds between two looks at what is waited for, and between two attempts to listen.
LOOK_EVERY = 1.0
#: Seconds between two looks if somebody asks for more of them.
LOOK_AT_MOST_EVERY = 0.05
#: How many runs are looked at in a second: of more, those that were not seen for longest.
LOOKS = 500
#: Seconds that the thread stays when nobody waits: mostly, somebody will soon.
LINGER = 5.0

#: What a look reads of a run.
_ASKED = ["status", "v", "streamed"]
#: What the news of an entry of a run's stream begin with; those of its end are a status.
_ENTRY = "+"

logger = logging.getLogger(__name__)

_all: WeakSet[Endings] = WeakSet()


class _Waited:
    """A run that is waited for."""

    __slots__ = ("endings", "every", "looked", "streamed")

    def __init__(self) -> None:
        self.endings: set[Ending] = set()
        #: the last entry of its stream that was heard of
        self.streamed = ""
        #: seconds between two looks
        self.every = LOOK_EVERY
        #: when it was looked at; or began to be waited for, for the first look follows the subscription
        self.looked = time.monotonic()


class Endings:
    """Tell all who wait, threads and coroutines alike, that their runs are over.

    Args:
        server: where the runs are.
        keys: the key names.
    """

    def __init__(self, server: ScriptServer, keys: Keys) -> None:
        self._server = server
        self._keys = keys
        self._reader: _Reader | None = None
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._waiting: dict[str, _Waited] = {}
        #: runs that have come to be waited for, or are not any more, since the reader asked
        self._changed: set[str] = set()
        #: seconds between two looks
        self.every = LOOK_EVERY

    def begin_anew(self) -> None:
        """Forget all: after a fork, who waits and the thread are the parent's."""
        if self._reader is not None:
            self._reader.let_go()
        self._reader = None
        self._begin()

    def of(self, transaction_id: str, ending: Ending) -> Ending:
        """Begin to wait for the end of a run, or its next version; that neither blocks nor asks the server."""
        with self._lock:
            waited = self._waiting.get(transaction_id)
            if waited is None:
                waited = self._waiting[transaction_id] = _Waited()
                self._changed.add(transaction_id)
            waited.endings.add(ending)
            with suppress(InvalidStateError):
                ending.hear(waited.streamed)
            waited.every = max(LOOK_AT_MOST_EVERY, min(waited.every, ending.poll))
            self.every = min(self.every, waited.every)
            if self._reader is None:
                self._reader = _Reader(self, self._server, self._keys)
                self._reader.start()
            self._reader.ring()
        ending.add_done_callback(partial(self._leave, transaction_id))
        return ending

    def _leave(self, transaction_id: str, ending: Any) -> None:
        with self._lock:
            waited = self._waiting.get(transaction_id)
            if waited is not None:
                waited.endings.discard(ending)
                if not waited.endings:
                    del self._waiting[transaction_id]
                    self._changed.add(transaction_id)

    def close(self) -> None:
        """Let the thread end as soon as nobody waits."""
        with self._lock:
            reader, idle = self._reader, not self._waiting
            if reader is not None:
                reader.linger = 0.0
                reader.ring()
        if reader is not None and idle and reader is not threading.current_thread():
            reader.join(5)

    # --- the reader's side -------------------------------------------------------------------------------------------

    def all(self) -> list[str]:
        """The runs that are waited for."""
        with self._lock:
            self._changed.clear()
            return list(self._waiting)

    def changes(self) -> tuple[list[str], list[str]]:
        """The runs that have come to be waited for since the last time, and those that are not any more."""
        with self._lock:
            changed, self._changed = self._changed, set()
            joined = [name for name in changed if name in self._waiting]
        return joined, list(changed.difference(joined))

    def unseen(self) -> list[str]:
        """The runs that are to be looked at, whatever was heard."""
        now = time.monotonic()
        with self._lock:
            count = round(LOOKS * self.every)
            due = [(each.looked, name) for name, each in self._waiting.items() if each.looked + each.every <= now]
            self.every = min((each.every for each in self._waiting.values()), default=LOOK_EVERY)
        return [name for _, name in nsmallest(count, due)]

    def is_idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    def dismissed(self) -> bool:
        """Whether the reader may go, for nobody waits; the next one who does gets another."""
        with self._lock:
            if self._waiting:
                return False
            self._reader = None
            return True

    def hear(self, transaction_id: str, streamed: str) -> None:
        """Pass on that a run's stream has come to an entry."""
        with self._lock:
            waited = self._waiting.get(transaction_id)
            if waited is None:
                return
            waited.streamed = streamed
            endings = list(waited.endings)
        for ending in endings:
            with suppress(InvalidStateError):
                ending.hear(streamed)

    def tell(self, transaction_id: str, found: tuple[RunStatus, int, str] | Exception) -> None:
        """Pass on what was seen of a run: its status, its version, and the last entry of its stream."""
        with self._lock:
            waited = self._waiting.get(transaction_id)
            if waited is None:
                return
            waited.looked = time.monotonic()
            if not isinstance(found, Exception):
                waited.streamed = found[2]
            endings = list(waited.endings)
        for ending in endings:
            with suppress(InvalidStateError):  # given up in this moment
                if isinstance(found, Exception):
                    ending.set_exception(_own(found))
                else:
                    ending.look(*found)


class _Reader(threading.Thread):
    """Listens and looks for all who wait; it alone uses its connection."""

    def __init__(self, endings: Endings, server: ScriptServer, keys: Keys) -> None:
        super().__init__(name="multiagents-endings", daemon=True)
        self.linger = LINGER
        self._endings = endings
        self._server = server
        self._keys = keys
        # redis-py types every command as sync-or-async; Any keeps the casts out of each call.
        self._client: Any = server.client
        self._listener: Any = listening(server.client)
        self._pubsub: Any = None
        self._socket: Any = None
        #: channel that was subscribed to -> its run
        self._runs: dict[str, str] = {}
        self._listens_at = self._looked_at = 0.0
        self._has_warned = False
        # Whoever comes rings, for the thread may sleep on the server's socket.
        self._door, self._bell = socket.socketpair()
        self._door.setblocking(False)
        self._bell.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._door, selectors.EVENT_READ)

    def ring(self) -> None:
        """Wake the thread."""
        with suppress(OSError):  # full: it was rung, and will wake
            self._bell.send(b"\0")

    @override
    def run(self) -> None:
        idle_since = None
        try:
            while True:
                self._listen()
                looks = self._heard()
                if time.monotonic() >= self._looked_at + self._endings.every:
                    looks.update(self._endings.unseen())
                    self._looked_at = time.monotonic()
                self._look(looks)
                if self._endings.is_idle():
                    idle_since = idle_since or time.monotonic()
                    if time.monotonic() - idle_since >= self.linger and self._endings.dismissed():
                        break
                else:
                    idle_since = None
                self._sleep(max(0.0, self._looked_at + self._endings.every - time.monotonic()))
        except Exception as error:  # a fault of ours: nobody is to wait for a thread that is gone
            logger.exception("whoever waits for the end of a run is told that listening for it failed")
            while not self._endings.dismissed():
                self._tell_all(error)
        finally:
            self._deaf()
            self._listener.close()
            self.let_go()

    def _sleep(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._door:
                self._door.recv(4096)

    # --- listening ---------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Subscribe to the channels of those who have come, and leave those of who is gone."""
        try:
            if self._pubsub is not None:
                joined, left = self._endings.changes()
            elif time.monotonic() < self._listens_at or self._endings.is_idle():
                return
            else:
                self._pubsub = self._listener.pubsub()
                joined, left = self._endings.all(), []
            if joined:
                channels = {self._keys.of_run(name).channel: name for name in joined}
                self._runs.update(channels)
                self._pubsub.subscribe(*channels)
            if left:
                gone = [self._keys.of_run(name).channel for name in left]
                for channel in gone:
                    self._runs.pop(channel, None)
                self._pubsub.unsubscribe(*gone)
            if self._socket is None and self._pubsub.connection is not None:
                self._socket = socket_of(self._pubsub.connection)
                self._selector.register(self._socket, selectors.EVENT_READ)
        except (*CLIENT_ERRORS, OSError) as error:
            self._deaf(error)

    def _heard(self) -> set[str]:
        """The runs whose channels have said something, be it that they are subscribed to now."""
        heard: set[str] = set()
        try:
            while self._pubsub is not None and (message := self._pubsub.get_message(timeout=0)) is not None:
                if message["type"] not in ("message", "subscribe") or message["channel"] not in self._runs:
                    continue
                name, said = self._runs[message["channel"]], message["data"]
                if message["type"] == "message" and said.startswith(_ENTRY):
                    self._endings.hear(name, said[len(_ENTRY) :])  # That is all: no look is needed.
                else:
                    heard.add(name)
        except (*CLIENT_ERRORS, OSError) as error:
            self._deaf(error)
        return heard

    def _deaf(self, error: Exception | None = None) -> None:
        """Stop listening for a while; whoever waits is looked after as before, a little later."""
        if isinstance(error, CLIENT_ERRORS) and isinstance(self._server.mapped(error), StateRefusedError):
            if not self._has_warned:
                logger.warning("results come up to %g s late: %s", LOOK_EVERY, self._server.mapped(error))
            self._has_warned = True
        if self._socket is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(self._socket)
        pubsub, self._pubsub, self._socket = self._pubsub, None, None
        self._runs.clear()
        self._listens_at = time.monotonic() + LOOK_EVERY
        if pubsub is not None:
            with suppress(*CLIENT_ERRORS, OSError):
                pubsub.close()

    # --- looking -----------------------------------------------------------------------------------------------------

    def _look(self, names: Iterable[str]) -> None:
        """Look at runs, many in a round trip, and tell who waits for them."""
        left = list(names)
        while left:
            asked, left = left[:LOOKS], left[LOOKS:]
            if not self._look_at_all(asked):
                return

    def _look_at_all(self, asked: list[str]) -> bool:
        with self._client.pipeline(transaction=False) as pipe:
            for name in asked:
                pipe.hmget(self._keys.of_run(name).run, _ASKED)
            try:
                answers = self._server.call(pipe.execute)
            except StateRefusedError:  # one of them; which?
                answers = [self._look_at(name) for name in asked]
            except MultiAgentsError as error:
                self._tell_all(error)
                return False
        for name, answer in zip(asked, answers, strict=True):
            if isinstance(answer, list):
                status, version, streamed = answer
                found: Any = (
                    (RunStatus(status), int(version), streamed or "") if status else WorkflowNotFoundError(name)
                )
            else:
                found = answer
            self._endings.tell(name, found)
        return True

    def _look_at(self, name: str) -> Any:
        try:
            return self._server.call(partial(self._client.hmget, self._keys.of_run(name).run, _ASKED))
        except MultiAgentsError as error:
            return error

    def _tell_all(self, error: Exception) -> None:
        for name in self._endings.all():
            self._endings.tell(name, error)

    def let_go(self) -> None:
        """Close what the thread sleeps on; in a forked child, what it has of the parent's."""
        with suppress(OSError):
            if self._socket is not None:
                self._socket.close()
            self._selector.close()
            self._door.close()
            self._bell.close()


def _own(error: Exception) -> Exception:
    """An error for one of many to raise: each adds its own traceback."""
    made = copy.copy(error)
    made.__cause__ = error.__cause__
    return made


def _begin_anew_after_a_fork() -> None:
    for endings in list(_all):
        endings.begin_anew()


os.register_at_fork(after_in_child=_begin_anew_after_a_fork)
