"""The event bus on Redis Streams.

Keys, for each partition: a stream, ``bus``; and its dead letters are among those of the runs (see `multiagents.keys`).

Trimming is by ``MINID`` and never by ``MAXLEN`` where there is a group: the oldest entry that some group has not
acknowledged is found first, and only what lies before it may go. Nothing that happens in between can make an entry
before it unread again, so the two need not be one script.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast
from zlib import crc32

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool
from typing_extensions import override

from multiagents.address import Address
from multiagents.event_bus.base import EventBus
from multiagents.event_bus.cursor import Cursors, order
from multiagents.event_bus.entry import FIELD, DeadLetter, Entry
from multiagents.event_bus.handed_out import HandedOut, Pending
from multiagents.event_bus.subscription import BusLogger, BusMonitor
from multiagents.exceptions import ConfigurationError, EventBusError
from multiagents.failpoints import WriteSite, write
from multiagents.keys import Keys
from multiagents.redis import CLIENT_ERRORS, PATIENCE, Client, Pool, advice, listening, pool_of, pooled

#: The environment variable that names the server when no URL is given.
URL_VARIABLE = "MULTIAGENTS_REDIS_URL"
#: What the names of its letters begin with among all dead letters; no run's id does.
DEAD = "bus|"
#: Seconds that any one command may take. Reads block for at most half a second of them.
SOCKET_TIMEOUT = 5.0
#: How many entries that wait for an acknowledgement, the oldest, are looked at for when they were handed out.
LOOKED_AT = 100
#: What redis-py must not decide for the bus: its defaults send a blocked read again, silently, for almost a minute. And
#: with RESP2 replies have one form in every version of it.
_CONNECTION = {
    "socket_timeout": SOCKET_TIMEOUT,
    "socket_connect_timeout": SOCKET_TIMEOUT,
    "decode_responses": False,
    "protocol": 2,
}
#: What the bus takes over from a client it is given, beside TLS.
_LENT = {"host", "port", "db", "path", "username", "password", "credential_provider", "client_name"}


class RedisEventBus(EventBus):
    """Publish and subscribe through Redis or Valkey; safe to use from many threads and after a fork.

    Args:
        address: the server, e.g. ``redis://localhost:6379/0`` (see `multiagents.address`); default the environment's
            ``MULTIAGENTS_REDIS_URL``.
        client: take server and credentials from this client instead. Its connections are not used: the bus makes its
            own, with its own time limits and without silent re-sends.
        prefix: what the keys' tags start with (``multiagents_key_prefix``).
        partitions: over how many streams runs are spread (``multiagents_partitions``).
        maxlen: how many of the newest entries a stream keeps, about; more while a group has not acknowledged them.
        event_monitor: told of every event published, received and handled.
        logger: where the bus writes; default the logger ``multiagents.event_bus``.

    Nothing connects before the first use.

    Raises:
        ConfigurationError: when neither an address nor a client is given, or it is none.
    """

    def __init__(
        self,
        address: Address | str | None = None,
        *,
        client: redis.Redis | None = None,
        prefix: str = "ma",
        partitions: int = 1,
        maxlen: int = 10_000,
        event_monitor: BusMonitor | None = None,
        logger: BusLogger | None = None,
    ) -> None:
        super().__init__(event_monitor=event_monitor, logger=logger)
        # redis-py types every command as sync-or-async; Any keeps the casts out of each call.
        made = _client_of(address) if client is None else _like(client)
        self._redis: Any = made
        #: for reads that wait
        self._listens: Any = listening(made)
        self._where = _where(self._redis)
        self._keys = Keys(prefix, partitions)
        self._streams = [part.bus for part in self._keys.of_each_partition()]
        self._cursors = Cursors(partitions)
        self.maxlen = maxlen
        self._trim_every = max(maxlen // 100, 1)
        self._warn_at = 2 * maxlen
        self._handed_out: defaultdict[tuple[str, str], HandedOut] = defaultdict(HandedOut)

    @override
    def append(self, transaction_id: str, raw: bytes) -> str:
        partition = self._keys.partition_of(transaction_id)
        with self._mapped("publish an event"):
            stream = self._streams[partition]
            number = write(WriteSite.BUS_APPEND, lambda: self._redis.xadd(stream, {FIELD: raw})).decode()
        self._trim_now_and_then([number], partition)
        return self._cursors.entry_id(partition, number)

    @override
    def last_id(self) -> str:
        with self._mapped("find the end of the bus"), self._redis.pipeline(transaction=False) as pipe:
            for stream in self._streams:
                pipe.xrevrange(stream, count=1)
            ends = [found[0][0].decode() if found else "0-0" for found in pipe.execute()]
        return ",".join(self._cursors.entry_id(partition, number) for partition, number in enumerate(ends))

    @override
    def entries(self, after: str, count: int, transaction_id: str | None, block: float | None) -> list[Entry]:
        positions = self._cursors.positions(self.last_id() if after == "$" else after)
        only = None if transaction_id is None else self._keys.partition_of(transaction_id)
        wanted = {self._streams[each]: at for each, at in positions.items() if only is None or each == only}
        with self._mapped("read the bus"):
            found = self._reader(block).xread(wanted, count=count, block=_milliseconds(block))
        rows = [(self._streams.index(stream.decode()), row) for stream, rows in found for row in rows]
        rows.sort(key=lambda each: (order(each[1][0].decode()), each[0]))
        entries = []
        for partition, (number, fields) in rows[:count]:
            positions[partition] = number.decode()
            entries.append(_entry(self._cursors.cursor(partition, positions), fields))
        return entries

    @override
    def group_entries(self, group: str, consumer: str, count: int, block: float | None) -> list[Entry]:
        wanted = dict.fromkeys(self._streams, ">")
        wait = _milliseconds(block)
        with self._mapped("read the bus as a group"):
            read = partial(self._reader(block).xreadgroup, group, consumer, wanted, count, wait)
            found = self._as_group(group, lambda: write(WriteSite.BUS_READ, read))
        return [
            _entry(self._cursors.entry_id(self._streams.index(stream.decode()), number.decode()), fields)
            for stream, rows in found
            for number, fields in rows
        ]

    @override
    def stale_entries(self, group: str, consumer: str, idle_ms: int, count: int) -> list[Entry]:
        stale: list[Entry] = []
        for partition, stream in enumerate(self._streams):
            with self._mapped("take over events of a group"):
                self._correct_ages(stream, group)
                for number, fields, deliveries in self._claim(stream, group, consumer, idle_ms, count - len(stale)):
                    stale.append(_entry(self._cursors.entry_id(partition, number), fields, deliveries))
            if len(stale) >= count:
                break
        return stale

    def _correct_ages(self, stream: str, group: str) -> None:
        """Have the server know how long ago entries were handed out before its clock went back."""
        look = partial(self._redis.xpending_range, stream, group, "-", "+", LOOKED_AT)
        pending = [
            Pending(
                row["message_id"].decode(),
                row["consumer"].decode(),
                row["time_since_delivered"],
                row["times_delivered"],
            )
            for row in self._as_group(group, look)
        ]
        for each, age in self._handed_out[stream, group].too_young(pending):
            correct = partial(self._redis.xclaim, stream, group, each.consumer, 0, [each.number], idle=age, justid=True)
            with suppress(redis.exceptions.NoPermissionError):  # of a user with the rights of an earlier release
                write(WriteSite.BUS_TAKE_OVER, correct)

    def _claim(self, stream: str, group: str, consumer: str, idle_ms: int, count: int) -> list[tuple[str, Any, int]]:
        cursor = b"0-0"
        rows: list[tuple[bytes, Any]] = []
        while len(rows) < count:
            left = count - len(rows)
            claim = partial(self._redis.xautoclaim, stream, group, consumer, idle_ms, cursor, left)
            cursor, more = self._as_group(group, partial(write, WriteSite.BUS_TAKE_OVER, claim))[:2]
            rows.extend(more)
            if cursor == b"0-0":
                break
        with self._redis.pipeline(transaction=False) as pipe:
            for number, _ in rows:
                pipe.xpending_range(stream, group, number, number, 1)
            # XAUTOCLAIM counts the hand-out but does not tell the count.
            known = pipe.execute() if rows else []
        return [
            (number.decode(), fields, pending[0]["times_delivered"])
            for (number, fields), pending in zip(rows, known, strict=True)
            if pending and pending[0]["consumer"].decode() == consumer
        ]

    def _as_group(self, group: str, read: Callable[[], Any]) -> Any:
        """Read, after making the group when there is none (yet, or any more: somebody deleted the stream)."""
        try:
            return read()
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self.ensure_group(group)
            return read()

    @override
    def ensure_group(self, group: str, start: str = "0") -> None:
        positions = self._cursors.positions(self.last_id() if start == "$" else start)
        with self._mapped("make a consumer group"):
            for partition, stream in enumerate(self._streams):
                try:
                    make = partial(self._redis.xgroup_create, stream, group, positions[partition], mkstream=True)
                    write(WriteSite.BUS_GROUP, make)
                except redis.ResponseError as error:
                    if not str(error).startswith("BUSYGROUP"):
                        raise

    @override
    def remove_group(self, group: str) -> None:
        with self._mapped("remove a consumer group"):
            for stream in self._existing():
                self._redis.xgroup_destroy(stream, group)

    @override
    def remove_consumer(self, group: str, consumer: str) -> None:
        self._remove_consumers(group, lambda each: each["name"].decode() == consumer)

    @override
    def remove_silent_consumers(self, group: str, idle_ms: int) -> None:
        self._remove_consumers(group, lambda each: each["idle"] >= idle_ms)

    def _remove_consumers(self, group: str, is_meant: Callable[[Any], bool]) -> None:
        with self._mapped("remove a consumer"):
            for stream in self._existing():
                for each in self._redis.xinfo_consumers(stream, group) if self._groups(stream, group) else ():
                    if is_meant(each) and not each["pending"]:
                        self._redis.xgroup_delconsumer(stream, group, each["name"])

    @override
    def ack(self, group: str, *ids: str) -> None:
        numbers: dict[int, list[str]] = defaultdict(list)
        for each in ids:
            partition, number = self._cursors.place(each)
            numbers[partition].append(number)
        for partition, some in numbers.items():
            with self._mapped("acknowledge events"):
                write(WriteSite.BUS_ACK, partial(self._redis.xack, self._streams[partition], group, *some))
            self._trim_now_and_then(some, partition)

    @override
    def trim(self, maxlen: int | None = None) -> int:
        with self._mapped("trim the bus"):
            return sum(self._trim(stream, self.maxlen if maxlen is None else maxlen) for stream in self._streams)

    def _trim(self, stream: str, maxlen: int) -> int:
        excess = self._redis.xlen(stream) - maxlen
        if excess <= 0:
            return 0
        groups = self._groups(stream)
        if not groups:
            drop = partial(self._redis.xtrim, stream, maxlen=maxlen, approximate=True)
            return cast(int, write(WriteSite.BUS_TRIM, drop))
        needed = {group: self._first_needed(stream, group, last) for group, last in groups.items()}
        slowest = min(needed, key=lambda group: order(needed[group]))
        # LIMIT keeps the newest maxlen, and whole nodes of the stream at a time make it cheap.
        drop = partial(self._redis.xtrim, stream, minid=needed[slowest], approximate=True, limit=excess)
        trimmed: int = write(WriteSite.BUS_TRIM, drop)
        left = excess + maxlen - trimmed
        if left > self._warn_at:
            self._warn_at = 2 * left
            message = (
                f"stream {stream} holds {left} entries where {maxlen} were to be kept: group {slowest!r} has not "
                f"acknowledged {needed[slowest]}; run its consumers, or remove_group({slowest!r}) if it is no more"
            )
            self.logger.warning(message)
        return trimmed

    def _first_needed(self, stream: str, group: str, last: str) -> str:
        """The oldest entry that the group has not acknowledged, or where the next one will be."""
        oldest = self._redis.xpending(stream, group)["min"]
        if oldest is not None:
            return cast(str, oldest.decode())
        milliseconds, sequence = order(last)
        return f"{milliseconds}-{sequence + 1}"

    def _groups(self, stream: str, only: str | None = None) -> dict[str, str]:
        """Name of each group -> the last entry that was handed to it."""
        found = (
            (each["name"].decode(), each["last-delivered-id"].decode()) for each in self._redis.xinfo_groups(stream)
        )
        return {name: last for name, last in found if only is None or name == only}

    def _existing(self) -> Iterable[str]:
        return [stream for stream in self._streams if self._redis.exists(stream)]

    def _trim_now_and_then(self, numbers: Iterable[str], partition: int) -> None:
        # Chosen by the id, so that producers that publish one event and exit take their turns too.
        if any(crc32(number.encode()) % self._trim_every == 0 for number in numbers):
            try:
                with self._mapped("trim the bus"):
                    self._trim(self._streams[partition], self.maxlen)
            except EventBusError as error:
                self.logger.warning(str(error))  # the next turn trims; what was asked for is done

    @override
    def bury(self, letter: DeadLetter, acknowledged_by: str | None = None) -> None:
        partition, number = self._cursors.place(letter.entry_id)
        group = letter.group or acknowledged_by
        with self._mapped("set an event aside"):
            seconds, micros = self._redis.time()
        now_ms = seconds * 1000 + micros // 1000
        with self._mapped("set an event aside"), self._redis.pipeline(transaction=True) as pipe:
            part = self._keys.of_partition(partition)
            pipe.hsetnx(part.dead, DEAD + letter.id, letter.to_json())
            pipe.zadd(part.dead_since, {DEAD + letter.id: now_ms}, nx=True)
            if group is not None:
                pipe.xack(self._streams[partition], group, number)
            write(WriteSite.BUS_BURY, pipe.execute)

    @override
    def dead_letters(self) -> list[DeadLetter]:
        with self._mapped("list dead letters"):
            found = [
                DeadLetter.from_json(letter)
                for part in self._keys.of_each_partition()
                for name, letter in self._redis.hgetall(part.dead).items()
                if name.startswith(DEAD.encode())
            ]
        return sorted(found, key=lambda letter: (order(self._cursors.place(letter.entry_id)[1]), letter.id))

    @override
    def discard(self, *ids: str) -> None:
        with self._mapped("discard dead letters"):
            for each in ids:
                partition, _ = self._cursors.place(each.rpartition("/")[2])
                part = self._keys.of_partition(partition)
                self._redis.hdel(part.dead, DEAD + each)
                self._redis.zrem(part.dead_since, DEAD + each)

    @override
    def close(self) -> None:
        for each in (self._redis, self._listens):
            each.connection_pool.disconnect()

    def _reader(self, block: float | None) -> Any:
        """Who reads, now or when there is something."""
        return self._redis if block is None else self._listens

    @contextmanager
    def _mapped(self, deed: str) -> Iterator[None]:
        """Turn the client's errors into `EventBusError`."""
        try:
            yield
        except CLIENT_ERRORS as error:
            kind = type(error).__name__
            todo = advice(error, self._keys.prefix)
            raise EventBusError(f"could not {deed} at {self._where}: {kind}: {error}; {todo}") from error


def _client_of(address: Address | str | None) -> Client:
    given = address or os.environ.get(URL_VARIABLE)
    if not given:
        raise ConfigurationError(
            f"the event bus was given no server; pass RedisEventBus('redis://localhost:6379/0') or set {URL_VARIABLE}"
        )
    found = (
        Address.parse(given, "the event bus's URL").checked("the event bus's URL") if isinstance(given, str) else given
    )
    # A time limit of the address must not win over ours.
    return pooled(pool_of(found, retry=Retry(NoBackoff(), 0), **_CONNECTION), PATIENCE)


def _like(client: redis.Redis) -> Client:
    """Another client of the same server, with connections of its own."""
    pool: Any = client.connection_pool
    if isinstance(pool, Pool):
        pool = pool.template
    lent = {key: value for key, value in pool.connection_kwargs.items() if key in _LENT or key.startswith("ssl_")}
    kwargs = {**lent, **_CONNECTION, "connection_class": pool.connection_class, "retry": Retry(NoBackoff(), 0)}
    if isinstance(pool, SentinelConnectionPool):
        sentinel: Any = SentinelConnectionPool
        return pooled(sentinel(pool.service_name, pool.sentinel_manager, **kwargs), PATIENCE)
    return pooled(redis.ConnectionPool(**kwargs), PATIENCE)


def _where(client: redis.Redis) -> str:
    """The server's address, without credentials."""
    kwargs = client.connection_pool.connection_kwargs
    return str(kwargs["path"]) if "path" in kwargs else f"{kwargs.get('host', 'sentinel')}:{kwargs.get('port', '')}"


def _entry(entry_id: str, fields: Mapping[bytes, bytes], deliveries: int = 1) -> Entry:
    raw = fields.get(FIELD.encode())
    if raw is not None:
        return Entry(entry_id, raw, deliveries)
    texts = {_text(name): _text(value) for name, value in fields.items()}
    return Entry(entry_id, json.dumps(texts).encode(), deliveries, tuple(texts))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _milliseconds(block: float | None) -> int | None:
    # BLOCK 0 would wait for ever.
    return None if block is None else max(int(block * 1000), 1)
