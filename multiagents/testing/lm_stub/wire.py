"""What the stub needs to know of the way in which a provider's API is spoken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from multiagents.testing.lm_stub.replies import Problem, Reply
from multiagents.testing.lm_stub.request import LMRequest

__all__ = ["Asked", "Wire"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a wire reads out of a request."""

    model: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[str, ...]
    stream: bool


class Wire(Protocol):
    """One provider's API."""

    #: as `LMRequest.wire` names it
    name: str

    def read(self, path: str, body: Mapping[str, Any]) -> Asked | None:
        """Read a request; None where the path is of another wire."""

    def answer(self, reply: Reply, request: LMRequest) -> Mapping[str, Any]:
        """Write an answer as one JSON object."""

    def events(self, reply: Reply, request: LMRequest) -> Sequence[str]:
        """Write an answer as the data of server-sent events."""

    def error(self, problem: Problem) -> Mapping[str, Any]:
        """Write an error as one JSON object."""
