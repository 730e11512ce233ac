"""The items of maps: steps that are there once it is known how many.

A map is one step of its definition. When its list is known, a run's definition is *expanded*: the map's items become
steps beside it, ``resize[0]``, ``resize[1]``, ..., which wait for what the map waited for, and the map itself waits for
them. From then on they are steps like any others. Their results are not merged into the context: the map's own result
is the list of them.

With ``max_concurrency=n`` the items stand in n rows: item i waits for item i - n. So a worker that has finished one
knows the next without a look at the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiagents.workflow.definition.step import StepDefinition

__all__ = ["item_name", "map_of", "with_items"]

_ITEM = re.compile(r"(.+)\[(\d+)\]")


def item_name(name: str, index: int) -> str:
    """What an item of a map is called.

    >>> item_name("resize", 3)
    'resize[3]'
    """
    return f"{name}[{index}]"


def map_of(step: str) -> str | None:
    """The map that a step is an item of, or None when it is none.

    >>> map_of("resize[3]"), map_of("resize")
    ('resize', None)
    """
    if step[-1:] != "]":
        return None
    found = _ITEM.fullmatch(step)
    return found and found[1]


def with_items(steps: Mapping[str, StepDefinition], sizes: Mapping[str, int]) -> dict[str, StepDefinition]:
    """Steps with the items of their maps, as far as their numbers are known.

    Args:
        steps: name -> step.
        sizes: map -> how many items it has.
    """
    expanded: dict[str, StepDefinition] = {}
    for name, step in steps.items():
        if step.item is None or not sizes.get(name):
            expanded[name] = step
            continue
        items = [item_name(name, index) for index in range(sizes[name])]
        row = step.max_concurrency or len(items)
        # What its ``inputs`` take from the context is taken once, for all items.
        template = replace(step.item, inputs=None, block=step.block, cancel_siblings=step.cancel_siblings)
        for index, item in enumerate(items):
            expanded[item] = replace(template, name=item, after=step.after if index < row else (items[index - row],))
        expanded[name] = replace(step, after=tuple(items))
    return expanded
