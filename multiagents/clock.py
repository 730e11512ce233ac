"""Milliseconds: how the store keeps moments. The store's own clock is the only one; none here tells a time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

#: What a time limit may be given as: seconds, or a timedelta. It is kept, and sent, as seconds (`in_seconds`).
Duration = float | timedelta

#: The longest that anything may wait, last or be kept, in seconds: 100 years. So whatever begins ends in the calendar.
LONGEST = 3_155_760_000.0
#: The same in words, for messages.
LONGEST_IN_WORDS = "at most 3,155,760,000 s (100 years)"
#: The last moment of the calendar.
_LAST_MS = 253_402_300_799_999


def in_seconds(value: Any) -> Any:
    """A time limit in seconds, however it was given; whatever is no timedelta is left as it is, to be judged later.

    >>> in_seconds(timedelta(minutes=1, seconds=30)), in_seconds(30), in_seconds(None)
    (90.0, 30, None)
    """
    return value.total_seconds() if isinstance(value, timedelta) else value


def is_duration(value: Any, *, zero: bool = False) -> bool:
    """Whether a value is a number of seconds that can be waited: above 0, or with ``zero`` at least that; and bounded.

    >>> is_duration(1.5), is_duration(0), is_duration(float("inf")), is_duration(10**400), is_duration("1")
    (True, False, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (value > 0 or (zero and value == 0)) and value <= LONGEST


def to_ms(moment: datetime) -> int:
    """A moment as the store keeps it: milliseconds since 1970.

    >>> to_ms(datetime(2026, 7, 1, tzinfo=UTC))
    1782864000000
    """
    return min(round(moment.timestamp() * 1000), _LAST_MS)


def from_ms(milliseconds: int) -> datetime:
    """The inverse of `to_ms`."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def steady_ms() -> float:
    """Milliseconds since some moment, by a clock that nobody sets; where there is one that runs on while a machine is
    suspended (Linux), by that.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return (time.monotonic() if boot is None else time.clock_gettime(boot)) * 1000
