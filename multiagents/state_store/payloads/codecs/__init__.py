"""What stored data may be put through on its way: compressed, encrypted, or what else a project has."""

from __future__ import annotations

from multiagents.state_store.payloads.codecs.base import PayloadCodec

__all__ = ["PayloadCodec"]
