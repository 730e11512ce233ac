"""Any workflow that can be written, against a model that knows only what was written.

Trees of steps, forks, choices, loops, sleeps and waits are made up and built with the public builder, then run in this
process by the real engine, store and workers. The model walks the tree itself: it has never seen a definition, a state
or a join. It says which steps run, what must have ended before each, and what is undone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from hypothesis import given, note, settings
from hypothesis import strategies as st

from multiagents import (
    Choice,
    Loop,
    Orchestrator,
    Parallel,
    RetryPolicy,
    Sleep,
    Step,
    TerminalError,
    Wait,
    WorkflowBuilder,
    current_step,
    init_app,
    worker,
)
from multiagents.exceptions import WorkflowError
from multiagents.state_store.memory import InMemoryStateStore
from multiagents.workflow.decider import fold
from multiagents.workflow.definition import Definition

#: Nobody listens there: whoever asks it anything fails.
NO_BROKER = "redis://127.0.0.1:1/0"
MAX_ATTEMPTS = 3


# --- what is written ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A step: how many attempts fail before one succeeds, and whether it cancels the run then."""

    name: str
    failures: int = 0
    terminal: bool = False
    undone: bool = False
    cancels: bool = False

    @property
    def fails(self) -> bool:
        return self.terminal or self.failures >= MAX_ATTEMPTS


@dataclass(frozen=True)
class Pass:
    """A sleep or a wait: nobody works."""

    name: str
    waits: bool


@dataclass(frozen=True)
class Fork:
    name: str
    branches: list[list[Any]]


@dataclass(frozen=True)
class Pick:
    name: str
    branches: dict[str, list[Any]]
    picked: str


@dataclass(frozen=True)
class Rounds:
    """A loop that is done after so many rounds; more than ``most`` is never."""

    name: str
    body: list[Any]
    done_after: int
    most: int
    must_end: bool


@st.composite
def trees(draw: st.DrawFn) -> list[Any]:
    numbers = itertools.count()

    def name(kind: str) -> str:
        return f"{kind}{next(numbers)}"

    def work(kind: str = "step") -> Work:
        how = draw(st.sampled_from([*["fine"] * 12, "retried", "retried", "exhausted", "terminal", "cancels"]))
        failures = {"retried": draw(st.integers(1, MAX_ATTEMPTS - 1)), "exhausted": MAX_ATTEMPTS}.get(how, 0)
        return Work(name(kind), failures, how == "terminal", draw(st.booleans()), how == "cancels")

    def sequence(depth: int, at_least: int = 1) -> list[Any]:
        return [element(depth) for _ in range(draw(st.integers(at_least, 3)))]

    def element(depth: int) -> Any:
        kinds = ["work"] * 4 + ["pass"] + (["fork", "pick", "rounds"] * 2 if depth else [])
        match draw(st.sampled_from(kinds)):
            case "fork":
                return Fork(name("fork"), [sequence(depth - 1) for _ in range(draw(st.integers(1, 3)))])
            case "pick":
                branches = {label: sequence(depth - 1, 0) for label in "abc"[: draw(st.integers(1, 3))]}
                return Pick(name("pick"), branches, draw(st.sampled_from(sorted(branches))))
            case "rounds":
                most = draw(st.integers(1, 3))
                return Rounds(
                    name("rounds"), sequence(depth - 1), draw(st.integers(1, most + 1)), most, draw(st.booleans())
                )
            case "pass":
                return Pass(name("pass"), draw(st.booleans()))
        return work()

    return sequence(2)


# --- the workers ----------------------------------------------------------------------------------------------------

_works: dict[str, Work] = {}
_journal: list[tuple[str, str, str, bool]] = []
_orchestrators: list[Orchestrator] = []


@worker("random.do", retry=RetryPolicy(max_attempts=MAX_ATTEMPTS, initial_interval=60))
def do(context: dict[str, Any]) -> dict[str, Any] | None:
    step = current_step()
    name, _, round_ = step.step.partition("#")
    if name.startswith("count."):
        return {name: int(round_.rpartition("#")[2] or round_)}
    written = _works[name]
    succeeds = not written.terminal and step.attempt > written.failures
    _journal.append(("do", step.step, step.idempotency_key, succeeds))
    if written.terminal:
        raise TerminalError("never")
    if not succeeds:
        raise ConnectionError("not yet")
    if written.cancels:
        _orchestrators[-1].get(step.transaction_id).cancel(reason="changed my mind")
    return None


@worker("random.undo")
def undo(context: dict[str, Any]) -> None:
    step = current_step()
    _journal.append(("undo", step.step, step.idempotency_key, True))


# --- the same, for the builder ---------------------------------------------------------------------------------------


def built(tree: list[Any]) -> Definition:
    return WorkflowBuilder(f"random-{uuid4().hex[:8]}").add_parallel("all", [[*map(_element, tree)]]).build()


def _element(written: Any) -> Any:
    match written:
        case Work():
            _works[written.name] = written
            return Step(written.name, do, compensation=undo if written.undone else None)
        case Pass():
            return Wait(written.name) if written.waits else Sleep(written.name, 0.001)
        case Fork():
            return Parallel(written.name, [[*map(_element, branch)] for branch in written.branches])
        case Pick():
            branches = {label: [*map(_element, branch)] for label, branch in written.branches.items()}
            return Choice(written.name, partial(_answer, written.picked), branches)
    counter = f"count.{written.name}"
    return Loop(
        written.name,
        [Step(counter, do), *map(_element, written.body)],
        partial(_reached, counter, written.done_after),
        written.most,
        "fail" if written.must_end else "continue",
    )


def _answer(label: str, context: dict[str, Any]) -> str:
    return label


def _reached(counter: str, rounds: int, context: dict[str, Any]) -> bool:
    return bool(context[counter] >= rounds)


# --- the model ------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """What is to be seen of a run of a tree."""

    #: every step of a worker that may run -> all that must have ended before it
    before: dict[str, set[str]] = field(default_factory=dict)
    written: dict[str, Work] = field(default_factory=dict)
    fails: bool = False
    cancelled: bool = False

    def walk(self, elements: list[Any], before: set[str], round_: str = "") -> tuple[set[str], bool]:
        """What has ended once these have, and whether they go on to what follows."""
        for each in elements:
            before, goes_on = self._element(each, before, round_)
            if not goes_on:
                return before, False
        return before, True

    def _element(self, each: Any, before: set[str], round_: str) -> tuple[set[str], bool]:
        match each:
            case Work():
                name = each.name + round_
                self.before[name], self.written[name] = set(before), each
                self.fails |= each.fails
                self.cancelled |= each.cancels
                return before | {name}, not (each.fails or each.cancels)
            case Fork():
                ends = [self.walk(branch, before, round_) for branch in each.branches]
                return set().union(*(ended for ended, _ in ends)), all(goes_on for _, goes_on in ends)
            case Pick():
                return self.walk(each.branches[each.picked], before, round_)
            case Rounds():
                for number in range(1, min(each.done_after, each.most) + 1):
                    before, goes_on = self.walk(each.body, before, f"{round_}#{number}")
                    if not goes_on:
                        return before, False
                exhausted = each.must_end and each.done_after > each.most
                self.fails |= exhausted
                return before, not exhausted
        return before, True


# --- the comparison -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orchestrator() -> Iterator[Orchestrator]:
    app = Celery("random", broker=NO_BROKER, set_as_current=False)
    app.conf.task_always_eager = True
    made = init_app(app)
    advance = made.engine.advance

    def advance_what_is_owed(transaction_id: str) -> Any:
        # In one process a loop looks again where nothing is in flight. Elsewhere somebody has to know of the run.
        assert transaction_id not in made.store.unattended(), "nobody would ever look at this run again"
        return advance(transaction_id)

    made.engine.advance = advance_what_is_owed  # type: ignore[method-assign]
    _orchestrators.append(made)
    yield made
    _orchestrators.pop()
    InMemoryStateStore.shared().clear()
    app.close()


def compare(orchestrator: Orchestrator, tree: list[Any]) -> None:
    """Run a tree and hold what is seen of it against the model."""
    note(repr(tree))
    InMemoryStateStore.shared().clear()
    _works.clear()
    _journal.clear()
    model = Model()
    model.walk(tree, set())
    definition = built(tree)

    run = orchestrator.start(definition, {})
    signalled(orchestrator, definition, run)
    seen = run.describe()
    note(repr(_journal))

    done = [name for direction, name, _, succeeds in _journal if direction == "do" and succeeds]
    undone = [name for direction, name, *_ in _journal if direction == "undo"]
    tried = Counter(name for direction, name, *_ in _journal if direction == "do")
    turns_back = model.fails or model.cancelled

    # Which steps run: those of the model, and all of them where nothing turns the run back.
    assert set(tried) <= set(model.before)
    for name, times in tried.items():
        allowed = 1 if model.written[name].terminal else min(model.written[name].failures + 1, MAX_ATTEMPTS)
        assert times == allowed or (turns_back and times < allowed)
    # When: after all that stands before them.
    began = {name: number for number, (_, name, *_) in reversed([*enumerate(_journal)])}
    for name in tried:
        for earlier in model.before[name]:
            assert ("do", earlier, True) in [(way, step, ok) for way, step, _, ok in _journal[: began[name]]]
    # What is undone: every success with an undo, once, newest first, after everything else (S6, S9).
    assert Counter(undone) == Counter(name for name in done if turns_back and model.written[name].undone)
    for number, name in enumerate(undone):
        assert not model.before[name] & set(undone[:number])
    assert [way for way, *_ in _journal] == ["do"] * sum(tried.values()) + ["undo"] * len(undone)
    # One key for a step and its undo, and no other step's (S25).
    keys = {(name, key) for _, name, key, _ in _journal}
    assert len(keys) == len({key for _, key in keys}) == len(tried)
    # How it ends, and what is seen of its steps.
    if not turns_back:
        assert seen.status == "completed"
        assert set(done) == set(model.before)
        shown = {step.partition("#")[0] for step in seen.steps}
        assert {step.partition("#")[0] for step in definition.steps} == shown
        skipped = {name for name, step in seen.steps.items() if step.status == "skipped"}
        assert skipped.isdisjoint(done)
        assert all(step.status in ("succeeded", "skipped") for step in seen.steps.values())
    else:
        ends = {"compensated" if undone else "failed"} if model.fails else set()
        assert seen.status in ends | ({"cancelled"} if model.cancelled else set())
    assert orchestrator.store.unattended() == []


@settings(max_examples=300)
@given(tree=trees())
def test_a_random_workflow_does_what_its_model_says_S6_S9_S25(orchestrator: Orchestrator, tree: list[Any]) -> None:
    compare(orchestrator, tree)


@pytest.mark.full
@pytest.mark.timeout(1800)
@settings(max_examples=5_000)
@given(tree=trees())
def test_five_thousand_random_workflows_do_what_their_model_says_S6_S9_S25(
    orchestrator: Orchestrator, tree: list[Any]
) -> None:
    compare(orchestrator, tree)


# --- forks ----------------------------------------------------------------------------------------------------------


def signalled(orchestrator: Orchestrator, definition: Definition, run: Any) -> None:
    """Give a run whatever it waits for."""
    for _ in range(100):
        waiting = orchestrator.store.load(run.transaction_id).in_flight
        if not waiting:
            return
        for step in waiting:
            run.signal(definition.steps[step].signal or step)


def never_ends(tree: Any) -> bool:
    """Whether there is a loop that fails whatever its steps do."""
    if isinstance(tree, Rounds) and tree.must_end and tree.done_after > tree.most:
        return True
    if isinstance(tree, list):
        return any(map(never_ends, tree))
    branches = getattr(tree, "branches", [])
    held = [getattr(tree, "body", []), *(branches.values() if isinstance(branches, dict) else branches)]
    return not isinstance(tree, Work) and any(map(never_ends, held))


@settings(max_examples=100)
@given(tree=trees(), data=st.data())
def test_a_random_fork_does_again_what_is_not_there_and_nothing_else_S22(
    orchestrator: Orchestrator, tree: list[Any], data: st.DataObject
) -> None:
    note(repr(tree))
    InMemoryStateStore.shared().clear()
    _works.clear()
    definition = built(tree)
    run = orchestrator.start(definition, {"n": 1})
    signalled(orchestrator, definition, run)
    before = run.describe()
    # From now on everything goes well.
    for name, work in _works.items():
        _works[name] = replace(work, failures=0, terminal=False, cancels=False)
    _journal.clear()
    from_step = data.draw(st.sampled_from(sorted(definition.steps)))

    try:
        fork = run.fork(from_step)
    except WorkflowError as error:
        assert "which the run did not take" in str(error)  # noqa: PT017 - the only reason there is here
        return
    signalled(orchestrator, definition, fork)

    seen, snapshot = fork.describe(), orchestrator.store.load(fork.transaction_id)
    first = fork.history()[0].payload["forked"]
    taken = {name for name, step in seen.steps.items() if step.taken_over_from}
    done = [name for direction, name, _, ok in _journal if direction == "do" and ok]
    behind = {name for name in definition.steps if from_step in (name, *definition.ancestors(name))}
    assert fold(snapshot.definition, fork.transaction_id, fork.history()) == snapshot.state
    assert orchestrator.store.unattended() == []
    # Nothing is done twice, nothing that was taken over is done, and nothing is taken over that is not there.
    assert len(done) == len(set(done))
    assert taken.isdisjoint({*done, *behind})
    assert {name for name in taken if name in before.effects} == set(first["live"])
    assert all(before.effects[name] == "live" for name in first["live"])
    # What is done before the first step was not there, or comes after something that was not.
    for name in set(done) - behind:
        stood = [before.steps[each].status in ("succeeded", "skipped") for each in (name, *definition.ancestors(name))]
        assert not all(stood)
    assert all(key.startswith(f"{fork.transaction_id}/") for direction, _, key, _ in _journal if direction == "do")
    if not never_ends(tree):
        assert seen.status == "completed"
        work = {name for name, step in seen.steps.items() if step.status == "succeeded" and name in seen.effects}
        assert {name for name in work - taken if not name.startswith("count.")} == set(done)
        if before.status == "completed":
            assert seen.context == before.context
