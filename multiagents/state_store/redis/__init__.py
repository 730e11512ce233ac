"""Runs in Redis or Valkey: one Lua script a verb. Begin with `store.RedisStateStore`, then `scripts/README.md`.

Every change of a run is one script, atomic and safe to send twice. `arguments` writes a commit as KEYS and ARGV.
"""

from __future__ import annotations

from multiagents.state_store.redis.store import RedisStateStore

__all__ = ["RedisStateStore"]
