"""Milliseconds: how the store keeps moments. The store's own clock is the only one; nothing here reads any."""

from __future__ import annotations

from datetime import UTC, datetime


def to_ms(moment: datetime) -> int:
    """A moment as the store keeps it: milliseconds since 1970.

    >>> to_ms(datetime(2026, 7, 1, tzinfo=UTC))
    1782864000000
    """
    return round(moment.timestamp() * 1000)


def from_ms(milliseconds: int) -> datetime:
    """The inverse of `to_ms`."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
