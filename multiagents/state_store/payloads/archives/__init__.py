"""Where events go that are no longer kept hot: the port, and its implementations beside it."""

from __future__ import annotations

from multiagents.state_store.payloads.archives.base import HistoryArchive

__all__ = ["HistoryArchive"]
