"""Which messages a worker's channel has delivered: kombu's books, without the entries in Redis for the engine's own.

On Redis, kombu writes every delivered message to a hash and a sorted set and removes it again when it is acknowledged:
two round trips a message, most of what a worker's main process does. The engine's messages do not need them, because
leases and the sweep own their recovery. The rules here:

1. A message is lean if it has the header `names.HEADER`. Every other message is treated as kombu treats it.
2. A delivered lean message is kept in memory only. It counts towards the prefetch limit like any other.
3. What was delivered and not acknowledged when a channel closes (warm or cold shutdown, lost connection) goes back to
   the consuming end of its own list, the oldest first in line, in one script, by the process that took it.
   A message that is still running then is delivered once more; its claim is refused.
4. What cannot be given back (a killed worker, an unreachable Redis) is left to the sweep.
5. A server that is full refuses kombu's entries. The message is off its list by then, so it is kept in memory as well;
   and giving back is allowed there: it fills a server with what it held before.

Where the broker is a Redis that is not the store, nothing is lean (`SturdyQoS`). What is relied on in kombu is named
where it is used and checked by ``tests/integration/brokers/test_lean_qos.py``.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from kombu.log import get_logger
from kombu.transport import redis, virtual

from multiagents.failpoints import WriteSite, write
from multiagents.names import HEADER
from multiagents.redis import CLIENT_ERRORS, FULL

__all__ = ["QoS", "SturdyQoS"]

logger = get_logger(__name__)

#: KEYS: of each message its list. ARGV: the messages, the first in line last.
_GIVE_BACK = """#!lua flags=allow-oom
for at, list in ipairs(KEYS) do
    redis.call('RPUSH', list, ARGV[at])
end
"""


class _InMemory(str):
    """The delivery tag of a message that is in memory only, equal to nothing but itself.

    The type tells an ack what it acknowledges, also after the channel was closed. The identity keeps two deliveries
    apart: the sweep may push a message again while its first copy still waits in the same worker.
    """

    __slots__ = ()
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__


class QoS(redis.QoS):
    """Which messages this channel has delivered; lean ones are in memory only."""

    # Relied on in kombu: `virtual.QoS` keeps what was delivered in `_delivered` (tag -> message, oldest first), puts
    # acknowledged tags into `_dirty` through `_quick_ack`, which any thread may call, and drops them in `_flush`;
    # `can_consume` and `can_consume_max_estimate` count both. `redis.QoS` adds the writes to Redis around that.
    #: whether the engine's messages are lean
    lean = True
    channel: Any
    _delivered: OrderedDict[str, Any]
    _dirty: set[str]
    _flush: Callable[[], None]
    _quick_ack: Callable[[str], None]
    _remove_from_indices: Callable[[str], Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pid = os.getpid()  # pool children inherit this object and its messages; only this process gives back
        self._said_full = False

    def append(self, message: Any, delivery_tag: str) -> None:
        if not self.lean or HEADER not in message.headers:
            try:
                super().append(message, delivery_tag)
            except FULL:
                self._remove_from_indices(delivery_tag).execute()  # there may just have been room for one of the two
                self._say_full("what it delivers is kept in memory, and goes back to its queue when this worker ends")
            else:
                return
        # `virtual.Channel.basic_consume` passes `message.delivery_tag` to this method; `kombu.Message` acks with it.
        message.delivery_tag = tag = _InMemory(delivery_tag)
        virtual.QoS.append(self, message, tag)

    def ack(self, delivery_tag: str) -> None:
        # A step that ends while its broker restarts is acknowledged on a channel that has no connection any more. kombu
        # asks it for its server all the same, and the `AttributeError` that comes of it ends the worker.
        if isinstance(delivery_tag, _InMemory):
            self._quick_ack(delivery_tag)
        elif self._is_connected():
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if isinstance(delivery_tag, _InMemory):
            if requeue and delivery_tag not in self._dirty:
                message = self._delivered.get(delivery_tag)
                if message is not None:  # else it was given back when the channel closed
                    self._push_back([message])
            self._quick_ack(delivery_tag)
        elif self._is_connected():
            try:
                super().reject(delivery_tag, requeue)
            except FULL:
                self._say_full("what is rejected there comes again after the visibility timeout")
                self._quick_ack(delivery_tag)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().restore_visible(*args, **kwargs)
        except FULL:
            self._say_full("messages of ordinary tasks whose worker was killed come again when it has room")

    def restore_unacked(self, client: Any = None) -> None:
        # Called by `virtual.QoS.restore_unacked_once` when the channel closes, else at exit. `redis.QoS` takes each
        # message from its Redis hash; those in memory are gone from `_delivered` when it looks.
        self.give_back()
        try:
            if self._is_connected():
                super().restore_unacked(client)
        except FULL:
            self._say_full("messages of ordinary tasks come again after the visibility timeout")
        self._delivered.clear()  # what was not restored is in Redis, and `visibility_timeout` brings it back

    def give_back(self) -> None:
        """Push every unacknowledged message that is in memory back to its list; calling it again finds nothing to do.

        Does not raise when Redis cannot be reached: the sweep dispatches again what was lost.
        """
        self._flush()
        kept = [tag for tag in self._delivered if isinstance(tag, _InMemory)]
        messages = [self._delivered.pop(tag) for tag in kept]
        if not messages or os.getpid() != self._pid:
            return
        try:
            self._push_back(messages)
        except (*self.channel.connection_errors, *CLIENT_ERRORS) as error:
            logger.warning(
                "%d unstarted messages could not be given back to the broker (%r): Redis could not be reached; "
                "the sweep dispatches them again when their lease has run out",
                len(messages),
                error,
            )

    def _push_back(self, messages: list[Any]) -> None:
        # `redis.Channel._do_restore_message` marks a message as redelivered and RPUSHes it to the list of its queue and
        # priority: the end that BRPOP takes from, so the oldest goes last. `virtual.Message._raw` is what was received.
        pushes = _Pushes()
        for message in reversed(messages):
            info = message.delivery_info
            self.channel._do_restore_message(message._raw, info["exchange"], info["routing_key"], pushes)
        # The client of kombu that applies `global_keyprefix` does not for this command.
        lists = [self.channel.global_keyprefix + name for name, _ in pushes]
        with self.channel.conn_or_acquire() as client:
            write(
                WriteSite.GIVE_BACK,
                lambda: client.eval(_GIVE_BACK, len(lists), *lists, *(text for _, text in pushes)),
            )

    def _is_connected(self) -> bool:
        # `kombu.Connection` takes itself from its transport when it closes it, as its `client`, and the transport
        # itself from its channels, as their `connection`.
        return getattr(self.channel.connection, "client", None) is not None

    def _say_full(self, what: str) -> None:
        if not self._said_full:
            logger.warning("the broker is full (maxmemory): %s; delete what is over, or raise its maxmemory", what)
        self._said_full = True


class SturdyQoS(QoS):
    """The same where no message is lean: the broker is not the store, or lean QoS is off."""

    lean = False


class _Pushes(list[tuple[str, str]]):
    """Takes what kombu would push, where it wants a pipeline."""

    def rpush(self, name: str, text: str) -> None:
        self.append((name, text))
