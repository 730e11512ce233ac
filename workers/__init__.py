"""Workers that every process of this project knows: the two of the hello example. Put yours beside them."""

from __future__ import annotations

from typing import Any

from multiagents import worker

__all__ = ["add", "greet"]


@worker("greet")
def greet(context: dict[str, Any]) -> dict[str, Any]:
    """Greet ``name``."""
    return {"greeting": f"Hello, {context['name']}!"}


@worker("add")
def add(context: dict[str, Any]) -> dict[str, Any]:
    """Add ``a`` and ``b``."""
    return {"sum": context["a"] + context["b"]}
