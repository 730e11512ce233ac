"""Where large payloads are kept, if not in the state store itself: the port, and its implementations beside it."""

from __future__ import annotations

from multiagents.state_store.payloads.offload.base import PayloadStore

__all__ = ["PayloadStore"]
