"""The public address of archives of histories, for people who write their own (``multiagents_history_archive``).

`HistoryArchive` says what such an object promises; see docs/payloads.md.
"""

from __future__ import annotations

from multiagents.state_store.payloads.archives import HistoryArchive
from multiagents.state_store.payloads.archives.file import FileArchive

__all__ = ["FileArchive", "HistoryArchive"]
