"""Where random workflows run: the real engine, store and workers in this process, and what is seen of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from celery import Celery

from multiagents import (
    ErrorEvent,
    NeedsAttentionError,
    Orchestrator,
    OutcomeUnknownError,
    ResultEvent,
    RetryPolicy,
    TerminalError,
    current_step,
    init_app,
    worker,
)
from multiagents.events import CommandEvent, CompensationEvent
from multiagents.exceptions import WorkflowError
from multiagents.state_store.memory import InMemoryStateStore
from tests.models.random_workflows.case import Case
from tests.models.random_workflows.elements import DO, MAX_ATTEMPTS, UNDO, Work, out_of_round, seen_as

NO_BROKER = "redis://127.0.0.1:1/0"  # nobody listens there


class Entry(NamedTuple):
    """What was seen: ``do`` and ``undo`` are attempts, ``asked`` is what a person said, all else is a verb."""

    what: str
    step: str
    key: str = ""
    #: ``result``, ``failed`` or ``unknown``; what the person said; while doing or undoing what the verb was given
    came_to: str = ""


class Stage:
    """The run that is on, and what is seen of it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.works = case.works()
        self.asked = case.asked()
        self.journal: list[Entry] = []
        self.attempts = 0
        #: (direction, step) that a person was asked about, and has had tried again
        self.tried_again: set[tuple[str, str]] = set()
        #: what was said of an earlier run with the id, by what it is about: run, step and direction
        self.earlier: dict[tuple[str, str, str], list[Any]] = {}

    def next_life(self, earlier: dict[tuple[str, str, str], list[Any]]) -> None:
        """Another run gets the id: nothing of this one is known any more, but it may be said again."""
        self.earlier = earlier
        self.journal.clear()
        self.tried_again.clear()
        self.attempts = 0

    def act(self, step: Any) -> Work:
        """Do what people do while this attempt runs; what is written of its step."""
        self.attempts += 1
        run = _orchestrators[-1].get(step.transaction_id.partition(":")[0])  # the root of its family
        for verb in self.case.verbs.get(self.attempts, ()):
            self.journal.append(Entry(verb, self.name(step), came_to=str(step.direction)))
            with suppress(WorkflowError):  # a resume of what nobody has paused
                getattr(run, verb)(reason="as the case has it")
        self._hear_earlier(step)
        return self.works[out_of_round(step.step)]

    def _hear_earlier(self, step: Any) -> None:
        """What came of an earlier run's attempts comes while the same is done of this one: it changes nothing (S32)."""
        orchestrator = _orchestrators[-1]
        for event in self.earlier.get((step.transaction_id, step.step, str(step.direction)), ()):
            before = orchestrator.store.load(step.transaction_id)
            orchestrator.engine.receive(event)
            after = orchestrator.store.load(step.transaction_id)
            assert (after.state, after.in_flight) == (
                before.state,
                before.in_flight,
            ), "an earlier run's outcome counted"

    def note(self, step: Any, came_to: str) -> None:
        self.journal.append(Entry(str(step.direction), self.name(step), step.idempotency_key, came_to))

    def is_tried_again(self, step: Any) -> bool:
        return (str(step.direction), self.name(step)) in self.tried_again

    @staticmethod
    def name(step: Any) -> str:
        return seen_as(step.transaction_id, step.step)

    def seen(self, *what: str) -> list[Entry]:
        return [entry for entry in self.journal if entry.what in what]


_stages: list[Stage] = []
_orchestrators: list[Orchestrator] = []


@worker(DO, retry=RetryPolicy(max_attempts=MAX_ATTEMPTS, initial_interval=60))
def do(context: dict[str, Any]) -> dict[str, Any] | None:
    step = current_step()
    name, _, round_ = step.step.partition("#")
    if name.startswith("count."):
        return {name: int(round_.rpartition("#")[2] or round_)}
    stage = _stages[-1]
    written = stage.act(step)
    if stage.is_tried_again(step):
        stage.note(step, "result")
    elif step.attempt <= written.failures:
        stage.note(step, "failed")
        raise ConnectionError("not yet")
    elif written.end == "terminal":
        stage.note(step, "failed")
        raise TerminalError("never")
    elif written.end == "attention":
        stage.note(step, "failed")
        raise NeedsAttentionError("look at it")
    elif written.end == "unknown":
        stage.note(step, "unknown")
        raise OutcomeUnknownError("who knows")
    else:
        stage.note(step, "result")
    return None


@worker(UNDO)
def undo(context: dict[str, Any]) -> None:
    step = current_step()
    stage = _stages[-1]
    written = stage.act(step)
    if step.attempt <= written.undo_failures and not stage.is_tried_again(step):
        stage.note(step, "failed")
        raise ConnectionError("not yet")
    stage.note(step, "result")


@contextmanager
def engine() -> Iterator[Orchestrator]:
    """An orchestrator that runs all in this process."""
    app = Celery("random", broker=NO_BROKER, set_as_current=False)
    app.conf.task_always_eager = True
    made = init_app(app)
    advance, run_attempt = made.engine.advance, made.engine.dispatcher.run  # type: ignore[attr-defined]

    def advance_what_is_owed(transaction_id: str) -> Any:
        # In one process a loop looks again where nothing is in flight. Elsewhere somebody has to know of the run.
        assert transaction_id not in made.store.visibility.unattended(), "nobody would ever look at this run again"
        return advance(transaction_id)

    def run_once_or_twice(definition: Any, correlation: Any, **how: Any) -> None:
        run_attempt(definition, correlation, **how)
        if _stages[-1].case.doubled:
            _again(
                made, correlation.transaction_id, lambda: run_attempt(definition, correlation, **how), str(correlation)
            )

    made.engine.advance = advance_what_is_owed  # type: ignore[method-assign]
    made.engine.dispatcher.run = run_once_or_twice  # type: ignore[attr-defined]
    _orchestrators.append(made)
    try:
        yield made
    finally:
        _orchestrators.pop()
        InMemoryStateStore.shared().clear()
        app.close()


def _again(orchestrator: Orchestrator, transaction_id: str, run_attempt: Any, correlation_id: str) -> None:
    """The message comes once more, and what it came to; the run stays as it is."""
    before, seen = orchestrator.store.load(transaction_id), len(_stages[-1].journal)
    run_attempt()
    hear_again(orchestrator, transaction_id, correlation_id)
    after = orchestrator.store.load(transaction_id)
    assert (after.state, after.in_flight) == (before.state, before.in_flight)
    assert len(_stages[-1].journal) == seen


def hear_again(orchestrator: Orchestrator, transaction_id: str, correlation_id: str = "") -> None:
    """Every result and error that came for an attempt comes once more; of all attempts if none is named."""
    heard: dict[str, Any] = {}
    sent = set()
    for event in orchestrator.store.history(transaction_id):
        if isinstance(event, CommandEvent | CompensationEvent):
            sent.add(event.correlation_id)
        elif isinstance(event, ResultEvent | ErrorEvent) and event.correlation_id in sent:
            heard.setdefault(event.correlation_id, event)
    for event in heard.values():
        if correlation_id in ("", event.correlation_id):
            orchestrator.engine.receive(event)


def said_of(orchestrator: Orchestrator, runs: list[Any]) -> dict[tuple[str, str, str], list[Any]]:
    """Every result and error of these runs, with the nonce of its run, by what it is about."""
    said: dict[tuple[str, str, str], list[Any]] = {}
    for run in runs:
        nonce = orchestrator.store.load(run.transaction_id).state.nonce
        for event in run.history():
            if isinstance(event, ResultEvent | ErrorEvent) and event.step:
                about = (run.transaction_id, event.step, str(event.direction))
                said.setdefault(about, []).append(event.model_copy(update={"nonce": nonce}))
    return said


@contextmanager
def on_stage(case: Case) -> Iterator[Stage]:
    """An empty store, and a stage for the runs of a case; what fails there tells what was seen."""
    InMemoryStateStore.shared().clear()
    stage = Stage(case)
    _stages.append(stage)
    try:
        yield stage
    except AssertionError as error:
        error.add_note(f"{case}\n{case.code()}\n" + "\n".join(map(str, stage.journal)))
        raise
    finally:
        _stages.pop()
