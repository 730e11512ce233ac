"""Sessions with MCP servers, by the protocol's own SDK. Loaded by the first step that needs one.

The SDK is made of coroutines, and who enters a connection has to leave it. So a session is a task of its own in the
event loop of the process, which enters it, waits for its end, and leaves it; whoever calls a tool does so beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import CONNECTION_CLOSED, ImageContent, TextContent

from multiagents.agents.servers import Server
from multiagents.exceptions import MCPUnavailableError
from multiagents.worker_sdk.execution import event_loop, threads

#: Characters of a foreign message that are told.
_SHOWN = 500
#: Under what name a server is sent the key of a call.
_KEY = "multiagents/idempotency_key"


class ToolFailed(Exception):  # noqa: N818 - read by models
    """A server says that a call has failed."""


class Part(NamedTuple):
    """A part of what a tool has returned: its text, or what stands for it; and if it is an image, that as a URL."""

    text: str
    image: str = ""


class Session:
    """The session of one attempt with one server. It is opened by the first call, and from any thread."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[Client] | None = None
        self._end: asyncio.Event | None = None

    def tools(self) -> list[dict[str, Any]]:
        """What the server has: the name, description and input schema of each.

        Raises:
            MCPUnavailableError: when it cannot be asked.
        """
        listed: list[dict[str, Any]] = event_loop.run(self._tools(), worker=self.server.name)
        return listed

    async def call(self, name: str, arguments: Mapping[str, Any], key: str) -> tuple[list[Part], Any]:
        """Call a tool, and return what it returned: part by part, and as plain JSON, if the server gives that, too.

        Raises:
            ToolFailed: when the server says that the call has failed.
            MCPUnavailableError: when the server is gone; what became of the call is unknown.
        """
        client = await self._connected()
        try:
            # In a session that has not listed yet, the SDK does so now, for the schema of what comes back. Nothing of
            # that is used here.
            result = await client.call_tool(name, dict(arguments), meta={_KEY: key} if key else None)
        except MCPError as error:
            if error.code != CONNECTION_CLOSED:
                raise ToolFailed(error.message) from error
            raise self._gone(error) from error
        except (OSError, EOFError) as error:
            raise self._gone(error) from error
        if result.is_error:
            raise ToolFailed("\n".join(_part(part).text for part in result.content))
        return [_part(part) for part in result.content], _data(result.structured_content)

    def close(self) -> None:
        """Have it end, in the background: a server that is slow to end holds up nobody."""
        end, loop = self._end, self._loop
        if end is not None and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and has ended it
                loop.call_soon_threadsafe(end.set)

    async def _tools(self) -> list[dict[str, Any]]:
        client = await self._connected()
        try:
            async with asyncio.timeout(self.server.start_timeout):
                found, cursor = [], None
                while True:
                    page = await client.list_tools(cursor=cursor)
                    found += [
                        {"name": one.name, "description": one.description or "", "input": one.input_schema}
                        for one in page.tools
                    ]
                    cursor = page.next_cursor
                    if not cursor:
                        return found
        except TimeoutError as error:
            raise self._unavailable(f"it did not say within {self.server.start_timeout:g} s what it has") from error
        except MCPError as error:
            raise self._gone(error) from error

    async def _connected(self) -> Client:
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._loop is not loop:
            self._loop, self._end, self._ready = loop, asyncio.Event(), loop.create_future()
            self._task = loop.create_task(self._live(self._ready, self._end))
        ready = self._ready
        assert ready is not None
        try:
            async with asyncio.timeout(self.server.start_timeout):
                return await asyncio.shield(ready)
        except TimeoutError as error:
            self._task.cancel()
            raise self._absent(f"it did not start within {self.server.start_timeout:g} s") from error

    async def _live(self, ready: asyncio.Future[Client], end: asyncio.Event) -> None:
        try:
            async with _transport(self.server) as transport, Client(transport, cache=None) as client:
                ready.set_result(client)
                await end.wait()
        except asyncio.CancelledError:
            ready.cancel()
            raise
        except BaseException as error:  # noqa: BLE001 - told to whoever waits; nobody waits for what comes after
            if not ready.done():
                ready.set_exception(self._absent(_words(error)))
                ready.exception()  # Somebody may have stopped waiting for it.

    def _absent(self, why: str) -> MCPUnavailableError:
        error = self._unavailable(why)
        error.called = False
        return error

    def _gone(self, error: Exception) -> MCPUnavailableError:
        return self._unavailable(f"it is gone: {_words(error)}")

    def _unavailable(self, why: str) -> MCPUnavailableError:
        return MCPUnavailableError(f"MCP server {self.server.name} does not answer: {why}")


@contextlib.asynccontextmanager
async def _transport(server: Server) -> AsyncIterator[Any]:
    """Something that `Client` can talk through."""
    if not server.command:
        async with create_mcp_http_client(headers=dict(server.headers)) as http:
            yield streamable_http_client(server.url, http_client=http)
        return
    program, *arguments = server.command
    parameters = StdioServerParameters(command=program, args=arguments, env=dict(server.env), cwd=server.cwd)
    with _stderr() as stderr:
        yield stdio_client(parameters, errlog=stderr)


@contextlib.contextmanager
def _stderr() -> Iterator[TextIO]:
    """Where a program writes what it logs: where this process does, which in a worker `sys.stderr` no longer is."""
    own: TextIO | None = sys.__stderr__
    usable = False
    with contextlib.suppress(OSError, ValueError):  # it is closed
        usable = own is not None and own.fileno() >= 0
    if usable and own is not None:
        yield own
        return
    with Path(os.devnull).open("w") as nowhere:
        yield nowhere


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _part(part: Any) -> Part:
    if isinstance(part, TextContent):
        return Part(part.text)
    image = f"data:{part.mime_type};base64,{part.data}" if isinstance(part, ImageContent) else ""
    return Part(f"[{part.type}, which cannot be shown here]", image)


def _data(structured: Any) -> Any:
    """What a server gives as JSON: it wraps in ``result`` what is no object. None: it gives none."""
    return structured["result"] if isinstance(structured, Mapping) and set(structured) == {"result"} else structured


def runs_programs() -> bool:
    """Whether a server can be started here: gevent's processes know no other loop than gevent's."""
    return not threads.under_gevent()
