"""Make up any workflow that can be written, and say what is to be seen of a run of it.

Each kind of element is one class, which knows all there is to know of it: how it is made up, what it is for the
builder, and how the model walks it. A new kind is a new class in `KINDS`.

The model knows only what was written: it has never seen a definition, a state or a join. Walking the tree says which
steps may run, what must have ended before each, and whether it turns the run back.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Self
from uuid import uuid4

from multiagents import (
    Approval,
    Child,
    Choice,
    Loop,
    Map,
    Parallel,
    RetryPolicy,
    Sleep,
    Step,
    Wait,
    WorkflowBuilder,
)
from tests.models.random_workflows.as_code import ShortRepr
from tests.models.random_workflows.user_code import Always, Listed, Reached

#: Attempts that a step has, and that its undo has.
MAX_ATTEMPTS = 3
MAX_UNDOS = 2
#: The workers; `stage` has them.
DO, UNDO = "random.do", "random.undo"
UNDO_RETRY = RetryPolicy(max_attempts=MAX_UNDOS, initial_interval=60)


class Maker:
    """Makes up elements.

    Attributes:
        behind: whether the pivot comes before what is made next.
        inside: whether it is made for a child.

    Args:
        chance: where chance comes from.
        simple: nobody is ever asked about anything, and all steps are the run's own.
    """

    def __init__(self, chance: Random, *, simple: bool = False) -> None:
        self.chance = chance
        self.simple = simple
        self.behind = False
        self.inside = False
        self._numbers = itertools.count()

    def name(self, kind: str) -> str:
        return f"{kind}{next(self._numbers)}"

    def flip(self, one_in: int = 2) -> bool:
        return self.chance.randrange(one_in) == 0

    def sequence(self, depth: int, at_least: int = 1) -> list[Any]:
        return [self.element(depth) for _ in range(self.chance.randint(at_least, 3))]

    def element(self, depth: int) -> Any:
        kinds = [kind for kind, weight, nests in KINDS if depth or not nests for _ in range(weight)]
        if self.simple:
            kinds = [kind for kind in kinds if kind not in (Many, Scope, Decision)]
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
        #: there is a child that succeeds
        self.units = False
        #: steps of children
        self.inside: set[str] = set()
        #: those of children that fail: what they did is undone at once, whatever becomes of the run
        self.undone_inside: set[str] = set()
        self.walk(tree, set(), "")

    def walk(self, elements: list[Any], before: set[str], round_: str) -> tuple[set[str], bool]:
        """What has ended once these have, and whether they go on to what follows."""
        for each in elements:
            before, goes_on = each.walked(self, before, round_)
            if not goes_on:
                return before, False
        return before, True


@dataclass(frozen=True, repr=False)
class Work(ShortRepr):
    """A step of a worker."""

    name: str
    #: attempts that fail first
    failures: int = 0
    #: what the attempt after these comes to: ``result``, ``terminal``, ``attention`` (the worker asks for a person) or
    #: ``unknown``
    end: str = "result"
    #: it has a compensation; so many attempts of which fail first
    undone: bool = False
    undo_failures: int = 0
    #: an unknown outcome waits for a person
    parks: bool = False
    pivot: bool = False
    #: a failure for good waits for a person
    holds: bool = False
    #: what a person says of it who is asked: ``retry`` (it succeeds), ``skip``, ``supply``, or ``cancel`` the run
    answer: str = "retry"
    #: of an undo that failed for good: ``retry``, ``skip``, ``supply`` or, if nobody says anything, the empty string
    undo_answer: str = ""

    @classmethod
    def made(cls, maker: Maker, _depth: int, *, pivot: bool = False) -> Self:
        chance = maker.chance
        unsure = [] if maker.simple else ["unknown", "parked", "held", "held", "attention"]
        how = chance.choice([*["fine"] * 24, *["retried"] * 4, "exhausted", "exhausted", "terminal", *unsure])
        undone = maker.flip() and not maker.behind and not pivot
        # What a person says who is asked about a child is said to the child, and not yet to its parent.
        given_up = 1 if maker.inside or maker.simple else MAX_UNDOS
        undo_failures = chance.choice([0, 0, 0, 0, 1, given_up]) if undone else 0
        answers = ["retry", "skip", "supply", *([] if maker.inside else ["cancel"])]
        return cls(
            maker.name("pivot" if pivot else "step"),
            failures={
                "retried": chance.randint(1, MAX_ATTEMPTS - 1),
                "exhausted": MAX_ATTEMPTS,
                "held": chance.choice([0, 1, MAX_ATTEMPTS]),
                "attention": chance.choice([0, 1]),
            }.get(how, 0),
            end={"parked": "unknown", "held": "terminal"}.get(
                how, how if how in ("terminal", "unknown", "attention") else "result"
            ),
            undone=undone,
            undo_failures=undo_failures,
            parks=how == "parked",
            holds=how == "held",
            pivot=pivot,
            answer=chance.choice(answers) if how not in ("fine", "retried") else "retry",
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
            on_failure="park" if self.holds else "fail",
            pivot=self.pivot,
        )

    def walked(self, model: Model, before: set[str], round_: str) -> tuple[set[str], bool]:
        name = in_round(self.name, round_)
        model.before[name], model.written[name] = set(before), self
        after = before | {name}
        exhausted = self.failures >= MAX_ATTEMPTS
        definite = self.end in ("terminal", "attention") or exhausted
        held = self.holds or (self.end == "attention" and not exhausted)
        asks = (definite and (held or model.past)) or (
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
class Pass(ShortRepr):
    """A sleep or a wait: nobody works. What a wait is told lies under its name, or is merged."""

    name: str
    waits: bool = False
    merge: bool = False

    @classmethod
    def made(cls, maker: Maker, _depth: int) -> Self:
        waits = maker.flip()
        return cls(maker.name("pass"), waits, waits and maker.flip())

    def element(self) -> Any:
        return Wait(self.name, merge=self.merge) if self.waits else Sleep(self.name, 0.001)

    @property
    def data(self) -> dict[str, Any]:
        return {f"told.{self.name}": True}

    def walked(self, _model: Model, before: set[str], _round: str) -> tuple[set[str], bool]:
        return before, True


@dataclass(frozen=True, repr=False)
class Decision(ShortRepr):
    """A person says yes or no; a no fails the step for certain, and is no effect."""

    name: str
    yes: bool = True
    merge: bool = False

    @classmethod
    def made(cls, maker: Maker, _depth: int) -> Self:
        return cls(maker.name("decision"), not maker.flip(4), maker.flip())

    def element(self) -> Any:
        return Approval(self.name, merge=self.merge)

    @property
    def data(self) -> dict[str, Any]:
        return {"approved": self.yes, f"told.{self.name}": True}

    def walked(self, model: Model, before: set[str], _round: str) -> tuple[set[str], bool]:
        # Behind the pivot a person is asked about the no, and passes over it.
        refused = not self.yes and not model.past
        model.fails |= refused
        return before, not refused


@dataclass(frozen=True, repr=False)
class Fork(ShortRepr):
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
class Many(ShortRepr):
    """A map, and what each of its items does."""

    name: str
    items: list[Work]
    undone: bool = False
    parks: bool = False
    at_once: int | None = None
    holds: bool = False

    @classmethod
    def made(cls, maker: Maker, depth: int) -> Self:
        name, undone = maker.name("many"), maker.flip() and not maker.behind
        items = [Work.made(maker, depth) for _ in range(maker.chance.randint(0, 4))]
        parks, holds = maker.flip(3), maker.flip(3)
        items = [
            replace(
                item,
                name=f"{name}[{index}]",
                undone=undone,
                parks=parks,
                holds=holds,
                undo_failures=item.undo_failures if undone else 0,
                undo_answer=item.undo_answer if undone else "",
            )
            for index, item in enumerate(items)
        ]
        return cls(name, items, undone, parks, maker.chance.choice([None, 1, 2]), holds)

    def element(self) -> Any:
        return Map(
            self.name,
            Step(
                self.name,
                DO,
                on_unknown="park" if self.parks else "compensate",
                on_failure="park" if self.holds else "fail",
                no_compensation=None if self.undone else "nothing is left of it",
            ),
            Listed(len(self.items)),
            self.at_once,
            UNDO if self.undone else None,
            undo_retry=UNDO_RETRY if self.undone else None,
        )

    def walked(self, model: Model, before: set[str], round_: str) -> tuple[set[str], bool]:
        rows = self.at_once or len(self.items)
        ends = [model.walk(self.items[row::rows], before, round_) for row in range(rows)]
        return before.union(*(ended for ended, _ in ends)), all(goes_on for _, goes_on in ends)


@dataclass(frozen=True, repr=False)
class Scope(ShortRepr):
    """A child run, and whether its parent goes on when it has failed, or a person is asked."""

    name: str
    body: list[Any]
    passed_over: bool = False
    holds: bool = False
    #: what a person says who is asked: ``skip``, ``supply``, or ``cancel`` the parent
    answer: str = "skip"

    @classmethod
    def made(cls, maker: Maker, depth: int) -> Any:
        if maker.inside or maker.behind:  # behind the pivot, what fails in it would be asked about twice
            return Work.made(maker, depth)
        maker.inside = True
        body, how = maker.sequence(depth - 1), maker.chance.choice(["fails", "passed over", "held"])
        answer = maker.chance.choice(["skip", "supply", "cancel"])
        made = cls(maker.name("scope"), body, how == "passed over", how == "held", answer)
        maker.inside = False
        return made

    def element(self) -> Any:
        body = WorkflowBuilder(f"child-{uuid4().hex[:8]}").add_parallel("inside", [elements(self.body)]).build()
        return Child(self.name, body, on_failure="park" if self.holds else "continue" if self.passed_over else "fail")

    def walked(self, model: Model, before: set[str], round_: str) -> tuple[set[str], bool]:
        outside, model.fails = model.fails, False
        known = set(model.before)
        ended, _ = model.walk(self.body, before, round_)
        failed, model.fails = model.fails, outside
        model.inside |= model.before.keys() - known
        if not failed:
            model.units = True
            return ended, True
        model.undone_inside |= model.before.keys() - known
        if self.holds:
            model.given_up |= self.answer == "cancel"
            model.units |= self.answer == "supply"
            return before, self.answer != "cancel"
        model.fails |= not self.passed_over
        return before, self.passed_over


@dataclass(frozen=True, repr=False)
class Pick(ShortRepr):
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
class Rounds(ShortRepr):
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
    (Decision, 1, False),
    (Fork, 2, True),
    (Many, 1, False),
    (Pick, 2, True),
    (Rounds, 2, True),
    (Scope, 1, True),
]


def in_round(name: str, round_: str) -> str:
    """What a step is called in a round of a loop: ``step1#2``, ``many3#2[0]``."""
    return re.sub(r"(?=\[|$)", round_, name, count=1)


def seen_as(transaction_id: str, step: str) -> str:
    """What a step is called by the model: one of a child has the rounds in which the child runs."""
    rounds = re.sub(r":(\d+)", r"#\1", "".join(re.findall(r":\d+\b", transaction_id)))
    return re.sub(r"(?=[#\[]|$)", rounds, step, count=1)


def out_of_round(name: str) -> str:
    """What is written of a step of a round."""
    return re.sub(r"#\d+", "", name)


def elements(tree: list[Any]) -> list[Any]:
    """A tree, for the builder."""
    return [each.element() for each in tree]
