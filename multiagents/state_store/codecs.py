"""The public address of payload codecs, for people who write their own (``multiagents_payload_codec``).

`PayloadCodec` says what such an object promises; see docs/payloads.md.
"""

from __future__ import annotations

from multiagents.state_store.payloads.codecs import PayloadCodec
from multiagents.state_store.payloads.codecs.gzip import GzipCodec

__all__ = ["GzipCodec", "PayloadCodec"]
