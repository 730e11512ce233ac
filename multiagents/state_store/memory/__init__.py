"""Runs in this process, for tests and ``memory://``. Begin with `store.InMemoryStateStore`, then `tables`.

The same contract as Redis, held by the same tests.
"""

from __future__ import annotations

from multiagents.state_store.memory.store import InMemoryStateStore

__all__ = ["InMemoryStateStore"]
