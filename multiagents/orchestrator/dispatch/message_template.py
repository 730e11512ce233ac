"""Text with blanks, for messages of which one is like the other but for a few ids.

Celery writes a message once, with blanks for its ids; from then on only the blanks are filled in, which takes a tenth
of the time. What is filled in has to need no escaping: ids are of a few harmless characters.
"""

from __future__ import annotations

import itertools
import os
import re
from base64 import b64encode
from collections.abc import Mapping
from uuid import uuid4

from multiagents.names import Correlation

_BLANK = re.compile(r"@(id|root|shown|body|tag|number|step|direction|attempt|definition|nonce)@")


class Blanks:
    """A text in which ``@name@`` stands for a value.

    >>> Blanks("charge @id@, attempt @attempt@").fill({"id": "A-1", "attempt": "2"})
    'charge A-1, attempt 2'
    """

    __slots__ = ("_parts",)

    def __init__(self, text: str) -> None:
        self._parts = _BLANK.split(text)

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with its blanks filled in."""
        parts = self._parts.copy()
        for place in range(1, len(parts), 2):
            parts[place] = values[parts[place]]
        return "".join(parts)


class Tags:
    """Delivery tags: each one unlike any other of any process, without asking the system for randomness each time."""

    def __init__(self) -> None:
        self._pid = 0
        self._prefix = ""
        self._numbers = itertools.count()

    def next(self) -> str:
        """One that nobody has had."""
        if self._pid != os.getpid():
            self._pid, self._prefix = os.getpid(), uuid4().hex[:16]
        return f"{self._prefix}-{next(self._numbers)}"


class MessageTemplate:
    """A message of one kind, around the number that the commit script puts into it.

    Args:
        message: the whole message, with blanks, ``@body@`` and ``@number@`` among them.
        body: its body, with blanks, before it is encoded.
    """

    __slots__ = ("_body", "_prefix", "_suffix")

    def __init__(self, message: str, body: str) -> None:
        prefix, _, suffix = message.partition("@number@")
        self._prefix, self._suffix = Blanks(prefix), Blanks(suffix)
        self._body = Blanks(body)

    def fill(self, values: dict[str, str]) -> tuple[str, str]:
        """The message before and after its number."""
        values["body"] = b64encode(self._body.fill(values).encode()).decode()
        return self._prefix.fill(values), self._suffix.fill(values)


def shown(correlation: Correlation) -> str:
    """What Flower and ``celery inspect`` show: enough to find a run by its id, and never a payload."""
    if not correlation.step:
        return f"{{'transaction_id': '{correlation.transaction_id}'}}"
    return (
        f"{{'transaction_id': '{correlation.transaction_id}', 'step': '{correlation.step}', "
        f"'{correlation.direction.value}': {correlation.attempt}}}"
    )
