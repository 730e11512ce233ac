"""Lay a workflow out: which steps there are, in definition order, and what each of them follows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from multiagents.exceptions import DefinitionError, DuplicateStepError, UnknownStepError
from multiagents.workflow import validation as check
from multiagents.workflow.elements import Choice, Element, Node, Parallel, Step
from multiagents.workflow.step import BlockDefinition


class Itself(str):
    """The name of a choice, where the choice itself is meant, not the branches that follow it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """A step and where it stands: what it waits for unless it says so itself, and its block."""

    step: Step | Node
    follows: str | Sequence[str]
    block: str | None = None
    cancel_siblings: bool = False
    #: of a choice: label -> the steps of that branch
    branches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Layout:
    """Lay elements out: steps in definition order, each with what it follows.

    Args:
        workflow: the workflow's name, for errors.
    """

    def __init__(self, workflow: str) -> None:
        self.workflow = workflow
        self.placed: dict[str, Placed] = {}
        self.blocks: dict[str, BlockDefinition] = {}
        #: a block or a choice -> what whoever follows it waits for
        self.ends: dict[str, tuple[str, ...]] = {}

    def sequence(self, elements: Iterable[Any], follows: Any, block: Parallel | None = None) -> Any:
        """Lay out what runs one after the other; returns what comes next follows."""
        for element in elements:
            before = follows if element.after is None else element.after
            if isinstance(element, Parallel):
                self._parallel(element, before)
            elif isinstance(element, Choice):
                self._choice(element, before, block)
            else:
                self._place(element, before, block)
            follows = element.name
        return follows

    def _place(self, step: Step | Node, follows: Any, block: Parallel | None, **more: Any) -> None:
        check.name_of_step(self.workflow, step.name)
        if step.name in self.placed:
            raise DuplicateStepError(self.workflow, step.name)
        cancel = block is not None and block.on_failure == "cancel"
        self.placed[step.name] = Placed(step, follows, block.name if block else None, cancel, **more)

    def _branch(self, branch: list[Any], follows: Any, block: Parallel | None) -> tuple[tuple[str, ...], Any]:
        known = len(self.placed)
        end = self.sequence(branch, follows, block)
        return tuple(self.placed)[known:], end

    def _parallel(self, element: Parallel, follows: Any) -> None:
        check.name_of_step(self.workflow, element.name, kind="block")
        check.on_failure(self.workflow, element.name, element.on_failure)
        check.branches(self.workflow, element.name, element.branches)
        if element.name in self.blocks:
            raise DefinitionError(
                f'workflow "{self.workflow}" has two parallel blocks named "{element.name}"; rename one of them'
            )
        branches, ends = [], []
        for number, given in enumerate(element.branches, 1):
            written = self._written(f'block "{element.name}": branch {number}', given)
            steps, end = self._branch(written, follows, element)
            branches.append(steps)
            ends.append(end)
        self.blocks[element.name] = BlockDefinition(
            name=element.name, branches=tuple(branches), on_failure=element.on_failure
        )
        self.ends[element.name] = tuple(ends)

    def _choice(self, element: Choice, follows: Any, block: Parallel | None) -> None:
        check.choice(self.workflow, element)
        self._place(element, follows, block)
        branches: dict[str, tuple[str, ...]] = {}
        ends: list[str] = []
        for label, given in element.branches.items():
            nothing = check.is_listing(given) and not list(given)
            written = [] if nothing else self._written(f'choice "{element.name}": branch "{label}"', given)
            branches[label], end = self._branch(written, Itself(element.name), block)
            ends.append(end)
        place = self.placed[element.name]
        self.placed[element.name] = replace(place, branches=branches)
        self.ends[element.name] = tuple(dict.fromkeys(ends))

    def _written(self, where: str, branch: Any) -> list[Any]:
        if isinstance(branch, Element):
            return [branch]
        if check.is_listing(branch):
            steps = [step for part in branch for step in self._written(where, part)]
            if steps:
                return steps
        worker = check.worker_name(branch)
        if worker is None:
            raise DefinitionError(
                f'workflow "{self.workflow}" {where} holds {branch!r}; expected a Step, a worker, or a list of at '
                f"least one of these"
            )
        return [Step(worker)]

    def waited_for(self, name: str, step: str) -> Iterator[str]:
        """The steps that are meant by a name in an ``after``.

        Raises:
            UnknownStepError: when there is neither a step nor a block of this name.
        """
        if isinstance(name, Itself):
            yield str(name)
        elif name in self.ends:
            for end in self.ends[name]:
                yield from self.waited_for(end, step)
        elif name in self.placed:
            yield name
        else:
            raise UnknownStepError(self.workflow, name, (*self.placed, *self.blocks), named_by=step)
