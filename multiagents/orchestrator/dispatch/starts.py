"""Starts that wait behind others' tasks in a Redis that is not the store: those that have waited long go on among them.

On the store's own Redis the sweep's script does that (`lists.lua`). Here each worker does, for the queues it consumes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from multiagents.failpoints import WriteSite, write

#: How many go on at a time, so that an undo still passes a backlog of them.
AT_ONCE = 10


class Starts:
    """The starts in the lists of one broker."""

    def __init__(self) -> None:
        #: list -> the last message that went on in it from here
        self._risen: dict[str, Any] = {}

    def rise(
        self, client: Any, lists: Iterable[tuple[str, str]], has_waited: Callable[[Mapping[str, Any]], bool]
    ) -> None:
        """Have those go on that have waited long.

        Args:
            client: of the broker.
            lists: where starts wait, and the list that is consumed before that.
            has_waited: whether a message has waited long enough, or is waited for by nobody; given its headers.
        """
        for waiting, to in lists:
            self._rise(client, waiting, to, has_waited)

    def _rise(self, client: Any, waiting: str, to: str, has_waited: Callable[[Mapping[str, Any]], bool]) -> None:
        if client.lindex(to, 0) is None:
            return  # nothing keeps them
        if to in self._risen and client.lpos(to, self._risen[to]) is not None:
            return
        for _ in range(AT_ONCE):
            message = client.lindex(waiting, -1)
            if message is None or not has_waited(json.loads(message)["headers"]):
                return
            # It may just have been taken; then it is the next one that goes on.
            self._risen[to] = write(WriteSite.RAISE_START, partial(client.lmove, waiting, to, "RIGHT", "LEFT"))
