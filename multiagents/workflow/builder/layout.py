"""Lay a workflow out: which steps there are, in definition order, and what each of them follows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from multiagents.exceptions import DefinitionError, DuplicateStepError, UnknownStepError
from multiagents.workflow.builder.elements import (
    Choice,
    Element,
    Loop,
    Node,
    Parallel,
    Step,
)
from multiagents.workflow.builder.loops import AGAIN, DONE, RoundCheck, holds_steps, names_in, renamed
from multiagents.workflow.builder.option_checks import check_element
from multiagents.workflow.builder.workers import is_listing, taken_for_worker, worker_name
from multiagents.workflow.definition import BlockDefinition


class Itself(str):
    """The name of a choice, where the choice itself is meant, not the branches that follow it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """What becomes a step and where it stands: what it waits for unless it says so itself, and its block."""

    element: Step | Node
    follows: str | Sequence[str]
    block: str | None = None
    cancel_siblings: bool = False
    #: of a choice: label -> the steps of that branch
    branches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Layout:
    """Lay elements out: steps in definition order, each with what it follows. Each element is checked at its turn.

    Args:
        workflow: the workflow's name, for errors.
        elements: what was written.

    Raises:
        DefinitionError: when an element has options that cannot be used, or a name that another one has.
    """

    def __init__(self, workflow: str, elements: Iterable[Element]) -> None:
        self.workflow = workflow
        self.placed: dict[str, Placed] = {}
        self.blocks: dict[str, BlockDefinition] = {}
        #: a block, a choice or a loop -> what whoever follows it waits for
        self._ends: dict[str, tuple[str, ...]] = {}
        #: what the names of the round being expanded end in, such as ``#2``
        self._round = ""
        self._sequence(elements, ())
        if not self.placed:
            raise DefinitionError(f'workflow "{workflow}" has no steps; add one with add_step("name", "worker")')
        for name in self.blocks:
            if name in self.placed:
                raise DefinitionError(
                    f'workflow "{workflow}" has a step and a parallel block named "{name}"; `after` could mean either: '
                    f"rename one of them"
                )

    def waited_for(self, name: str, step: str) -> Iterator[str]:
        """The steps that are meant by a name in the ``after`` of a step.

        Raises:
            UnknownStepError: when there is neither a step nor a block of this name.
        """
        if isinstance(name, Itself):
            yield str(name)
        elif name in self._ends:
            for end in self._ends[name]:
                yield from self.waited_for(end, step)
        elif name in self.placed:
            yield name
        else:
            raise UnknownStepError(self.workflow, name, (*self.placed, *self.blocks), named_by=step)

    def _sequence(self, elements: Iterable[Element], follows: Any, block: Parallel | None = None) -> Any:
        """Lay out what runs one after the other; returns what comes next follows."""
        for element in elements:
            check_element(self.workflow, element, self._written_name(element))
            before = follows if element.after is None else element.after
            match element:
                case Parallel():
                    self._parallel(element, before)
                case Choice():
                    self._choice(element, before, block)
                case Loop():
                    self._loop(element, before, block)
                case Step() if element.reread is not None:
                    self._reread(element, before, block)
                case _:
                    self._place(element, before, block)
            follows = element.name
        return follows

    def _place(self, element: Step | Node, follows: Any, block: Parallel | None) -> None:
        if element.name in self.placed:
            raise DuplicateStepError(self.workflow, element.name)
        cancel = block is not None and block.on_failure == "cancel"
        self.placed[element.name] = Placed(element, follows, block.name if block else None, cancel)

    def _reread(self, pivot: Step, follows: Any, block: Parallel | None) -> None:
        """A pivot and, before it, the step that reads again what the way there rests on."""
        reread = Step(
            f"{self._written_name(pivot)}.reread{self._round}",
            pivot.reread,
            after=pivot.after,
            when=pivot.when,
            inputs=pivot.inputs,
            no_compensation="it only reads",
            summary=f"reads again before {pivot.name}",
        )
        self._sequence([reread, replace(pivot, after=None, reread=None)], follows, block)

    def _branch(self, branch: list[Any], follows: Any, block: Parallel | None) -> tuple[tuple[str, ...], Any]:
        known = len(self.placed)
        end = self._sequence(branch, follows, block)
        return tuple(self.placed)[known:], end

    def _parallel(self, element: Parallel, follows: Any) -> None:
        if element.name in self.blocks:
            raise DefinitionError(
                f'workflow "{self.workflow}" has two parallel blocks named "{element.name}"; rename one of them'
            )
        branches, ends = [], []
        for number, given in enumerate(element.branches, 1):
            written = self._elements_of(f'block "{element.name}": branch {number}', given)
            steps, end = self._branch(written, follows, element)
            branches.append(steps)
            ends.append(end)
        self.blocks[element.name] = BlockDefinition(
            name=element.name, branches=tuple(branches), on_failure=element.on_failure
        )
        self._ends[element.name] = tuple(ends)

    def _choice(self, element: Choice, follows: Any, block: Parallel | None) -> None:
        self._place(element, follows, block)
        branches: dict[str, tuple[str, ...]] = {}
        ends: list[str] = []
        for label, given in element.branches.items():
            nothing = is_listing(given) and not list(given)
            written = [] if nothing else self._elements_of(f'choice "{element.name}": branch "{label}"', given)
            branches[label], end = self._branch(written, Itself(element.name), block)
            ends.append(end)
        place = self.placed[element.name]
        self.placed[element.name] = replace(place, branches=branches)
        self._ends[element.name] = tuple(dict.fromkeys(ends))

    def _loop(self, element: Loop, follows: Any, block: Parallel | None) -> None:
        """Lay a loop out as its rounds. Behind each stands a choice: whether all further rounds are skipped."""
        name, outer = self._written_name(element), self._round
        if holds_steps(element):
            written = self._elements_of(f'loop "{name}"', element.steps_or_worker)
        else:
            written = self._elements_of(f'loop "{name}"', Step(name + outer, element.steps_or_worker))
        inside = set(names_in(written))
        last, fails = element.max_iterations, element.on_exhausted == "fail"
        checks: list[str] = []
        for number in range(1, last + 1):
            self._round = f"{outer}#{number}"
            steps = [renamed(each, f"#{number}", inside) for each in written]
            _, follows = self._branch(steps, follows, block)
            if number < last or fails:
                checks.append(f"{name}.until{self._round}")
                chooser = RoundCheck(element.until, last if number == last else None)
                self._sequence([Choice(checks[-1], chooser, {AGAIN: [], DONE: []})], follows, block)
                follows = Itself(checks[-1])
        self._round = outer
        self._skip_from(checks)
        self._ends[element.name] = tuple(dict.fromkeys([*map(Itself, checks), follows]))

    def _skip_from(self, checks: list[str]) -> None:
        """What each check of a loop skips once the loop is done: all that was expanded behind it."""
        names = list(self.placed)
        at = {name: number for number, name in enumerate(names)}
        for name in checks:
            further = tuple(names[at[name] + 1 :])
            self.placed[name] = replace(self.placed[name], branches={AGAIN: further, DONE: ()})

    def _written_name(self, element: Element) -> Any:
        """What an element was called, without the end that its round has added."""
        name: Any = element.name
        return name.removesuffix(self._round) if isinstance(name, str) else name

    def _elements_of(self, where: str, branch: Any) -> list[Any]:
        if isinstance(branch, Element):
            return [branch]
        if is_listing(branch):
            steps = [step for part in branch for step in self._elements_of(where, part)]
            if steps:
                return steps
        worker = worker_name(branch)
        if worker is None:
            found, instead = taken_for_worker(branch) or (f"{branch!r}", "")
            raise DefinitionError(
                f'workflow "{self.workflow}" {where} holds {found}; expected a Step, a worker, or a list of at '
                f"least one of these{instead and f': {instead}'}"
            )
        return [Step(worker)]
