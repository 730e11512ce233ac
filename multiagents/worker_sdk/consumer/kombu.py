"""kombu's Redis transport as a worker needs it: lean, and sturdy where kombu's own ends the worker.

- The engine's messages cost no entries in Redis (`multiagents.worker_sdk.consumer.qos`).
- A server that is the master no more counts as one that is gone: the worker connects anew, and finds the next.
- A broker that restarts, or is full, does not end a worker.

It is for worker processes only: there the app makes its connections by one of the classes below (`connection_of`), so
that publishers, Flower and the like keep kombu's own. A connection stays what it is however often it breaks, and
whichever of several URLs, or Sentinels, it goes on to. What is relied on in kombu is named where it is used and checked
by ``tests/integration/brokers/test_lean_qos.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import kombu
from kombu.log import get_logger
from kombu.transport import redis, virtual

from multiagents.redis import ELSEWHERE, FULL, says_elsewhere
from multiagents.worker_sdk.consumer.qos import QoS, SturdyQoS

__all__ = ["Connection", "SturdyConnection", "connection_of"]

logger = get_logger(__name__)

#: Seconds between two attempts to write down bindings that a full server has refused.
BIND_AGAIN_EVERY = 5.0
#: Whether kombu tends to bindings by itself, as it does since its release 5.7.
_REFRESHES_BINDINGS = hasattr(redis.Channel, "maybe_refresh_binding_expiry")


def connection_of(broker_transport: str | None, *, lean: bool) -> type[kombu.Connection] | None:
    """Return what an app of a worker process is to make its connections of, or None to leave kombu's own.

    Set it in a ``celeryd_init`` handler, as ``app.amqp.Connection``: Celery sends that signal in worker processes only,
    before they first connect.

    Args:
        broker_transport: Celery's setting; whoever has chosen a transport gets that.
        lean: whether the engine's messages may be kept in memory only: lean QoS is on, and the broker is the store.
    """
    if broker_transport:
        return None
    return Connection if lean else SturdyConnection


class _GivesBack:
    """Gives back what is in memory even if closing the channel fails half way."""

    _qos: virtual.QoS | None

    def close(self) -> None:
        # `redis.Channel.close` first reads the answer to the BRPOP it has sent. After a lost connection that raises,
        # and kombu, which has the other messages in Redis, never comes to `restore_unacked_once`.
        try:
            super().close()  # type: ignore[misc]  # the mixin stands before a kombu channel
        except Exception:
            if isinstance(self._qos, QoS):  # with the transport option `ack_emulation=False` it is kombu's
                self._qos.give_back()
            raise


class _LeavesWhoIsNoMaster:
    """Takes a server that is the master no more for one that is gone, so that the worker connects anew."""

    # Relied on in kombu: `_brpop_read` reads what a worker waits for, and Celery begins anew at the transport's
    # `connection_errors`, while other answers of the server end the worker.
    ResponseError: type[Exception]

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # the mixin stands before a kombu channel
        except self.ResponseError as error:
            if says_elsewhere(error):
                raise ConnectionError(f"the broker is not the master any more: {error}") from error
            raise


class _NoTransactions:
    """Pipelines without a transaction where none is asked for: a full Redis queues no command of one, be it a read.

    kombu asks for none where it pushes, counts, enters and acknowledges, and sends each such pipeline in one piece.
    """

    def pipeline(self, transaction: bool = False, shard_hint: Any = None) -> Any:
        return super().pipeline(transaction, shard_hint)  # type: ignore[misc]  # the mixin stands before a client


class _Client(_NoTransactions, redis.redis.Redis):  # type: ignore[name-defined,misc]  # the stubs lack it
    pass


class _PrefixedClient(_NoTransactions, redis.PrefixedStrictRedis):
    pass


class _ConsumesFromWhoIsFull:
    """Consumes from a server that is full, and refuses to write down which queue is bound to which exchange.

    Nothing is consumed by it, and mostly it is there already: workers write the same at every start.
    """

    # Relied on in kombu: `_get_client` says of what clients are made, `_queue_bind` writes the binding when all else is
    # done, `get_table` reads those of an exchange, `_fanout_queues` has the queues that are bound to none in Redis, and
    # `maybe_refresh_binding_expiry` is called once a second; kombu 5.6 has none, and `_Calm` sees to that.
    _fanout_queues: Mapping[str, Any]
    get_table: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: arguments of the bindings that are still to be written down
        self._unbound: list[tuple[str, ...]] = []
        self._bind_at = 0.0
        super().__init__(*args, **kwargs)

    def _get_client(self) -> Any:
        made = super()._get_client()  # type: ignore[misc]  # the mixin stands before a kombu channel
        return partial(_PrefixedClient, **made.keywords) if isinstance(made, partial) else _Client

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        bound = exchange, routing_key, pattern, queue
        try:
            super()._queue_bind(*bound)  # type: ignore[misc]  # the mixin stands before a kombu channel
        except FULL:
            if queue in self._fanout_queues or (routing_key or "", pattern or "", queue) in self.get_table(exchange):
                return
            if bound not in self._unbound:
                self._unbound.append(bound)
                logger.warning(
                    "the broker is full (maxmemory), and does not know yet that queue %s gets what is sent to exchange "
                    "%s: the queue is consumed, and is made known when there is room",
                    queue,
                    exchange,
                )

    def maybe_refresh_binding_expiry(self) -> None:
        if time.monotonic() < self._bind_at:
            return
        self._bind_at = time.monotonic() + (BIND_AGAIN_EVERY if self._unbound else 0.0)
        unbound, self._unbound = self._unbound, []
        for number, bound in enumerate(unbound):
            try:
                super()._queue_bind(*bound)  # type: ignore[misc]  # the mixin stands before a kombu channel
            except FULL:
                self._unbound = unbound[number:]
                return
        if not _REFRESHES_BINDINGS:
            return
        try:
            super().maybe_refresh_binding_expiry()  # type: ignore[misc]  # the mixin stands before a kombu channel
        except FULL:
            self._bind_at = time.monotonic() + BIND_AGAIN_EVERY


class Channel(_ConsumesFromWhoIsFull, _LeavesWhoIsNoMaster, _GivesBack, redis.Channel):
    """A Redis channel with lean QoS."""

    QoS = QoS


class SentinelChannel(_ConsumesFromWhoIsFull, _LeavesWhoIsNoMaster, _GivesBack, redis.SentinelChannel):
    """A Redis channel behind Sentinel, with lean QoS."""

    QoS = QoS


class _Calm:
    """Tends to the channels when one needs it, not at every turn of the worker's loop.

    kombu does it at every turn, of which a message takes three. That is a seventh of what the main process does for a
    message, and the pool's children wait for it.
    """

    cycle: Any

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        # Relied on in kombu: what tends to the channels is added to `loop.on_tick`, and does nothing for a channel that
        # waits for messages (`_in_poll`) exactly if it may take some, that listens for broadcasts if it has such
        # queues (`_in_listen`), and whose reply was not put aside (`_paused_brpop`).
        before = set(loop.on_tick)
        super().register_with_event_loop(connection, loop)  # type: ignore[misc]  # the mixin stands before a transport
        for tend in set(loop.on_tick) - before:
            loop.on_tick.remove(tend)
            loop.on_tick.add(partial(self._tend_if_needed, tend))
        if not _REFRESHES_BINDINGS:
            loop.call_repeatedly(BIND_AGAIN_EVERY, self._bind_again)

    def _bind_again(self) -> None:
        for channel in self.cycle._channels:
            channel.maybe_refresh_binding_expiry()

    def _tend_if_needed(self, tend: Callable[[], None]) -> None:
        cycle = self.cycle
        if getattr(cycle, "_paused_brpop", True) or not all(_is_settled(channel) for channel in cycle._channels):
            tend()


def _is_settled(channel: Any) -> bool:
    broadcasts = channel.active_fanout_queues
    if broadcasts and not channel._in_listen:
        return False
    has_queues = any(queue not in broadcasts for queue in channel._active_queues)
    return not has_queues or bool(channel._in_poll) == channel.qos.can_consume()


class Transport(_Calm, redis.Transport):
    """For ``redis://``, ``rediss://`` and ``redis+socket://``."""

    Channel = Channel
    #: What a server says that is the master no more is among the errors at which Celery connects anew.
    connection_errors = redis.Transport.connection_errors + ELSEWHERE


class SentinelTransport(_Calm, redis.SentinelTransport):
    """For ``sentinel://``."""

    Channel = SentinelChannel
    connection_errors = redis.SentinelTransport.connection_errors + ELSEWHERE


class SturdyTransport(Transport):
    """`Transport` where no message is lean."""

    class Channel(Channel):
        QoS = SturdyQoS


class SturdySentinelTransport(SentinelTransport):
    """`SentinelTransport` where no message is lean."""

    class Channel(SentinelChannel):
        QoS = SturdyQoS


class Connection(kombu.Connection):
    """A connection to a broker, by a transport of ours if it is a Redis; other brokers are reached as ever."""

    # Relied on in kombu: `transport_cls` is the name that the URL in use says, however it came to be in use, and a
    # clone is made by the class of what it is cloned from. A class path in its place (Celery's `broker_transport`)
    # would be forgotten at the first reconnection to one of several URLs.
    transport_cls: Any
    transports: ClassVar[Mapping[str, type[virtual.Transport]]] = {
        "redis": Transport,
        "rediss": Transport,
        "sentinel": SentinelTransport,
    }

    def get_transport_cls(self) -> Any:
        return self.transports.get(self.transport_cls) or super().get_transport_cls()


class SturdyConnection(Connection):
    """`Connection` where no message is lean."""

    transports: ClassVar[Mapping[str, type[virtual.Transport]]] = {
        "redis": SturdyTransport,
        "rediss": SturdyTransport,
        "sentinel": SturdySentinelTransport,
    }
