"""Take secrets out of what is only looked at: the history, and dead letters when they are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate
from typing import Any

#: What stands in the place of a value that is not to be shown.
REDACTED = "[redacted]"


def redactor(patterns: Iterable[str]) -> Callable[[Any], Any] | None:
    """Make a function that redacts JSON-like data; None when there is nothing to redact.

    Args:
        patterns: of keys, as file names are matched (``*password*``), whatever their case.

    >>> redact = redactor(["*password*", "card_number"])
    >>> redact({"user": {"Password2": "hunter2"}, "cards": [{"card_number": 4111}], "total": 5})
    {'user': {'Password2': '[redacted]'}, 'cards': [{'card_number': '[redacted]'}], 'total': 5}
    """
    wanted = [translate(pattern.casefold()) for pattern in patterns]
    if not wanted:
        return None
    matches = re.compile("|".join(wanted)).match

    def redact(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                key: REDACTED if isinstance(key, str) and matches(key.casefold()) else redact(inner)
                for key, inner in value.items()
            }
        return [redact(inner) for inner in value] if isinstance(value, list | tuple) else value

    return redact
