"""The public address of stores for large payloads, for people who write their own (``multiagents_claim_check_store``).

`PayloadStore` says what such an object promises; see docs/payloads.md.
"""

from __future__ import annotations

from multiagents.state_store.payloads.offload import PayloadStore
from multiagents.state_store.payloads.offload.redis import RedisPayloadStore

__all__ = ["PayloadStore", "RedisPayloadStore"]
