"""What users' data becomes on its way to the store and back. Begin with `policy.PayloadPolicy`.

Codecs (compressed, encrypted), the claim check for large values (`offload`), redaction, archives of histories, and
the context as a step sees it. Nothing here knows a store.
"""

from __future__ import annotations

from multiagents.state_store.payloads.context import Payloads, as_given, as_mapping, dumps, merge, signal_field
from multiagents.state_store.payloads.envelope import has_marks
from multiagents.state_store.payloads.factory import policy_of
from multiagents.state_store.payloads.history_codec import pack, unpack
from multiagents.state_store.payloads.policy import PLAIN, PayloadPolicy, Reading, Writing

__all__ = [
    "PLAIN",
    "PayloadPolicy",
    "Payloads",
    "Reading",
    "Writing",
    "as_given",
    "as_mapping",
    "dumps",
    "has_marks",
    "merge",
    "pack",
    "policy_of",
    "signal_field",
    "unpack",
]
