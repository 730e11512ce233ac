"""Runs in Redis or Valkey: one Lua script a verb. Begin with `store.RedisStateStore`, then `scripts/`.

Every change of a run is one script, atomic and safe to send twice. `arguments` writes a commit as KEYS and ARGV.
"""
