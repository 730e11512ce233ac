"""The names of a map's items: ``resize[3]`` is the fourth of ``resize``."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["ITEM_KEYS", "item_name", "map_of"]

#: What an item of a map is given of itself.
ITEM_KEYS = ("item", "index")

_ITEM = re.compile(r"(.+)\[(\d+)\]")


def item_name(name: str, index: int) -> str:
    """What an item of a map is called.

    >>> item_name("resize", 3)
    'resize[3]'
    """
    return f"{name}[{index}]"


@lru_cache(maxsize=1024)  # asked several times at every step
def map_of(step: str) -> str | None:
    """The map that a step is an item of, or None when it is none.

    >>> map_of("resize[3]"), map_of("resize")
    ('resize', None)
    """
    if step[-1:] != "]":
        return None
    found = _ITEM.fullmatch(step)
    return found and found[1]
