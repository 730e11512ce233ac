"""What is left over to be looked at."""

from __future__ import annotations

from collections.abc import Iterable

from multiagents.state_store.records import Due, DueKind


def unfinished(entries: Iterable[str]) -> list[str]:
    """The entries of ``due`` that ask for more than to forget, in time, a run that is over."""
    return [entry for entry in entries if Due.decode(entry).kind != DueKind.EXPIRY]
