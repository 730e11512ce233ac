"""A way to a model: which one, where, and what asks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Route:
    """A way to a model.

    Attributes:
        model: its name, as DSPy spells it.
        base_url: where it is asked, if not where its provider says.
        model_type: which of the provider's APIs.
        provider: whose it is, for prices; None is unknown.
        engine: asks it.
        async_engine: asks it from a coroutine.
    """

    model: str
    base_url: str | None
    model_type: str
    provider: str | None
    engine: Any
    async_engine: Any
