"""A definition as one run has it: with the items of its maps, and with the passes that its save-points have led to.

A definition is fixed (rule S26), and yet a run may come to have more steps than it names. Two things add some, and both
are on record in the run's state, so that whoever has the definition and the state has the steps:

- a map whose list is known has its items (`multiagents.workflow.definition.map_items`);
- a run that went back to a save-point goes through all that stands behind it once more, as steps of their own:
  ``charge#2`` beside the ``charge`` that was undone (rule S15). What was undone is *superseded*: it is still there to
  be seen, and nothing waits for it any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from multiagents.workflow.definition.graph import Graph
from multiagents.workflow.definition.map_items import item_name, with_items

if TYPE_CHECKING:
    from multiagents.workflow.definition.definition import Definition
    from multiagents.workflow.definition.step import StepDefinition

__all__ = ["Expansions", "behind"]

#: How many steps of expanded definitions a process keeps for each definition.
KEPT_STEPS = 50_000

_Key = tuple[tuple[tuple[str, int], ...], tuple[str, ...]]


class Expansions:
    """A definition as runs have it, as they were asked for last.

    Args:
        base: the definition as it was built.
    """

    def __init__(self, base: Definition) -> None:
        self._base = base
        self._known: dict[_Key, Definition] = {}

    def of(self, sizes: Mapping[str, int], rollbacks: Sequence[str]) -> Definition:
        """The definition for maps of these sizes, after these rollbacks; without any, the one that was built."""
        if not sizes and not rollbacks:
            return self._base
        key = (tuple(sorted(sizes.items())), tuple(rollbacks))
        known = self._known.get(key)
        if known is None:
            made = self._with_items(sizes, key[1]) if sizes else self._with_pass(key[1])
            if sum(len(definition.steps) for definition in self._known.values()) > KEPT_STEPS:
                self._known.clear()
            known = self._known[key] = made
        return known

    def _with_items(self, sizes: Mapping[str, int], rollbacks: tuple[str, ...]) -> Definition:
        before = self.of({}, rollbacks)
        placed = {name: _items_of(name, sizes) for name in before.steps}
        made = self._made(before, with_items(before.steps, sizes), placed)
        put = object.__setattr__
        put(made, "sizes", MappingProxyType(dict(sizes)))
        put(made, "superseded", before.superseded.union(*(placed[name] for name in before.superseded)))
        return made

    def _with_pass(self, rollbacks: tuple[str, ...]) -> Definition:
        """Behind the last save-point that was gone back to, all steps once more; the first pass has no number."""
        before = self.of({}, rollbacks[:-1])
        again = behind(before.graph, rollbacks[-1])
        named = {name: f"{before.origins.get(name, name)}#{len(rollbacks) + 1}" for name in again}
        steps: dict[str, StepDefinition] = {}
        for name, step in before.steps.items():
            steps[name] = step
            if name in named:
                steps[named[name]] = _renamed(step, named)
        placed = {name: [named[name]] if name in named else [] for name in before.steps}
        made = self._made(before, steps, placed)
        superseded = before.superseded | again
        current = {name: step.after for name, step in steps.items() if name not in superseded}
        graph = Graph(before.name, current)
        origins = {**before.origins, **{new: before.origins.get(old, old) for old, new in named.items()}}
        put = object.__setattr__
        for name, value in {
            "content_hash": f"{before.content_hash}~{rollbacks[-1]}",
            "rollbacks": rollbacks,
            "superseded": superseded,
            "origins": MappingProxyType(origins),
            "graph": graph,
            "exits": graph.exits,
        }.items():
            put(made, name, value)
        return made

    def _made(
        self, before: Definition, steps: Mapping[str, StepDefinition], placed: Mapping[str, Sequence[str]]
    ) -> Definition:
        """A definition with more steps: it has the same hash, and data is merged as if items were not there."""
        order = before.compensate_in
        if order is not None:
            order = tuple(each for name in order for each in (*reversed(placed[name]), name))
        made = replace(before, steps=steps, compensate_in=order)
        put = object.__setattr__
        for name in ("content_hash", "graph", "exits", "rollbacks", "superseded", "origins"):
            put(made, name, getattr(before, name))
        put(made, "_expansions", self)
        return made


def behind(graph: Graph, step: str) -> frozenset[str]:
    """All steps that stand behind one."""
    found: set[str] = set()
    ahead = list(graph.successors[step])
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += graph.successors[name]
    return frozenset(found)


def _items_of(name: str, sizes: Mapping[str, int]) -> list[str]:
    return [item_name(name, index) for index in range(sizes.get(name, 0))]


def _renamed(step: StepDefinition, named: Mapping[str, str]) -> StepDefinition:
    branches = {label: tuple(named.get(name, name) for name in names) for label, names in step.branches.items()}
    after = tuple(named.get(name, name) for name in step.after)
    return replace(step, name=named[step.name], after=after, branches=branches)
