"""The shape of a workflow: which step waits for which, and what follows from that.

Three words:

- a step's *ancestors* are all steps that must be done before it may start;
- a *trunk* step is one that nothing can run beside: every other step is its ancestor or its descendant;
- the *parts* of a step are those ancestors that no trunk step before it has covered.

Ancestors and parts come in the topological order. Results are merged in it, so that a later step's result wins over
that of a step it waited for, in whatever order the two were defined; between independent steps the order of definition
decides wherever it can.

Trunk steps are found in time linear in steps and edges, by one observation. In any topological order, all steps before
position ``i`` lead to the step at ``i`` exactly when each of them has a successor at or before ``i``: follow the
nearest successor again and again, and the walk must land on ``i``. The mirrored sentence holds for the steps after
``i``. So two sweeps find the trunk steps, and whatever stands before a trunk step is its ancestor. Ancestors are found
when they are asked for, by walking back to the latest trunk step; nothing is kept that grows faster than the steps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush

from multiagents.exceptions import StepCycleError, UnknownStepError

#: Parts of a step that are longer are not kept: for steps in long branches side by side, all of them would take memory
#: that grows with the square of the branch. Finding them anew costs no more than reading the results that they name.
_KEPT = 256


class Graph:
    """Answer questions about the order of steps. It never changes once it is built.

    Args:
        workflow: the workflow's name, for messages.
        after: each step and those it waits for directly, in definition order.

    Raises:
        UnknownStepError: when a step waits for one that is not there.
        StepCycleError: when steps wait for each other in a circle.

    >>> graph = Graph("order", {"reserve": [], "fraud": ["reserve"], "score": ["reserve"], "ship": ["fraud", "score"]})
    >>> graph.order
    ('reserve', 'fraud', 'score', 'ship')
    >>> graph.is_trunk("reserve"), graph.is_trunk("fraud")
    (True, False)
    >>> graph.parts("ship")
    ('fraud', 'score')
    """

    __slots__ = (
        "_index",
        "_names",
        "_parts",
        "_position",
        "_trunks",
        "after",
        "entries",
        "exits",
        "order",
        "successors",
        "trunks",
        "workflow",
    )

    def __init__(self, workflow: str, after: Mapping[str, Sequence[str]]) -> None:
        self.workflow = workflow
        self.after: dict[str, tuple[str, ...]] = {step: tuple(before) for step, before in after.items()}
        self._names = tuple(self.after)
        self._index = {step: number for number, step in enumerate(self._names)}
        #: each step and those that wait for it directly, in definition order
        self.successors = self._turned_round()
        #: steps that wait for nothing
        self.entries = tuple(step for step, before in self.after.items() if not before)
        #: steps that nothing waits for
        self.exits = tuple(step for step, behind in self.successors.items() if not behind)
        #: a topological order; of two steps that could come next, the one defined first does
        self.order = self._sorted()
        self._position = {step: place for place, step in enumerate(self.order)}
        self._trunks = self._find_trunks()
        #: the trunk steps, in the only order they can have
        self.trunks = tuple(self.order[place] for place in self._trunks)
        self._parts: dict[str, tuple[str, ...]] = {}

    def is_trunk(self, step: str) -> bool:
        """Whether nothing can run beside this step."""
        place = self._position[step]
        found = bisect_left(self._trunks, place)
        return found < len(self._trunks) and self._trunks[found] == place

    def parts(self, step: str) -> tuple[str, ...]:
        """The ancestors of a step that the latest trunk step before it does not cover, in topological order."""
        known = self._parts.get(step)
        if known is None:
            known = self._uncovered(step)
            if len(known) <= _KEPT:
                self._parts[step] = known
        return known

    def tail_parts(self) -> tuple[str, ...]:
        """The steps that the last trunk step does not cover, in topological order."""
        last = self._trunks[-1] if self._trunks else -1
        return self.order[last + 1 :]

    def ancestors(self, step: str) -> tuple[str, ...]:
        """All steps that must be done before this one, in topological order."""
        return self.order[: self._covered(step)] + self.parts(step)

    def descendants(self, step: str) -> frozenset[str]:
        """All steps that this one must be done before."""
        found: set[str] = set()
        ahead = list(self.successors[step])
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                ahead += self.successors[name]
        return frozenset(found)

    def is_before(self, earlier: str, step: str) -> bool:
        """Whether a step must be done before another may start."""
        return self._position[earlier] < self._covered(step) or earlier in self.parts(step)

    def induced(self, steps: set[str]) -> Graph:
        """The graph of some of the steps and of the edges among them."""
        inside = {step: before for step, before in self.after.items() if step in steps}
        return Graph(self.workflow, {step: [b for b in before if b in steps] for step, before in inside.items()})

    def in_definition_order(self, steps: Sequence[str] | set[str]) -> tuple[str, ...]:
        """The same steps, sorted as they were defined."""
        return tuple(sorted(steps, key=self._index.__getitem__))

    def _turned_round(self) -> dict[str, tuple[str, ...]]:
        successors: dict[str, list[str]] = {step: [] for step in self.after}
        for step, before in self.after.items():
            for predecessor in before:
                if predecessor not in successors:
                    raise UnknownStepError(self.workflow, predecessor, self.after, named_by=step)
                successors[predecessor].append(step)
        return {step: tuple(behind) for step, behind in successors.items()}

    def _sorted(self) -> tuple[str, ...]:
        waiting = {step: len(before) for step, before in self.after.items()}
        ready = [self._index[step] for step in self.entries]
        heapify(ready)
        order = []
        while ready:
            step = self._names[heappop(ready)]
            order.append(step)
            for successor in self.successors[step]:
                waiting[successor] -= 1
                if not waiting[successor]:
                    heappush(ready, self._index[successor])
        if len(order) < len(self._names):
            try:
                TopologicalSorter(self.after).prepare()
            except CycleError as error:
                # The sorter lists a circle as predecessor, successor, …; that is also how the steps would run.
                raise StepCycleError(self.workflow, error.args[1]) from None
        return tuple(order)

    def _find_trunks(self) -> list[int]:
        position, last = self._position, len(self.order)
        # reached[i]: all steps before i lead to i. nearest: the farthest of the nearest successors seen so far.
        reached = []
        nearest = -1
        for place, step in enumerate(self.order):
            reached.append(nearest <= place)
            nearest = max(nearest, min((position[s] for s in self.successors[step]), default=last))
        trunks = []
        latest = last
        for place in range(last - 1, -1, -1):
            if reached[place] and latest >= place:
                trunks.append(place)
            latest = min(latest, max((position[s] for s in self.after[self.order[place]]), default=-1))
        return trunks[::-1]

    def _covered(self, step: str) -> int:
        """How many steps, from the first on, the latest trunk step before this one covers, itself included."""
        found = bisect_left(self._trunks, self._position[step])
        return self._trunks[found - 1] + 1 if found else 0

    def _uncovered(self, step: str) -> tuple[str, ...]:
        covered, position, after = self._covered(step), self._position, self.after
        # Back along the branch, as long as it is a sequence.
        line = [step]
        while len(before := after[line[-1]]) == 1 and position[before[0]] >= covered:
            line += before
        found: set[str] = set()
        ahead = [each for each in before if position[each] >= covered]
        while ahead:
            each = ahead.pop()
            if each not in found:
                found.add(each)
                ahead += [earlier for earlier in after[each] if position[earlier] >= covered]
        return (*sorted(found, key=position.__getitem__), *line[:0:-1])
