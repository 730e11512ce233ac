"""A server of a test's own, of the kind that the tests run against, and configured as the test likes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from multiagents.embedded import EmbeddedServer
from multiagents.testing.servers import server_kind


def own_server(folder: Path, *, password: str | None = None, config: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Make it; it is not started."""
    executable = "redis-server" if server_kind() == "redis" else None
    return EmbeddedServer(folder, password=password, executable=executable, config=config)
