"""The items of maps: steps that are there once it is known how many.

A map is one step of its definition. When its list is known, a run's definition is *laid out*: the map's items become
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
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiagents.workflow.definition import Definition
    from multiagents.workflow.step import StepDefinition

__all__ = ["Layouts", "item_name", "map_of"]

#: How many items of laid-out definitions a process keeps for each definition.
KEPT_ITEMS = 50_000

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


class Layouts:
    """A definition with its maps laid out, in the sizes that were asked for last.

    Args:
        base: the definition as it was built.
    """

    def __init__(self, base: Definition) -> None:
        self._base = base
        self._known: dict[tuple[tuple[str, int], ...], Definition] = {}

    def of(self, sizes: Mapping[str, int]) -> Definition:
        """The definition for these sizes; none gives the one that was built."""
        if not sizes:
            return self._base
        key = tuple(sorted(sizes.items()))
        known = self._known.get(key)
        if known is None:
            kept = sum(sum(definition.sizes.values()) for definition in self._known.values())
            if kept + sum(sizes.values()) > KEPT_ITEMS:
                self._known.clear()
            known = self._known[key] = self._laid_out(sizes)
        return known

    def _laid_out(self, sizes: Mapping[str, int]) -> Definition:
        base = self._base
        steps: dict[str, StepDefinition] = {}
        for name, step in base.steps.items():
            if step.item is None or not sizes.get(name):
                steps[name] = step
                continue
            items = [item_name(name, index) for index in range(sizes[name])]
            row = step.max_concurrency or len(items)
            # What its ``inputs`` take from the context is taken once, for all items.
            template = replace(step.item, inputs=None, block=step.block, cancel_siblings=step.cancel_siblings)
            for index, item in enumerate(items):
                after = step.after if index < row else (items[index - row],)
                steps[item] = replace(template, name=item, after=after)
            steps[name] = replace(step, after=tuple(items))
        laid_out = replace(base, steps=steps, compensate_in=_order(base.compensate_in, sizes))
        put = object.__setattr__
        # It is the same definition, under the same hash; and data is merged as if items were not there.
        for name, same in {"content_hash": base.content_hash, "graph": base.graph, "_layouts": self}.items():
            put(laid_out, name, same)
        put(laid_out, "sizes", MappingProxyType(dict(sizes)))
        return laid_out


def _order(given: tuple[str, ...] | None, sizes: Mapping[str, int]) -> tuple[str, ...] | None:
    """An explicit order of undoing, with the items of a map in its place: the last one first."""
    if given is None:
        return None
    order: list[str] = []
    for name in given:
        order += [name, *(item_name(name, index) for index in reversed(range(sizes.get(name, 0))))]
    return tuple(order)
