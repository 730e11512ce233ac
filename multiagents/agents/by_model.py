"""Settings that are about models: found by a model's name, or by a pattern of names."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

_T = TypeVar("_T")


def found_for(model: str, table: Mapping[str, _T]) -> tuple[str, _T] | None:
    """What a table says of a model, and under which of its names: its own, else the longest pattern that has it.

    >>> found_for("gemini/gemini-3.8-flash", {"gemini/*": 1, "*": 2, "openai/*": 3})
    ('gemini/*', 1)
    """
    if model in table:
        return model, table[model]
    names = [name for name in table if fnmatchcase(model, name)]
    if not names:
        return None
    best = max(names, key=lambda name: (len(name), name))
    return best, table[best]
