"""Steps as one run has them: with items of maps, passes behind save-points, and calls of tools that are to be undone.

A definition is fixed (rule S26), and yet a run may come to have more steps than it names. Three things add some, and
all are on record in the run's state, so that whoever has the definition and the state has the steps:

- A map whose list is known has its items: steps beside it, ``resize[0]``, ``resize[1]``, ..., which wait for what the
  map waited for, and the map itself waits for them. Their results are not merged into the context: the map's own result
  is the list of them. With ``max_concurrency=n`` the items stand in n rows: item i waits for item i - n. So a worker
  that has finished one knows the next without a look at the others.
- A run that went back to a save-point goes through all that stands behind it once more, as steps of their own:
  ``charge#2`` beside the ``charge`` that was undone (rule S15). What was undone is *superseded*: it is still there to
  be seen, and nothing waits for it any more.
- The call of a tool that has a compensation is there to be undone, and for nothing else (rule S36): ``plan.flight[0]``
  beside the ``plan`` whose agent has made it. It stands in no order of steps; it is undone before the step that made
  it, and after all that waits for that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from multiagents.workflow.definition.graph import Graph
from multiagents.workflow.definition.map_items import item_name
from multiagents.workflow.definition.step import StepDefinition, StepKind
from multiagents.workflow.definition.tool_calls import maker_of

__all__ = ["Expansion", "calls_by_maker", "with_calls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """The steps that a run has, and what has added some of them; without any, those of the definition as it was built.

    Attributes:
        steps: name -> step, in definition order.
        compensate_in: an explicit order of undoing.
        graphs: the order of steps for each pass, oldest first; results are merged by it, as if items were not there.
        sizes: map -> how many items of it are among the steps.
        rollbacks: the save-points that the run has gone back to, oldest first.
        superseded: steps of passes that were undone: nothing waits for them any more.
        origins: step of a later pass -> its name in the first.
    """

    steps: Mapping[str, StepDefinition]
    compensate_in: tuple[str, ...] | None
    graphs: tuple[Graph, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    rollbacks: tuple[str, ...] = ()
    superseded: frozenset[str] = frozenset()
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        """The order of the steps that count."""
        return self.graphs[-1]

    def with_items(self, sizes: Mapping[str, int]) -> Expansion:
        """The same with the items of maps, as far as their numbers are known.

        Args:
            sizes: map -> how many items it has.
        """
        items = {name: [item_name(name, index) for index in range(sizes.get(name, 0))] for name in self.steps}
        steps: dict[str, StepDefinition] = {}
        for name, step in self.steps.items():
            steps |= _map_with_items(step, items[name])
        return replace(
            self,
            steps=steps,
            compensate_in=_undone_with(self.compensate_in, items),
            sizes=MappingProxyType(dict(sizes)),
            superseded=self.superseded.union(*(items[name] for name in self.superseded)),
        )

    def with_pass(self, savepoint: str) -> Expansion:
        """The same with all that stands behind a save-point once more; the first pass has no number."""
        rollbacks = (*self.rollbacks, savepoint)
        undone = self.graph.descendants(savepoint)
        again = {name: f"{self.origins.get(name, name)}#{len(rollbacks) + 1}" for name in undone}
        steps: dict[str, StepDefinition] = {}
        for name, step in self.steps.items():
            steps[name] = step
            if name in again:
                steps[again[name]] = _renamed(step, again)
        superseded = self.superseded | undone
        graph = Graph(self.graph.workflow, {name: step.after for name, step in steps.items() if name not in superseded})
        return replace(
            self,
            steps=steps,
            compensate_in=_undone_with(self.compensate_in, {name: [new] for name, new in again.items()}),
            graphs=(*self.graphs, graph),
            rollbacks=rollbacks,
            superseded=superseded,
            origins=MappingProxyType(
                {**self.origins, **{new: self.origins.get(old, old) for old, new in again.items()}}
            ),
        )


def calls_by_maker(called: Mapping[str, tuple[str, int]]) -> dict[str, tuple[str, ...]]:
    """Step -> the calls that it has made, oldest first.

    Args:
        called: call -> its compensation, and the how manieth of its step it is.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(called, key=lambda name: called[name][1]):
        found.setdefault(maker_of(name), []).append(name)
    return {maker: tuple(names) for maker, names in found.items()}


def with_calls(
    steps: Mapping[str, StepDefinition], called: Mapping[str, tuple[str, int]], makers: Mapping[str, Sequence[str]]
) -> dict[str, StepDefinition]:
    """Steps with the calls of tools behind the steps that have made them.

    Args:
        steps: name -> step.
        called: call -> its compensation, and the how manieth of its step it is.
        makers: the same, as `calls_by_maker` has it.
    """
    found: dict[str, StepDefinition] = {}
    for name, step in steps.items():
        found[name] = step
        for call in makers.get(name, ()):
            found[call] = StepDefinition(
                name=call,
                kind=StepKind.CALL,
                compensation=called[call][0],
                undo_retry=step.undo_retry,
                compensate_on_failure=step.compensate_on_failure,
            )
    return found


def _map_with_items(step: StepDefinition, items: Sequence[str]) -> dict[str, StepDefinition]:
    if step.item is None or not items:
        return {step.name: step}
    row = step.max_concurrency or len(items)
    # What its ``inputs`` take from the context is taken once, for all items.
    item = replace(step.item, inputs=None, block=step.block, cancel_siblings=step.cancel_siblings)
    made = {
        name: replace(item, name=name, after=step.after if index < row else (items[index - row],))
        for index, name in enumerate(items)
    }
    return {**made, step.name: replace(step, after=tuple(items))}


def _undone_with(order: tuple[str, ...] | None, added: Mapping[str, Sequence[str]]) -> tuple[str, ...] | None:
    """An order of undoing in which what was added to a step is undone before it, newest first."""
    if order is None:
        return None
    return tuple(each for name in order for each in (*reversed(added.get(name, ())), name))


def _renamed(step: StepDefinition, names: Mapping[str, str]) -> StepDefinition:
    branches = {label: tuple(names.get(name, name) for name in steps) for label, steps in step.branches.items()}
    after = tuple(names.get(name, name) for name in step.after)
    return replace(step, name=names[step.name], after=after, branches=branches)
