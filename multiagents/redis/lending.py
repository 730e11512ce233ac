"""Connections of one process to one server: lent and given back, and never lent again after half a conversation.

redis-py's own pool raises when it has none left, counts what was lost on the way for ever, and lends a connection again
whose last answer nobody has read. This one lets wait, counts the connections that there are, and drops what it does not
know to be whole.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import partial
from typing import Any, cast
from weakref import WeakSet

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection

from multiagents.redis.errors import says_elsewhere

#: Connections that a process has to one server at most, where ``max_connections`` does not say: a call takes one for a
#: millisecond or less.
MAX_CONNECTIONS = 100
#: What redis-py says when nobody has set ``max_connections`` (before its release 8, which says 100).
_UNBOUNDED = 2**31
#: Seconds after which whoever waits for a connection looks whether one was lost unsaid.
_LOOK_AGAIN = 1.0

_pools: WeakSet[Pool] = WeakSet()


class Pool:
    """Lend connections, to the calls of a `Client` and to redis-py's own commands.

    Args:
        template: says how to connect: to a plain server, through TLS or a socket, or to a Sentinel's master. None of
            its own connections is used.
        patience: seconds that one may have to wait for a connection.
        most: how many connections there may be; default what the template says.
        arguments: of each connection, in place of the template's.
    """

    def __init__(
        self, template: redis.ConnectionPool, patience: float, most: int | None = None, **arguments: Any
    ) -> None:
        #: how connections are made
        self.template = template
        self._patience = patience
        self._arguments = arguments
        given = most or template.max_connections
        self.max_connections = given if given < _UNBOUNDED or most else MAX_CONNECTIONS
        self.reset()
        _pools.add(self)

    def __getattr__(self, name: str) -> Any:
        """What redis-py asks a pool for beside connections: how they are made."""
        return getattr(self.template, name)

    def reset(self) -> None:
        """Begin anew: after a fork all connections are the parent's, and nobody here waits."""
        #: connected, and ready for a question
        self.idle: list[Any] = []
        #: all that there are. One that was lost to an exception between two lines leaves by itself
        self._alive: WeakSet[Any] = WeakSet()
        #: how many wait for a connection
        self.waiting = 0
        self._came_free = threading.Condition()

    # --- one conversation: take, then give or drop -------------------------------------------------------------------

    def take(self) -> Any:
        """Borrow a connection. It connects when it is used, and may turn out to be broken."""
        try:
            return self.idle.pop()
        except IndexError:
            return self._make_or_wait()

    def give(self, line: Any) -> None:
        """Give a connection back on which every question has had its answer."""
        self.idle.append(line)
        if self.waiting:
            self.wake()

    def drop(self, line: Any) -> None:
        """Close a connection for good; another may take its place."""
        self._alive.discard(line)
        if self.waiting:
            self.wake()
        line.disconnect()

    def failed(self, line: Any, error: BaseException) -> None:
        """End a conversation that ended in an error: what is not whole, or leads to the wrong server, is dropped."""
        if says_elsewhere(error):
            # Whoever connects anew finds the right one, and the others lead to where this one led.
            self.drop(line)
            self.disconnect(inuse_connections=False)
        elif isinstance(error, redis.exceptions.ResponseError):
            self.give(line)
        else:
            self.drop(line)

    def wake(self) -> None:
        """Tell one who waits that a connection came free."""
        with self._came_free:
            self._came_free.notify()

    def _make_or_wait(self) -> Any:
        give_up = time.monotonic() + self._patience
        with self._came_free:
            self.waiting += 1  # before the look, so that who gives one back after it sees that somebody waits
            try:
                while True:
                    if self.idle:
                        try:
                            return self.idle.pop()
                        except IndexError:
                            continue
                    if len(self._alive) < self.max_connections:
                        line = self._make()
                        self._alive.add(line)
                        return line
                    left = give_up - time.monotonic()
                    if left <= 0:
                        raise redis.exceptions.MaxConnectionsError(
                            f"none of {self.max_connections} connections came free within {self._patience:g} s"
                        )
                    self._came_free.wait(min(left, _LOOK_AGAIN))
            finally:
                self.waiting -= 1

    def _make(self) -> Any:
        # Redis' notices of maintenance want a pool of redis-py's own, and tie each connection into a circle that only
        # the collector unties.
        kwargs = {**self.template.connection_kwargs, **self._arguments}
        return self.template.connection_class(
            **{name: value for name, value in kwargs.items() if not name.startswith("maint_notifications")}
        )

    # --- what redis-py calls -----------------------------------------------------------------------------------------

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Borrow a connection that is connected, and on which nothing is left to read."""
        line = self.take()
        try:
            _connect(line)
            if _is_stale(line):
                line.disconnect()
                _connect(line)
        except BaseException:
            self.drop(line)
            raise
        # What is handled here already is not what will have gone wrong when it is given back.
        line.lent = (sys.exception(),)
        return line

    def release(self, line: Any) -> None:
        """Give back what `get_connection` lent; redis-py does that on its way out, whatever has happened."""
        if line not in self._alive:  # a parent's, or one that was dropped
            line.disconnect()
            return
        lent, line.lent = line.lent, None
        if lent is None:  # A pipeline that was interrupted when it had given it back does so again in its destructor.
            return
        error, (before,) = sys.exception(), lent
        if error is None or error is before:
            self.give(line)
        else:
            self.failed(line, error)

    def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 - as redis-py has it
        """Close the connections that nobody has borrowed, or all."""
        while self.idle:
            try:
                line = self.idle.pop()
            except IndexError:
                break
            self.drop(line)
        if inuse_connections:
            with self._came_free:
                alive = list(self._alive)
            for line in alive:
                line.disconnect()

    def close(self) -> None:
        """Close all connections."""
        self.disconnect()


class Client(redis.Redis):
    """A client whose connections come from a `Pool`."""

    connection_pool: Any

    def ask(self, *command: Any) -> Any:
        """Do as `execute_command`, straight down a connection; the long way, at twice the CPU, only when that fails.

        What redis-py adds (retries, metrics, a lock around its pool) is most of what a script call costs here.
        """
        pool: Pool = self.connection_pool
        idle = pool.idle
        try:
            line = idle.pop()
        except IndexError:
            line = pool.take()
        try:
            line.send_packed_command([pack_command(command)], check_health=False)
            reply = line.read_response()
        except redis.RedisError as error:
            pool.failed(line, error)
            if isinstance(error, redis.exceptions.ResponseError) and not says_elsewhere(error):
                raise
            return self.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py has no type for it
        except BaseException:
            # Half a conversation: whoever took this connection next would read our answer.
            pool.drop(line)
            raise
        idle.append(line)
        if pool.waiting:
            pool.wake()
        return reply


def pooled(template: redis.ConnectionPool, patience: float, most: int | None = None, **arguments: Any) -> Client:
    """A client whose connections come from a `Pool`.

    Args:
        template: says how to connect; its own connections are not used.
        patience: seconds that one may have to wait for a connection.
        most: how many connections there may be; default what the template says.
        arguments: of each connection, in place of the template's.
    """
    made = Client(connection_pool=cast(Any, Pool(template, patience, most, **arguments)))
    made.auto_close_connection_pool = True
    return made


def listening(client: Client) -> Client:
    """A client of the same server for those who listen: connections of their own, and no retries that nobody sees.

    Who listens holds a connection for as long: out of those for calls he would let calls wait, and others who listen.
    """
    pool: Pool = client.connection_pool
    return pooled(pool.template, 1.0, _UNBOUNDED, retry=Retry(NoBackoff(), 0))


def socket_of(line: Any) -> Any:
    """The socket of a connection, to wait on beside others; redis-py has no public name for it."""
    return line._sock  # noqa: SLF001 - as it says


def _connect(line: Any) -> None:
    """Connect, and try again as the line's policy says, also where nobody listens.

    redis-py does so by itself behind Sentinels; for others not in the releases (before 7.4) that Celery 5.6 asks for.
    """
    if isinstance(line, SentinelManagedConnection):
        line.connect()  # type: ignore[no-untyped-call]
    else:
        once = partial(line.connect_check_health, retry_socket_connect=False)
        line.retry.call_with_retry(once, lambda _: line.disconnect())


def _is_stale(line: Any) -> bool:
    """Whether a connection was closed from the other side, or has something to say that nobody asked for."""
    try:
        return bool(line.can_read())
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError):
        return True


def _begin_anew_after_a_fork() -> None:
    for pool in list(_pools):
        pool.reset()


os.register_at_fork(after_in_child=_begin_anew_after_a_fork)
