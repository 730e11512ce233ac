"""How often a process has asked a server and waited for the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis.connection


@contextmanager
def round_trips() -> Iterator[list[Any]]:
    """Everything that is sent while it lasts, one entry for each time: a pipeline is one, whatever is in it."""
    sent: list[Any] = []
    send = redis.connection.AbstractConnection.send_packed_command

    def counted(self: Any, command: Any, *args: Any, **options: Any) -> Any:
        sent.append(command)
        return send(self, command, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis.connection.AbstractConnection, "send_packed_command", counted)
        yield sent
