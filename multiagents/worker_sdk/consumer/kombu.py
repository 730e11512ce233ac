"""Lean QoS: kombu's Redis transport without the ack emulation for the engine's own messages.

On Redis, kombu writes every delivered message to a hash and a sorted set and removes it again when it is acknowledged:
two round trips a message, most of what a worker's main process does. The engine's messages do not need them, because
leases and the sweep own their recovery. The rules here:

1. A message is lean if it has the header `names.HEADER`. Every other message is treated as kombu treats it.
2. A delivered lean message is kept in memory only. It counts towards the prefetch limit like any other.
3. What was delivered and not acknowledged when a channel closes (warm or cold shutdown, lost connection) goes back to
   the consuming end of its own list, the oldest first in line, in one transaction, by the process that took it.
   A message that is still running then is delivered once more; its claim is refused.
4. What cannot be given back (a killed worker, an unreachable Redis) is left to the sweep.

Where the broker is a Redis that is not the store, nothing is lean. There the transport is *sturdy*: kombu's own, but
for one fault of it that ends a worker (`SturdyQoS`).

The transport is for worker processes only: it is set when a worker starts (`choose_transport`), so that publishers,
Flower and the like keep kombu's own. What is relied on in kombu is named where it is used and checked by
``tests/integration/brokers/test_lean_qos.py``.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from ssl import CERT_NONE
from typing import Any, Protocol

from kombu import Connection
from kombu.log import get_logger
from kombu.transport import redis, virtual

from multiagents.failpoints import WriteSite, write
from multiagents.names import HEADER
from multiagents.redis import ELSEWHERE, says_elsewhere

__all__ = ["SentinelTransport", "TLSTransport", "Transport", "choose_transport"]

logger = get_logger(__name__)


class BrokerSettings(Protocol):
    """The part of ``app.conf`` that says which broker a worker talks to."""

    @property
    def broker_transport(self) -> str | None: ...

    @property
    def broker_read_url(self) -> str | Sequence[str] | None: ...

    @property
    def broker_write_url(self) -> str | Sequence[str] | None: ...


def choose_transport(conf: BrokerSettings, lean_qos: bool, *, is_store: bool = True) -> str | None:
    """Return the class path to set as ``broker_transport`` in a worker process, or None to leave kombu's own.

    Call it in a ``celeryd_init`` handler: Celery sends that signal in worker processes only, before they first
    connect. Set app-wide, the transport would reach Flower, which knows brokers by the scheme of their URL.

    Args:
        conf: ``app.conf``.
        lean_qos: the setting ``multiagents_lean_qos``.
        is_store: whether the broker is the store's own database; else the transport is sturdy and not lean.

    Returns:
        None when lean QoS is off, when the user chose a transport, when the broker is not ``redis``, ``rediss`` or
        ``sentinel`` (``redis+socket`` cannot be told another transport), and when reading and writing differ in scheme
        (Celery has one ``broker_transport`` for both). Of several URLs the first decides: kombu itself goes back to
        the scheme of the URL when it fails over to the next, so a worker is without lean QoS until it reconnects.
    """
    if not lean_qos or conf.broker_transport:
        return None
    scheme = _first_scheme(conf.broker_read_url)
    if scheme != _first_scheme(conf.broker_write_url):
        return None
    return (_TRANSPORTS if is_store else _STURDY).get(scheme)


def _first_scheme(url: str | Sequence[str] | None) -> str:
    if url and not isinstance(url, str):  # kombu takes a list of URLs, or several in one string with ";"
        url = url[0]
    return str(url or "").partition(";")[0].partition("://")[0].lower()


class _LeanTag(str):
    """The delivery tag of a lean message, equal to nothing but itself.

    The type tells an ack what it acknowledges, also after the channel was closed. The identity keeps two deliveries
    apart: the sweep may push a message again while its first copy still waits in the same worker.
    """

    __slots__ = ()
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__


class SturdyQoS(redis.QoS):
    """Which messages this channel has delivered; one whose connection is gone is left alone, and is delivered again.

    A step that ends while its broker restarts is acknowledged on a channel that has no connection any more. kombu asks
    it for its server all the same, and the `AttributeError` that comes of it ends the worker.
    """

    channel: Any
    _delivered: OrderedDict[str, Any]

    def ack(self, delivery_tag: str) -> None:
        if self._is_connected():
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if self._is_connected():
            super().reject(delivery_tag, requeue)

    def restore_unacked(self, client: Any = None) -> None:
        if self._is_connected():
            super().restore_unacked(client)
        else:  # they are in Redis, and `visibility_timeout` brings them back
            self._delivered.clear()

    def _is_connected(self) -> bool:
        # `kombu.Connection` takes itself from its transport when it closes it, as its `client`, and the transport
        # itself from its channels, as their `connection`.
        return getattr(self.channel.connection, "client", None) is not None


class QoS(SturdyQoS):
    """Which messages this channel has delivered; lean ones are in memory only."""

    # Relied on in kombu: `virtual.QoS` keeps what was delivered in `_delivered` (tag -> message, oldest first), puts
    # acknowledged tags into `_dirty` through `_quick_ack`, which any thread may call, and drops them in `_flush`;
    # `can_consume` and `can_consume_max_estimate` count both. `redis.QoS` adds the writes to Redis around that.
    channel: Any
    _delivered: OrderedDict[str, Any]
    _dirty: set[str]
    _flush: Callable[[], None]
    _quick_ack: Callable[[str], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pid = os.getpid()  # pool children inherit this object and its messages; only this process gives back

    def append(self, message: Any, delivery_tag: str) -> None:
        if HEADER not in message.headers:
            super().append(message, delivery_tag)
            return
        # `virtual.Channel.basic_consume` passes `message.delivery_tag` to this method; `kombu.Message` acks with it.
        message.delivery_tag = tag = _LeanTag(delivery_tag)
        virtual.QoS.append(self, message, tag)

    def ack(self, delivery_tag: str) -> None:
        if isinstance(delivery_tag, _LeanTag):
            self._quick_ack(delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not isinstance(delivery_tag, _LeanTag):
            super().reject(delivery_tag, requeue)
            return
        if requeue and delivery_tag not in self._dirty:
            message = self._delivered.get(delivery_tag)
            if message is not None:  # else it was given back when the channel closed
                self._push_back([message])
        self._quick_ack(delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        # Called by `virtual.QoS.restore_unacked_once` when the channel closes, else at exit. `redis.QoS` takes each
        # message from its Redis hash, where lean ones are not; they are gone from `_delivered` when it looks.
        self.give_back()
        super().restore_unacked(client)

    def give_back(self) -> None:
        """Push every unacknowledged lean message back to its list; calling it again finds nothing to do.

        Does not raise when Redis cannot be reached: the sweep dispatches again what was lost.
        """
        self._flush()
        lean = [tag for tag in self._delivered if isinstance(tag, _LeanTag)]
        messages = [self._delivered.pop(tag) for tag in lean]
        if not messages or os.getpid() != self._pid:
            return
        try:
            self._push_back(messages)
        except self.channel.connection_errors as error:
            logger.warning(
                "%d unstarted messages could not be given back to the broker (%r): Redis could not be reached; "
                "the sweep dispatches them again when their lease has run out",
                len(messages),
                error,
            )

    def _push_back(self, messages: list[Any]) -> None:
        # `redis.Channel.conn_or_acquire` gives a client that applies `global_keyprefix` (its pipelines too);
        # `redis.Channel._do_restore_message` marks a message as redelivered and RPUSHes it to the list of its queue and
        # priority: the end that BRPOP takes from, so the oldest goes last. `virtual.Message._raw` is what was received.
        with self.channel.conn_or_acquire() as client, client.pipeline() as pipe:
            for message in reversed(messages):
                info = message.delivery_info
                self.channel._do_restore_message(message._raw, info["exchange"], info["routing_key"], pipe)
            write(WriteSite.GIVE_BACK, pipe.execute)


class _GivesBack:
    """Gives lean messages back even if closing the channel fails half way."""

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


class Channel(_LeavesWhoIsNoMaster, _GivesBack, redis.Channel):
    """A Redis channel with lean QoS."""

    QoS = QoS


class SentinelChannel(_LeavesWhoIsNoMaster, _GivesBack, redis.SentinelChannel):
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


class _BeginsAnew:
    """Counts what a server says that is the master no more among the errors at which Celery connects anew."""

    connection_errors: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connection_errors += ELSEWHERE


class Transport(_BeginsAnew, _Calm, redis.Transport):
    """For ``redis://``."""

    Channel = Channel


class _ChecksNothing:
    """``rediss://`` without options, as kombu takes it."""

    def __init__(self, client: Any, **kwargs: Any) -> None:
        # `kombu.Connection._init_params` turns TLS on for the transport *named* "rediss" when neither the URL nor
        # `broker_use_ssl` has options for it. A class path is not that name: the connection would be plain.
        if not client.ssl:
            client.ssl = {"ssl_cert_reqs": CERT_NONE}
            logger.warning("rediss:// without ssl options: certificates are not checked, as kombu does")
        super().__init__(client, **kwargs)  # type: ignore[call-arg]  # the mixin stands before a transport


class TLSTransport(_ChecksNothing, Transport):
    """For ``rediss://``."""


class SentinelTransport(_BeginsAnew, _Calm, redis.SentinelTransport):
    """For ``sentinel://``."""

    Channel = SentinelChannel


class SturdyChannel(redis.Channel):
    """A Redis channel as kombu has it, but sturdy."""

    QoS = SturdyQoS


class SturdySentinelChannel(redis.SentinelChannel):
    """The same behind Sentinel."""

    QoS = SturdyQoS


class SturdyTransport(redis.Transport):
    """For ``redis://`` that is not the store."""

    Channel = SturdyChannel


class SturdyTLSTransport(_ChecksNothing, SturdyTransport):
    """For ``rediss://`` that is not the store."""


class SturdySentinelTransport(redis.SentinelTransport):
    """For ``sentinel://`` that is not the store."""

    Channel = SturdySentinelChannel


_TRANSPORTS = {
    "redis": f"{__name__}:Transport",
    "rediss": f"{__name__}:TLSTransport",
    "sentinel": f"{__name__}:SentinelTransport",
}
_STURDY = {
    "redis": f"{__name__}:SturdyTransport",
    "rediss": f"{__name__}:SturdyTLSTransport",
    "sentinel": f"{__name__}:SturdySentinelTransport",
}
# What `Connection.info()` and `as_uri()` show (worker banner, logs, `celery inspect stats`): the URL's scheme.
# Nothing connects by it: clones keep the class path.
Connection.resolve_aliases.update({path: scheme for scheme, path in (*_TRANSPORTS.items(), *_STURDY.items())})
