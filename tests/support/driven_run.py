"""A run in the hand: the pure core driven event by event, without a store, and what it says in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from multiagents.events import CommandEvent, CompensationEvent, ErrorEvent, ErrorInfo, ErrorKind, Event, ResultEvent
from multiagents.events import StatusEvent as Status
from multiagents.names import Correlation, Direction
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.decider import Fact, Question, advance, as_it_is, decide, evolve, fold, react, start_event
from multiagents.workflow.decider.tool_calls import called_event
from multiagents.workflow.definition import Definition, StepDefinition, StepKind, call_name
from multiagents.workflow.state import RunState

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def in_words(event: Event) -> str:
    """``charge/do/2 in 1.5 s``, ``compensating``, ``ship skipped``: what an event says, for a test to compare."""
    if isinstance(event, CommandEvent | CompensationEvent):
        correlation = Correlation.parse(event.correlation_id)
        delay = f" in {event.delay:g} s" if event.delay else ""
        probe = " by its probe" if isinstance(event, CommandEvent) and event.probe else ""
        return f"{correlation.step}/{correlation.direction}/{correlation.attempt}{probe}{delay}"
    if isinstance(event, Status):
        return f"{event.step} {event.status}" if event.step else event.status
    return f"{event.step} failed"


def _choosing(label: Callable[[str], str]) -> Any:
    """Answers the question for a choice of this name."""

    def ask(step: StepDefinition, said: Event) -> Event:
        if not isinstance(said, CommandEvent) or step.kind is not StepKind.CHOICE:
            return said
        return Status(
            id=f"{said.transaction_id}/chosen/{step.name}",
            transaction_id=said.transaction_id,
            timestamp=said.timestamp,
            occurred_at=said.occurred_at,
            step=step.name,
            status=Fact.CHOSEN,
            payload={"label": label(step.name)},
        )

    return ask


def by(ask: Callable[[StepDefinition, Any], Event | None]) -> Callable[[Question], Event | None]:
    """Have a function of the step and its event answer the questions of the core."""
    return lambda question: ask(question.step, question.event)


def with_code(definition: Definition) -> Definition:
    """The definition with a ``when`` at every step, so that each is asked about when it is due."""
    steps = {name: replace(step, when=step.when or bool) for name, step in definition.steps.items()}
    return replace(definition, steps=steps)


class DrivenRun:
    """Run "A-1" of a definition; each method gives it one event and returns what follows, in words.

    ``label`` answers for its choices, by their names.

    After every event it checks what holds at every moment: the history folds to the state, and nothing more is due.
    """

    id = "A-1"

    def __init__(
        self,
        builder: WorkflowBuilder | Definition,
        *,
        max_lost: int = 5,
        ask: Any = None,
        label: Callable[[str], str] | None = None,
    ) -> None:
        self.definition = builder if isinstance(builder, Definition) else builder.build(register=False)
        ask = _choosing(label) if label else ask
        if ask is not None:
            self.definition = with_code(self.definition)
        self.answer = as_it_is if ask is None else by(ask)
        self.now = NOON
        self.state = RunState(self.id, self.definition.name)
        self.history: list[Event] = []
        self.said: tuple[Event, ...] = ()
        self.first = self.takes(start_event(self.definition, self.id, now=self.now, max_lost=max_lost))

    def takes(self, event: Event) -> list[str]:
        self.state, self.said, *_ = decide(self.definition, self.state, event, self.answer)
        return self._recorded(event, *self.said)

    def _recorded(self, *events: Event) -> list[str]:
        self.history += events
        assert fold(self.definition, self.id, self.history) == self.state
        assert react(self.definition, self.state) == ()
        return [in_words(event) for event in events[1:]]

    def succeeds(self, step: str, attempt: int | None = None) -> list[str]:
        return self.takes(self.result(step, Direction.DO, attempt))

    def fails(self, step: str, attempt: int | None = None, **facts: Any) -> list[str]:
        return self.takes(self.error(step, Direction.DO, attempt, **facts))

    def fails_for_good(self, step: str) -> list[str]:
        return self.fails(step, retryable=False)

    def is_lost(self, step: str) -> list[str]:
        return self.fails(step, kind=ErrorKind.LOST)

    def is_undone(self, step: str, attempt: int | None = None) -> list[str]:
        return self.takes(self.result(step, Direction.UNDO, attempt))

    def undo_fails(self, step: str, **facts: Any) -> list[str]:
        return self.takes(self.error(step, Direction.UNDO, **facts))

    def is_cancelled(self) -> list[str]:
        return self.takes(self.status(Fact.CANCEL_REQUESTED, reason="changed my mind"))

    def calls(self, step: str, tool: str) -> list[str]:
        """The agent of a step calls a tool that has a compensation, ``undo_<tool>``."""
        index = sum(name.startswith(f"{step}.{tool}[") for name in self.state.called)
        self.now += timedelta(seconds=1)
        attempt = Correlation(self.id, step, Direction.DO, self.state.step(step).do.attempt)
        return self.takes(called_event(attempt, call_name(step, tool, index), f"undo_{tool}", self.now))

    def has_called(self, step: str, *tools: str) -> None:
        """It has called them, one after the other, and each has answered."""
        for tool in tools:
            self.calls(step, tool)
            self.succeeds(list(self.state.called)[-1])

    def is_recalled(self, step: str) -> list[str]:
        """Do as the shell does with an attempt that nobody had claimed when the run turned back."""
        event = self.status(Fact.REVOKED, step=step)
        self.state = evolve(self.definition, self.state, event)
        self.state, self.said, *_ = advance(self.definition, self.state, now=event.at)
        return self._recorded(event, *self.said)

    def result(self, step: str, direction: Direction, attempt: int | None = None, **facts: Any) -> ResultEvent:
        return ResultEvent(**self._reply(step, direction, attempt), worker="celery@here", **facts)

    def error(self, step: str, direction: Direction, attempt: int | None = None, **facts: Any) -> ErrorEvent:
        reply = self._reply(step, direction, attempt)
        error = ErrorInfo(type="CardDeclined", message=f"{step} declined", attempt=reply["attempt"])
        return ErrorEvent(**reply, error=error, **facts)

    def status(self, status: str, **facts: Any) -> Status:
        self.now += timedelta(seconds=1)
        return Status(transaction_id=self.id, timestamp=self.now, occurred_at=self.now, status=status, **facts)

    def _reply(self, step: str, direction: Direction, attempt: int | None) -> dict[str, Any]:
        self.now += timedelta(seconds=1)
        number = self.state.step(step).activity(direction).attempt if attempt is None else attempt
        return {
            "transaction_id": self.id,
            "correlation_id": str(Correlation(self.id, step, direction, number)),
            "step": step,
            "attempt": number,
            "timestamp": self.now,
            "occurred_at": self.now,
        }

    @property
    def steps(self) -> dict[str, str]:
        """What users see of each step."""
        return {name: str(self.state.step(name).status) for name in (*self.definition.steps, *self.state.called)}


#: What the fixture ``run_of`` is: call it with a workflow, and it gives a run of that.
RunOf = type[DrivenRun]
