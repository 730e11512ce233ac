"""A random workflow and what people do while it runs: made from a seed, and written as code that makes it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from random import Random
from typing import Any, ClassVar, Self
from uuid import uuid4

from multiagents import WorkflowBuilder
from multiagents.workflow.definition import Definition
from tests.models.random_workflows.as_code import ShortRepr, written
from tests.models.random_workflows.elements import Decision, Maker, Pass, Scope, Work, elements

#: What is done, here and there, while an attempt runs.
VERBS = ("cancel", "pause", "resume")


@dataclass(frozen=True, repr=False)
class Case(ShortRepr):
    """A workflow, and what happens while it runs.

    Attributes:
        tree: what is written.
        verbs: what people do while the n-th attempt of all runs, undos included.
        doubled: every message comes twice, and so does every result and error.
        again: when it is over, another run of the workflow gets its id, which was given free so: ``replaced`` or
            ``deleted``; and whatever was said of the first is said again.
    """

    tree: list[Any]
    verbs: Mapping[int, list[str]] = field(default_factory=dict)
    doubled: bool = False
    again: str = ""
    #: how many in a hundred attempts have verbs
    BUSY: ClassVar[int] = 4

    @classmethod
    def of(cls, chance: Random | int, *, busy: int = BUSY, simple: bool = False) -> Self:
        """The case that a seed names.

        Args:
            chance: a seed, or where chance comes from.
            busy: how many in a hundred attempts have verbs.
            simple: nobody is ever asked about anything, and all steps are the run's own.
        """
        maker = Maker(Random(chance) if isinstance(chance, int) else chance, simple=simple)
        tree = maker.sequence(2)
        if not simple and maker.flip(3):
            tree.append(Work.made(maker, 0, pivot=True))
            maker.behind = True
            tree += maker.sequence(2, 0)
        verbs = {}
        for number in range(1, 41):
            if maker.chance.randrange(100) < busy:
                verbs[number] = [maker.chance.choice(VERBS) for _ in range(maker.chance.randint(1, 3))]
        again = maker.chance.choice(["replaced", "deleted"]) if maker.flip(6) else ""
        return cls(tree, verbs, maker.flip(6), again)

    def definition(self) -> Definition:
        """Build it, under a name of its own."""
        return WorkflowBuilder(f"random-{uuid4().hex[:8]}").add_parallel("all", [elements(self.tree)]).build()

    def works(self) -> dict[str, Work]:
        """All steps of workers in it, by name, whether or not they run."""
        return {each.name: each for each in flat(self.tree) if isinstance(each, Work)}

    def asked(self) -> dict[str, Any]:
        """All that a person may be asked about or has to tell something, by name."""
        kinds = (Work, Pass, Decision, Scope)
        return {each.name: each for each in flat(self.tree) if isinstance(each, kinds)}

    def __str__(self) -> str:
        return written(self)

    def code(self) -> str:
        """The definition as a user would write it."""
        return f'WorkflowBuilder("random").add_parallel("all", {written([elements(self.tree)])})'


def flat(tree: Any) -> list[Any]:
    """All elements of a tree, at any depth."""
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list):
        return [found for each in tree for found in flat(each)]
    held = [getattr(tree, each.name) for each in fields(tree)]
    return [tree, *(found for value in held if isinstance(value, list | dict) for found in flat(value))]
