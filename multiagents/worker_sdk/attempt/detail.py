"""What a heartbeat says of a step's progress, as it is kept: a detail never costs the step anything."""

from __future__ import annotations

import json
from typing import Any

from multiagents.interruption import is_interrupted

#: Bytes of JSON that are kept.
MAX_DETAIL = 16 * 1024

_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, default=str)


def plain(detail: Any) -> Any:
    """A detail as JSON-ready data, taken at the moment of the call: its owner may change it the next.

    What has no JSON of its own is shown as its text, and in place of what cannot be shown, or is too large, stands why.

    >>> from datetime import date
    >>> plain({"at": date(2026, 11, 30), "done": 3})
    {'at': '2026-11-30', 'done': 3}
    >>> plain(float("nan"))
    '(not shown: a float that is not JSON: ValueError)'
    """
    kind = type(detail)
    if detail is None or kind is int or kind is bool:
        return detail
    try:
        text = _ENCODER.encode(detail).encode(errors="replace")
        if len(text) > MAX_DETAIL:
            return f"(not shown: {len(text):,} bytes, and {MAX_DETAIL:,} are kept of a heartbeat's detail)"
        return json.loads(text)
    except BaseException as error:
        if is_interrupted(error):
            raise
        return f"(not shown: a {kind.__name__} that is not JSON: {type(error).__name__})"
