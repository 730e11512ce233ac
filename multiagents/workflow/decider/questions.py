"""What the core cannot answer itself: it asks by handing out data, and goes on when it has the answers.

A decision is a `Turn`: a generator that hands out questions and is sent an answer for each. Whoever drives it may run
user code, load data or wait in between; the core knows nothing of that. An answer is the event that is recorded in the
place of the one that was asked about; None says that nobody here can answer, and leaves the step to others.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from multiagents.events import CommandEvent, Event, StatusEvent
from multiagents.workflow.decider.facts import Fact
from multiagents.workflow.definition import Definition, StepDefinition, StepKind
from multiagents.workflow.state import RunState

__all__ = ["Decision", "Question", "Turn", "answered", "as_it_is", "needs_answer"]


class Question(NamedTuple):
    """What is about to be recorded of a step, and takes user code or the run's data to be whole.

    Attributes:
        step: the step.
        event: its first command (``when``, ``inputs``, ... may turn it into something else), or a status that lacks
            its data: that of a signal, or the results of a map's items.
        definition: what the run follows, expanded as it is by then.
        before: the events of the same decision so far: they bring results that no store has yet.
    """

    step: StepDefinition
    event: Event
    definition: Definition
    before: Sequence[Event]


class Decision(NamedTuple):
    """What follows from an event.

    Attributes:
        after: the run after it.
        events: what follows, in the order in which it is to be recorded.
        left: steps that are due and that nobody here could answer for.
        more: more is due than these events: it did not fit, or it takes the whole run to know.
    """

    after: RunState
    events: tuple[Event, ...]
    left: frozenset[str] = frozenset()
    more: bool = False


#: A decision under way.
Turn = Generator[tuple[Question, ...], Sequence[Event | None], Decision]


def needs_answer(step: StepDefinition, event: Event) -> bool:
    """Whether what is about to be recorded of a step is to be asked about first."""
    if isinstance(event, CommandEvent):
        if event.attempt != 1:
            return False
        return step.inputs is not None or step.key is not None or step.kind is StepKind.MAP or step.has_code
    return isinstance(event, StatusEvent) and event.status in (Fact.RECEIVED, Fact.GATHERED)


def answered(turn: Turn, answer: Callable[[Question], Event | None]) -> Decision:
    """Take a decision to its end, with one who answers each question."""
    try:
        questions = next(turn)
        while True:
            questions = turn.send([answer(question) for question in questions])
    except StopIteration as end:
        decision: Decision = end.value
        return decision


def as_it_is(question: Question) -> Event:
    """Answer as if no user code were there."""
    return question.event
