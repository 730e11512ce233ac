"""What steps say, in Redis: one stream beside the run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from multiagents.exceptions import DecodeError, WorkflowNotFoundError
from multiagents.failpoints import WriteSite
from multiagents.keys import Keys, RunKeys
from multiagents.names import Correlation, Direction
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.records import READ_AT_ONCE, Offset, Said, StreamPage, attempt_key_of
from multiagents.state_store.records.stream_reading import StoredEntry, field_of, page_of, text_of
from multiagents.state_store.redis.script_server import ScriptServer
from multiagents.state_store.streams import Streams
from multiagents.workflow.state import RunStatus


class RedisStreams(Streams):
    """Keep what steps say.

    Args:
        server: runs the scripts.
        keys: the key names.
        policy: in what form data is stored.
    """

    def __init__(self, server: ScriptServer, keys: Keys, policy: PayloadPolicy) -> None:
        self._server = server
        # redis-py types every command as sync-or-async; Any keeps the casts out of each call.
        self._client: Any = server.client
        self._keys = keys
        self._policy = policy

    def append(self, correlation: Correlation, owner: str, said: Sequence[Said], *, before: int, most: int) -> bool:
        run = self._keys.of_run(correlation.transaction_id)
        undo = correlation.direction is Direction.UNDO
        site = WriteSite.STREAM_APPEND_UNDO if undo else WriteSite.STREAM_APPEND
        args: list[Any] = [
            correlation.identity,
            correlation.step,
            attempt_key_of(correlation.direction, correlation.attempt),
            owner,
            before,
            most,
            run.channel,
        ]
        for one in said:
            args += (one.kind.value, field_of(one), text_of(one, self._policy))
        ours, now = self._server.run(site, "stream_append", [run.run, run.stream], args)
        self._server.heard(now)
        return bool(ours)

    def read(self, transaction_id: str, after: str = "") -> StreamPage:
        run = self._keys.of_run(transaction_id)
        status, streamed, found = self._look(run, f"({after}" if after else "-")
        if status is None:
            raise WorkflowNotFoundError(transaction_id)
        if after and streamed and Offset.parse(streamed).base != Offset.parse(after).base:
            status, streamed, found = self._look(run, "-")  # of a run that had the id before this one
        try:
            rows = [(Offset.parse(name), StoredEntry.of(fields)) for name, fields in found]
        except KeyError as error:
            raise DecodeError(
                f"the stream of run {transaction_id!r} has an entry without the field {error}; something else wrote "
                f"there, or a newer release"
            ) from error
        return page_of(transaction_id, rows, after, RunStatus(status), self._policy)

    def _look(self, run: RunKeys, least: str) -> tuple[Any, Any, Any]:
        """The status first: of a run that is over by then, all has been written."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(run.run, ["status", "streamed"])
            pipe.xrange(run.stream, min=least, count=READ_AT_ONCE)
            (status, streamed), found = self._server.call(partial(pipe.execute))
        return status, streamed, found
