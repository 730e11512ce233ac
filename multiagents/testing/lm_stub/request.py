"""What the stub has been asked, the same for every wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LMRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LMRequest:
    """One request to the language model, as the stub has received it.

    Attributes:
        number: 1 for the first request that this stub got.
        at: when it came, in seconds since the epoch.
        wire: ``"openai"`` or ``"gemini"``.
        model: the model's name on the wire, without the provider: ``"gemini-3.8-flash"``.
        messages: dicts with ``role`` (``system``, ``user``, ``assistant`` or ``tool``), ``content`` (its text) and,
            where the model had called tools, ``tool_calls`` (dicts with ``name`` and ``args``).
        tools: the names of the tools that the model may call.
        stream: whether the answer is to come piece by piece.
        headers: of HTTP, names in small letters, without those that carry a key.
        has_key: whether a key came with it. The key itself is kept nowhere.
        body: the JSON as it came.
    """

    number: int
    at: float
    wire: str
    model: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[str, ...] = ()
    stream: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    has_key: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text of all its messages."""
        return "\n\n".join(str(message["content"]) for message in self.messages)

    @property
    def prompt(self) -> str:
        """The text of its last message."""
        return str(self.messages[-1]["content"]) if self.messages else ""

    def __str__(self) -> str:
        text = " ".join(self.prompt.split())
        end = text if len(text) <= 60 else f"...{text[-60:]}"
        return f"request {self.number} to {self.model} ({self.wire}{', streamed' if self.stream else ''}): {end}"
