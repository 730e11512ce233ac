"""MCP servers whose tools an agent may call: what `mcp_tools` was told, checked without loading an SDK."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from multiagents.agents.tools import ToolOptions, checked_name, options_of, tool
from multiagents.clock import LONGEST_IN_WORDS, Duration, in_seconds, is_duration
from multiagents.exceptions import ConfigurationError

#: Seconds that a server has to start, and to say what it has, where nobody says otherwise.
START_TIMEOUT = 30.0
#: Characters of a command that are told.
_SHOWN = 120
_NO_IDENTIFIER = re.compile(r"\W")


@dataclass(frozen=True, slots=True)
class Server:
    """Where an MCP server is. Entries for the same one are served by one session.

    Attributes:
        command: a program that is started for each attempt, with its arguments; empty where there is a URL.
        url: of a server that runs already.
        env: variables for the program.
        cwd: the folder that it is started in.
        headers: of each request.
        start_timeout: seconds that it has to start, and to say what it has.
    """

    command: tuple[str, ...] = ()
    url: str = ""
    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    start_timeout: float = START_TIMEOUT

    @property
    def name(self) -> str:
        """What it is called by in words and in the journal, without what a URL may have of a secret."""
        if self.command:
            told = " ".join(self.command)
            return told if len(told) <= _SHOWN else f"{told[:_SHOWN]}..."
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


@dataclass(frozen=True, slots=True)
class MCPTools:
    """The tools of an MCP server, as an agent is given them.

    Attributes:
        server: where it is.
        only: the tools of it that are meant, by their names there; empty: all.
        prefix: what their names here begin with.
        options: what is known of each of them; its name is of no account.
    """

    server: Server
    only: tuple[str, ...]
    prefix: str
    options: ToolOptions

    def options_of(self, name: str) -> ToolOptions:
        """What is known of one of them, by its name there; here it is called as Python can call it.

        Raises:
            ConfigurationError: when its name cannot be used.
        """
        here = self.prefix + _NO_IDENTIFIER.sub("_", name)
        try:
            return replace(self.options, name=checked_name(here, self.server))
        except ConfigurationError as error:
            raise ConfigurationError(
                f"tool {name!r} of MCP server {self.server.name} cannot be called {here!r}: it is no identifier, or "
                f'taken by DSPy itself; give mcp_tools(..., prefix="shop_"), or leave it out with only='
            ) from error


def mcp_tools(
    *,
    command: Sequence[str] = (),
    url: str = "",
    only: Sequence[str] = (),
    prefix: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    headers: Mapping[str, str] | None = None,
    start_timeout: Duration = START_TIMEOUT,
    idempotent: bool | None = None,
    timeout: Duration | None = None,
    max_calls: int = 0,
    approval: bool | Callable[..., bool] = False,
    approval_timeout: Duration | None = None,
    on_timeout: str = "reject",
) -> MCPTools:
    """Name an MCP server whose tools an agent may call: ``tools=[mcp_tools(command=["my-server"])]``.

    The server is asked once a step which tools it has; that is in the journal, so that later attempts have the same
    ones. There is one session for each attempt, opened when it is needed. Each call goes the way of any other tool's:
    journal, approval, limits. Its idempotency key is sent with it, as ``multiagents/idempotency_key`` of ``_meta``. A
    server that does not answer fails the attempt, which is tried again as the step's ``retry=`` says.

    Args:
        command: a program that speaks MCP on its standard input and output, with its arguments; each attempt starts
            its own. On gevent there is none: give a URL there.
        url: of a server that speaks MCP by streamable HTTP. Give either.
        only: the tools that are meant, by their names there; left out: all.
        prefix: what the model calls them begins with this. What of a name is no Python identifier becomes ``_``.
        env: variables for the program, beside PATH, HOME and the like. Secrets belong here, or in the headers: what
            stands in the command or the URL's path is shown in errors and in the journal.
        cwd: the folder that the program is started in.
        headers: of each request to the URL.
        start_timeout: seconds that the server has to start, and to say what it has.
        idempotent: of each of the tools, as this and what follows is of `multiagents.tool`.
        timeout: of each of them: seconds that a call may take.
        max_calls: of each of them: how often it may be called in a step.
        approval: of each of them: whether a person has to approve a call; or a function of the arguments, as a dict.
        approval_timeout: of each of them: seconds after which a call that nobody has decided upon is rejected.
        on_timeout: what is decided then: ``reject``.

    Raises:
        ConfigurationError: when an argument is not what it must be.

    >>> mcp_tools(url="http://127.0.0.1:8000/mcp", only=["add"], idempotent=True).server.name
    'http://127.0.0.1:8000/mcp'
    """
    if isinstance(command, str) or not all(isinstance(part, str) and part for part in command):
        raise ConfigurationError(
            f"command of mcp_tools must be a list of strings, the program and its arguments, got {command!r:.120}"
        )
    if bool(command) == bool(url):
        raise ConfigurationError('mcp_tools takes either command=["my-server"] or url="http://.../mcp"')
    if url and (
        not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname
    ):
        raise ConfigurationError(
            f"url of mcp_tools must begin with http:// or https:// and name a host, got {url!r:.120}"
        )
    for option, given, belongs in (("env", env, command), ("cwd", cwd, command), ("headers", headers, url)):
        if given and not belongs:
            raise ConfigurationError(f"{option} of mcp_tools is for {'url=' if option == 'headers' else 'command='}")
    if isinstance(only, str) or not all(isinstance(name, str) for name in only):
        raise ConfigurationError(f"only of mcp_tools must be a list of names, got {only!r:.120}")
    if prefix and not (isinstance(prefix, str) and prefix.isidentifier()):
        raise ConfigurationError(
            f"prefix of mcp_tools must be the beginning of a Python identifier, got {prefix!r:.80}"
        )
    seconds = in_seconds(start_timeout)
    if seconds is None or not is_duration(seconds):
        raise ConfigurationError(
            f"start_timeout of mcp_tools must be a number of seconds above 0, got {start_timeout!r:.80}; or a "
            f"timedelta, and {LONGEST_IN_WORDS}"
        )
    server = Server(
        command=tuple(command),
        url=url,
        env=_pairs("env", env),
        cwd=cwd,
        headers=_pairs("headers", headers),
        start_timeout=seconds,
    )
    template = tool(
        "tool",
        idempotent=idempotent,
        timeout=timeout,
        max_calls=max_calls,
        approval=approval,
        approval_timeout=approval_timeout,
        on_timeout=on_timeout,
    )(lambda: None)
    return MCPTools(server, tuple(only), prefix, options_of(template))


def _pairs(option: str, given: Any) -> tuple[tuple[str, str], ...]:
    if given is None:
        return ()
    if not isinstance(given, Mapping) or not all(isinstance(part, str) for pair in given.items() for part in pair):
        raise ConfigurationError(f"{option} of mcp_tools must be a dict of strings, got {type(given).__name__}")
    return tuple(sorted(given.items()))
