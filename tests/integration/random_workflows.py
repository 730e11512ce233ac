"""Make up any workflow that can be written, and say what is to be seen of a run of it.

A `Case` is a tree of what is written, and what people do while it runs. It is made from a `random.Random`, so a seed
names it; its repr is Python that makes it again. Each kind of element is one class, which knows all there is to know of
it: how it is made up, what it is for the builder, and how the model walks it. A new kind is a new class in `KINDS`.

The model knows only what was written: it has never seen a definition, a state or a join. Walking the tree says which
steps may run, what must have ended before each, and whether it turns the run back.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from random import Random
from typing import Any, ClassVar, Self
from uuid import uuid4

from multiagents import Choice, Loop, Parallel, RetryPolicy, Sleep, Step, Wait, WorkflowBuilder
from multiagents.workflow.definition import Definition

#: Attempts that a step has, and that its undo has.
MAX_ATTEMPTS = 3
MAX_UNDOS = 2
#: The workers; `random_runs` has them.
DO, UNDO = "random.do", "random.undo"
UNDO_RETRY = RetryPolicy(max_attempts=MAX_UNDOS, initial_interval=60)
#: What is done, here and there, while an attempt runs.
VERBS = ("cancel", "pause", "resume")


class Maker:
    """Makes up elements; ``behind`` says whether the pivot comes before what is made next."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.behind = False
        self._numbers = itertools.count()

    def name(self, kind: str) -> str:
        return f"{kind}{next(self._numbers)}"

    def flip(self, one_in: int = 2) -> bool:
        return self.chance.randrange(one_in) == 0

    def sequence(self, depth: int, at_least: int = 1) -> list[Any]:
        return [self.element(depth) for _ in range(self.chance.randint(at_least, 3))]

    def element(self, depth: int) -> Any:
        kinds = [kind for kind, weight, nests in KINDS if depth or not nests for _ in range(weight)]
        return self.chance.choice(kinds).made(self, depth)


class Model:
    """What is to be seen of a run of a tree if nobody cancels it."""

    def __init__(self, tree: list[Any]) -> None:
        #: every step of a worker that may run -> all that must have ended before it
        self.before: dict[str, set[str]] = {}
        self.written: dict[str, Work] = {}
        #: something is there that turns the run back
        self.fails = False
        #: a person turns it back, who is asked about a step that nobody knows of
        self.given_up = False
        #: the pivot has succeeded
        self.past = False
        self.walk(tree, set(), "")

    def walk(self, elements: list[Any], before: set[str], round_: str) -> tuple[set[str], bool]:
        """What has ended once these have, and whether they go on to what follows."""
        for each in elements:
            before, goes_on = each.walked(self, before, round_)
            if not goes_on:
                return before, False
        return before, True


def written(value: Any, room: int = 100) -> str:
    """A value as code, without what is as usual; what does not fit into a line is parted."""
    match value:
        case list():
            parts, ends = [written(each, room - 4) for each in value], "[]"
        case dict():
            parts, ends = [f"{key!r}: {written(each, room - 4)}" for key, each in value.items()], "{}"
        case _ if is_dataclass(value):
            given = [(each, getattr(value, each.name)) for each in fields(value)]
            told = [(each, of_it) for n, (each, of_it) in enumerate(given) if n == 0 or of_it != _usual(each)]
            parts = [f"{each.name}={written(of_it, room - 4)}" for each, of_it in told]
            parts[0] = written(told[0][1], room - 4)
            ends = f"{type(value).__name__}()"
        case _:
            return repr(value)
    line = f"{ends[:-1]}{', '.join(parts)}{ends[-1]}"
    if len(line) <= room and "\n" not in line:
        return line
    inner = "".join(f"\n{part},".replace("\n", "\n    ") for part in parts)
    return f"{ends[:-1]}{inner}\n{ends[-1]}"


def _usual(each: Field[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


class _Plain:
    """A repr that has only what is not as usual."""

    def __repr__(self) -> str:
        return written(self, room=1_000_000)


@dataclass(frozen=True, repr=False)
class Work(_Plain):
    """A step of a worker."""

    name: str
    #: attempts that fail first
    failures: int = 0
    #: what the attempt after these comes to: ``result``, ``terminal`` or ``unknown``
    end: str = "result"
    #: it has a compensation; so many attempts of which fail first
    undone: bool = False
    undo_failures: int = 0
    #: an unknown outcome waits for a person
    parks: bool = False
    pivot: bool = False
    #: what a person says of it who is asked: ``retry`` (it succeeds), ``skip``, ``supply``, or ``cancel`` the run
    answer: str = "retry"
    #: of an undo that failed for good: ``retry``, ``skip``, ``supply`` or, if nobody says anything, the empty string
    undo_answer: str = ""

    @classmethod
    def made(cls, maker: Maker, _depth: int, *, pivot: bool = False) -> Self:
        chance = maker.chance
        how = chance.choice(
            [*["fine"] * 24, *["retried"] * 4, "exhausted", "exhausted", "terminal", "unknown", "parked"]
        )
        undone = maker.flip() and not maker.behind and not pivot
        undo_failures = chance.choice([0, 0, 0, 0, 1, MAX_UNDOS]) if undone else 0
        return cls(
            maker.name("pivot" if pivot else "step"),
            failures={"retried": chance.randint(1, MAX_ATTEMPTS - 1), "exhausted": MAX_ATTEMPTS}.get(how, 0),
            end={"terminal": "terminal", "unknown": "unknown", "parked": "unknown"}.get(how, "result"),
            undone=undone,
            undo_failures=undo_failures,
            parks=how == "parked",
            pivot=pivot,
            answer=chance.choice(["retry", "skip", "supply", "cancel"]) if how not in ("fine", "retried") else "retry",
            undo_answer=chance.choice(["retry", "skip", "supply", ""]) if undo_failures == MAX_UNDOS else "",
        )

    def element(self) -> Any:
        return Step(
            self.name,
            DO,
            compensation=UNDO if self.undone else None,
            undo_retry=UNDO_RETRY if self.undone else None,
            no_compensation=None if self.undone or self.pivot else "nothing is left of it",
            on_unknown="park" if self.parks else "compensate",
            pivot=self.pivot,
        )

    def walked(self, model: Model, before: set[str], round_: str) -> tuple[set[str], bool]:
        name = self.name + round_
        model.before[name], model.written[name] = set(before), self
        after = before | {name}
        definite = self.end == "terminal" or self.failures >= MAX_ATTEMPTS
        asks = (definite and model.past) or (
            self.end == "unknown" and not definite and (self.parks or self.pivot or model.past)
        )
        if asks and not (self.answer == "cancel" and not model.past):
            # Behind the pivot a cancel changes nothing, and the step is skipped then.
            model.past |= self.pivot and self.answer != "skip"
            return after, True
        if asks:
            model.given_up = True
            return after, False
        if definite or self.end == "unknown":
            model.fails = True
            return after, False
        model.past |= self.pivot
        return after, True


@dataclass(frozen=True, repr=False)
class Pass(_Plain):
    """A sleep or a wait: nobody works."""

    name: str
    waits: bool = False

    @classmethod
    def made(cls, maker: Maker, _depth: int) -> Self:
        return cls(maker.name("pass"), maker.flip())

    def element(self) -> Any:
        return Wait(self.name) if self.waits else Sleep(self.name, 0.001)

    def walked(self, _model: Model, before: set[str], _round: str) -> tuple[set[str], bool]:
        return before, True


@dataclass(frozen=True, repr=False)
class Fork(_Plain):
    name: str
    branches: list[list[Any]]

    @classmethod
    def made(cls, maker: Maker, depth: int) -> Self:
        return cls(maker.name("fork"), [maker.sequence(depth - 1) for _ in range(maker.chance.randint(1, 3))])

    def element(self) -> Any:
        return Parallel(self.name, [elements(branch) for branch in self.branches])

    def walked(self, model: Model, before: set[str], round_: str) -> tuple[set[str], bool]:
        ends = [model.walk(branch, before, round_) for branch in self.branches]
        return set().union(*(ended for ended, _ in ends)), all(goes_on for _, goes_on in ends)


@dataclass(frozen=True, repr=False)
class Pick(_Plain):
    """A choice, and what is chosen."""

    name: str
    branches: dict[str, list[Any]]
    picked: str

    @classmethod
    def made(cls, maker: Maker, depth: int) -> Self:
        name = maker.name("pick")
        branches = {label: maker.sequence(depth - 1, 0) for label in "abc"[: maker.chance.randint(1, 3)]}
        return cls(name, branches, maker.chance.choice(sorted(branches)))

    def element(self) -> Any:
        branches = {label: elements(branch) for label, branch in self.branches.items()}
        return Choice(self.name, Always(self.picked), branches)

    def walked(self, model: Model, before: set[str], round_: str) -> tuple[set[str], bool]:
        return model.walk(self.branches[self.picked], before, round_)


@dataclass(frozen=True, repr=False)
class Rounds(_Plain):
    """A loop that is done after so many rounds; more than ``most`` is never."""

    name: str
    body: list[Any]
    done_after: int
    most: int
    must_end: bool = False

    @classmethod
    def made(cls, maker: Maker, depth: int) -> Self:
        most = maker.chance.randint(1, 3)
        return cls(
            maker.name("rounds"), maker.sequence(depth - 1), maker.chance.randint(1, most + 1), most, maker.flip()
        )

    def element(self) -> Any:
        counter = f"count.{self.name}"
        return Loop(
            self.name,
            [Step(counter, DO, no_compensation="it counts"), *elements(self.body)],
            Reached(counter, self.done_after),
            self.most,
            "fail" if self.must_end else "continue",
        )

    def walked(self, model: Model, before: set[str], round_: str) -> tuple[set[str], bool]:
        for number in range(1, min(self.done_after, self.most) + 1):
            before, goes_on = model.walk(self.body, before, f"{round_}#{number}")
            if not goes_on:
                return before, False
        # Behind the pivot a person is asked, and lets it go on.
        exhausted = self.must_end and self.done_after > self.most and not model.past
        model.fails |= exhausted
        return before, not exhausted


#: The kinds: how often each comes in a lot, and whether it holds other elements.
KINDS: list[tuple[Any, int, bool]] = [
    (Work, 4, False),
    (Pass, 1, False),
    (Fork, 2, True),
    (Pick, 2, True),
    (Rounds, 2, True),
]


@dataclass(frozen=True)
class Always:
    """A chooser with one answer."""

    label: str

    def __call__(self, _context: dict[str, Any]) -> str:
        return self.label


@dataclass(frozen=True)
class Reached:
    """Whether a loop's counter has reached a number."""

    counter: str
    rounds: int

    def __call__(self, context: dict[str, Any]) -> bool:
        return bool(context[self.counter] >= self.rounds)


def elements(tree: list[Any]) -> list[Any]:
    """A tree, for the builder."""
    return [each.element() for each in tree]


@dataclass(frozen=True, repr=False)
class Case(_Plain):
    """A workflow, and what happens while it runs.

    Attributes:
        tree: what is written.
        verbs: what people do while the n-th attempt of all runs, undos included.
        doubled: every message comes twice, and so does every result and error.
    """

    tree: list[Any]
    verbs: Mapping[int, list[str]] = field(default_factory=dict)
    doubled: bool = False
    #: how many in a hundred attempts have verbs
    BUSY: ClassVar[int] = 4

    @classmethod
    def of(cls, chance: Random | int, *, busy: int = BUSY) -> Self:
        """The case that a seed names.

        Args:
            chance: a seed, or where chance comes from.
            busy: how many in a hundred attempts have verbs.
        """
        maker = Maker(Random(chance) if isinstance(chance, int) else chance)
        tree = maker.sequence(2)
        if maker.flip(3):
            tree.append(Work.made(maker, 0, pivot=True))
            maker.behind = True
            tree += maker.sequence(2, 0)
        verbs = {}
        for number in range(1, 41):
            if maker.chance.randrange(100) < busy:
                verbs[number] = [maker.chance.choice(VERBS) for _ in range(maker.chance.randint(1, 3))]
        return cls(tree, verbs, maker.flip(6))

    def definition(self) -> Definition:
        """Build it, under a name of its own."""
        return WorkflowBuilder(f"random-{uuid4().hex[:8]}").add_parallel("all", [elements(self.tree)]).build()

    def works(self) -> dict[str, Work]:
        """All steps of workers in it, by name, whether or not they run."""
        return {each.name: each for each in _flat(self.tree) if isinstance(each, Work)}

    def __str__(self) -> str:
        return written(self)

    def code(self) -> str:
        """The definition as a user would write it."""
        return f'WorkflowBuilder("random").add_parallel("all", {written([elements(self.tree)])})'


def _flat(tree: Any) -> list[Any]:
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, list):
        return [found for each in tree for found in _flat(each)]
    held = [getattr(tree, each.name) for each in fields(tree)]
    return [tree, *(found for value in held if isinstance(value, list | dict) for found in _flat(value))]
