"""A real MCP server for tests: ``python mcp_server.py [port]``, on standard input and output without a port.

Each line of the file that ``MCP_SEEN`` names is something that was asked of it, or that has happened to it.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import Tool

SEEN = Path(os.environ["MCP_SEEN"])


def see(what: str) -> None:
    with SEEN.open("a") as file:
        file.write(what + "\n")


class Shop(MCPServer):
    async def list_tools(self) -> list[Tool]:
        see("listed")
        return [*await super().list_tools(), *_more_tools()]


def _more_tools() -> list[Tool]:
    """A tool that is there once there is a file that says so: servers may say something else the next time."""
    if not SEEN.with_suffix(".more").exists():
        return []
    return [
        Tool(name="newcomer", description="It was not there before.", input_schema={"type": "object", "properties": {}})
    ]


shop = Shop("shop", log_level="CRITICAL")


def key_of(context: Context) -> str:
    return str((context.request_context.meta or {}).get("multiagents/idempotency_key", ""))


@shop.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    see(f"add {a} {b}")
    return a + b


@shop.tool(name="look-up")
def look_up(word: str, context: Context) -> list[str]:
    """Look a word up."""
    see(f"look-up {word} {key_of(context)}")
    hold = SEEN.with_suffix(".hold")
    while hold.exists():
        time.sleep(0.02)
    return [f"about {word}", "and more"]


@shop.tool()
def fails(word: str) -> str:
    """Fail."""
    see(f"fails {word}")
    raise ToolError(f"no {word}")


@shop.tool()
def dies() -> str:
    """End the server, the first time."""
    first = not SEEN.with_suffix(".died").exists()
    see("dies")
    if first:
        SEEN.with_suffix(".died").touch()
        os._exit(3)
    return "lives"


@shop.tool()
def picture() -> list[str | Image]:
    """Draw."""
    return ["a dot", Image(data=b"\x89PNG", format="png")]


if __name__ == "__main__":
    ill = SEEN.with_suffix(".ill")
    if ill.exists():
        ill.unlink()
        sys.exit("ill, once")
    see(f"started {os.environ.get('MCP_NAME', '')}".strip())
    atexit.register(see, "ended")
    if len(sys.argv) > 1:
        shop.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        shop.run()
