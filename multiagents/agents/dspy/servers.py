"""The tools of MCP servers, as tools of DSPy's: listed once a step, and called through one session an attempt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dspy
from dspy.adapters.types.tool import convert_input_schema_to_tool_args

from multiagents.agents.extras import lacks
from multiagents.agents.opentelemetry import replayed
from multiagents.agents.tools import ToolOptions, calling, give_options, options_of
from multiagents.exceptions import (
    ConfigurationError,
    MCPUnavailableError,
    TerminalError,
    did_you_mean,
)
from multiagents.plain_json import plain
from multiagents.state_store.records import CallVerdict

if TYPE_CHECKING:
    from multiagents.agents.agent import Agent
    from multiagents.agents.calls import Calls
    from multiagents.agents.mcp import Part, Session
    from multiagents.agents.servers import MCPTools, Server

#: What installs what servers of tools need.
_INSTALL = 'pip install "celery-multiagents[mcp]"'


@contextmanager
def tools_of_servers(agent: Agent, calls: Calls | None) -> Iterator[list[dspy.Tool]]:
    """The tools that an agent's servers have; what was opened for them is closed at the end, however that comes.

    Raises:
        MCPUnavailableError: when a server does not say what it has.
        TerminalError: when a tool has a name that it cannot have here.
    """
    if not agent.servers:
        yield []
        return
    sessions = {entry.server: _session(agent, entry.server) for entry in agent.servers}
    try:
        listed = {server: _listing(session, calls) for server, session in sessions.items()}
        tools = [
            tool
            for entry in agent.servers
            for tool in _tools(agent, entry, listed[entry.server], sessions[entry.server])
        ]
        _check_names(agent, tools)
        yield tools
    finally:
        for session in sessions.values():
            session.close()


def _session(agent: Agent, server: Server) -> Session:
    try:
        from multiagents.agents.mcp import Session, runs_programs
    except ModuleNotFoundError as error:
        if not lacks(error, "mcp"):
            raise
        raise ConfigurationError(
            f'worker "{agent.name}" has tools of an MCP server, and the SDK for these is not installed here; install '
            f"it where its steps run: {_INSTALL}"
        ) from error
    if server.command and not runs_programs():
        raise TerminalError(
            f'worker "{agent.name}" starts the MCP server {server.name}, which cannot be done on gevent; have it serve '
            f"HTTP and give mcp_tools(url=...), or run these steps on prefork or threads"
        )
    return Session(server)


def _listing(session: Session, calls: Calls | None) -> list[dict[str, Any]]:
    """What a server has, as the step's first attempt was told it."""
    if calls is None:
        return session.tools()
    begun = calls.begin_listing(session.server.name)
    if begun.verdict is CallVerdict.REPLAY:
        replayed(calls, "listing", session.server.name, begun.slot)
        return begun.answer  # type: ignore[no-any-return]
    try:
        listed = session.tools()
    except MCPUnavailableError as error:
        calls.refuse(begun, type(error).__name__)
        raise
    calls.finish(begun, listed)
    return listed


def _tools(agent: Agent, entry: MCPTools, listed: list[dict[str, Any]], session: Session) -> Iterator[dspy.Tool]:
    there = [one["name"] for one in listed]
    for name in entry.only:
        if name not in there:
            raise TerminalError(
                f'worker "{agent.name}": MCP server {entry.server.name} has no tool {name!r}'
                f"{did_you_mean(name, there)} (it has: {', '.join(there) or 'none'})"
            )
    for one in listed:
        if entry.only and one["name"] not in entry.only:
            continue
        try:
            options = entry.options_of(one["name"])
        except ConfigurationError as error:
            raise TerminalError(f'worker "{agent.name}": {error}') from error
        arguments, types, descriptions = convert_input_schema_to_tool_args(one["input"])
        yield dspy.Tool(
            _caller(one["name"], options, session, as_data=agent.reasoning.writes_code),
            name=options.name,
            desc=one["description"],
            args=arguments,
            arg_types=types,
            arg_desc=descriptions,
        )


def _caller(name: str, options: ToolOptions, session: Session, *, as_data: bool) -> Any:
    async def call(**arguments: Any) -> Any:
        current = calling.get()
        parts, data = await session.call(name, arguments, "" if current is None else current.idempotency_key)
        if as_data and data is not None:
            return data
        return "\n".join(_written(part, as_data=as_data) for part in parts)

    return give_options(call, options)


def _written(part: Part, *, as_data: bool) -> str:
    """A part of a result as text; an image as DSPy has it in a text, from which the adapter makes one again."""
    return part.text if as_data or not part.image else str(plain(dspy.Image(part.image), "an image"))


def _check_names(agent: Agent, tools: list[dspy.Tool]) -> None:
    known = {options_of(one).name for one in agent.functions}
    for tool in tools:
        if tool.name in known:
            raise TerminalError(
                f'worker "{agent.name}": two tools are called "{tool.name}", one of them by an MCP server, and the '
                f'model could call but one; give mcp_tools(..., prefix="shop_"), or leave one out with only='
            )
        known.add(tool.name)
