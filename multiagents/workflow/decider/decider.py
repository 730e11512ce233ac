"""What follows from an event: the heart of the engine, as three pure functions.

The literature's *Decider* turns a command into events. Ours is its mirror, the *process manager*: events come in, and
commands go out.

- `evolve` records a fact: state and event in, state out. ``fold(evolve, history) == state`` for every run.
- `react` says what is due: it looks at the state alone. Recovery after a crash is therefore ``react(load())``, and
  there is no second path to get wrong.
- `decide` is evolve, then react until nothing more is due.

No clock, no ids, no randomness: an event's time is "now", ids follow from what they name, jitter is drawn from the
correlation id. What only user code can answer (``when``, ``inputs``) comes out as a question, and what is answered is
recorded (`multiagents.workflow.decider.questions`): `deciding` and `advancing` hand their questions to whoever drives
them, `decide` and `advance` take every command as it is.

The rules are where they are kept: `multiagents.workflow.state.activity` and `multiagents.workflow.state.run_state`
hold the transition tables, `multiagents.workflow.decider.evolve` and `multiagents.workflow.decider.react` begin with
what they follow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from multiagents.events import CommandEvent, CompensationEvent, ErrorEvent, Event
from multiagents.workflow.decider.evolve import evolve
from multiagents.workflow.decider.facts import Fact
from multiagents.workflow.decider.questions import Decision, Question, Turn, answered, as_it_is, needs_answer
from multiagents.workflow.decider.react import PAGE, react
from multiagents.workflow.definition import Definition, item_name
from multiagents.workflow.state import RunState, RunStatus

__all__ = ["advance", "advancing", "decide", "neighbourhood"]

#: What asks for an attempt, and settles nothing.
_ATTEMPTS = frozenset({CommandEvent, CompensationEvent})


def decide(
    definition: Definition, state: RunState, event: Event, answer: Callable[[Question], Event | None] = as_it_is
) -> Decision:
    """Record an event and say what follows from it; calling it again with the same event gives no commands.

    Nothing is sent: whoever calls it commits the state, the event and the commands in one step.

    Args:
        definition: what the run follows.
        state: the run; or a projection of it that holds at least the step the event is about, if the run goes on
            forward.
        event: a result, an error or a status.
        answer: answers for user code; the default takes every command as it is.

    Returns:
        The new state, and the commands in the order in which they are to be recorded.

    Raises:
        UnknownStepError: when the definition has no such step; the state is untouched.
        UnexpectedEventError: when the event is of another run, or answers an attempt of another step than it names.
        DecodeError: when the correlation id of a reply is none.

    >>> from datetime import UTC, datetime
    >>> from multiagents.events import ErrorEvent, ErrorInfo, ResultEvent
    >>> from multiagents.workflow.decider.commands import start_event
    >>> from multiagents import WorkflowBuilder
    >>> order = (
    ...     WorkflowBuilder("decided")
    ...     .add_step("reserve", "reserve_stock", compensation="release_stock")
    ...     .add_step("charge", "charge_card")
    ...     .build()
    ... )
    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> state, events, *_ = decide(order, RunState("A-1", "decided"), start_event(order, "A-1", now=noon))
    >>> [event.correlation_id for event in events]
    ['A-1/reserve/do/1']
    >>> reserved = ResultEvent(transaction_id="A-1", correlation_id="A-1/reserve/do/1", step="reserve", timestamp=noon)
    >>> state, events, *_ = decide(order, state, reserved)
    >>> [event.correlation_id for event in events]
    ['A-1/charge/do/1']
    >>> declined = ErrorEvent(
    ...     transaction_id="A-1",
    ...     correlation_id="A-1/charge/do/1",
    ...     step="charge",
    ...     timestamp=noon,
    ...     retryable=False,
    ...     error=ErrorInfo(type="CardDeclined", message="no funds"),
    ... )
    >>> state, events, *_ = decide(order, state, declined)
    >>> [event.correlation_id or event.status for event in events]
    ['compensating', 'A-1/reserve/undo/1']
    """
    after = evolve(definition, state, event)
    if after is state:
        return Decision(state, ())
    expanded = definition.expanded(after.sizes, after.rollbacks, after.called)
    return answered(advancing(definition, after, now=event.at, near=neighbourhood(expanded, event)), answer)


def neighbourhood(definition: Definition, event: Event) -> tuple[str, ...] | None:
    """The steps that an event can have made due, as long as the run goes forward; None is all of them."""
    return None if event.step is None else (event.step, *definition.successors[event.step])


def advance(
    definition: Definition, state: RunState, *, answer: Callable[[Question], Event | None] = as_it_is, **how: Any
) -> Decision:
    """Say what is due; the default takes every command as it is.

    Args:
        definition: what the run follows.
        state: the run or a projection of it.
        answer: answers for user code.
        how: the further arguments of `advancing`.
    """
    return answered(advancing(definition, state, **how), answer)


def advancing(
    definition: Definition,
    state: RunState,
    *,
    now: datetime,
    near: Iterable[str] | None = None,
    unclaimed: Collection[str] = (),
    begun: Collection[str] = (),
    projected: bool = False,
) -> Turn:
    """React, record what was said, and react again, until nothing more is due, or a page is full.

    Args:
        definition: what the run follows.
        state: the run or a projection of it.
        now: the time that the commands are stamped with.
        near: look at these steps only; None is all of them.
        unclaimed: steps in flight whose attempt no worker has taken: revoked if the run goes back.
        begun: those of them that a worker has had, and given back: they may have taken effect.
        projected: the state is a projection. Where a step fails before anybody was asked to do it, what follows is then
            left to a decision over the whole run.
    """
    events: list[Event] = []
    left: set[str] = set()
    full = turned = False
    steps = None if near is None else tuple(near)
    definition = definition.expanded(state.sizes, state.rollbacks, state.called)
    while not (full or turned):
        untaken = unclaimed
        if state.status is RunStatus.COMPENSATING:
            untaken = {*unclaimed, *_sent_by(events)}
        due = react(definition, state, steps, untaken, begun, now)
        commands = tuple(event for event in due if not _is_left(definition, event, left)) if left else due
        if not commands:
            break
        room = PAGE if len(events) + len(commands) <= PAGE else PAGE - _sent(events)
        batch: Sequence[Event] = commands[:room]
        questions = [
            Question(step, event, definition, events)
            for event in batch
            if event.step is not None and needs_answer(step := definition.steps[event.step], event)
        ]
        if questions:
            given = yield tuple(questions)
            answers = dict(zip((question.event.id for question in questions), given, strict=True))
            left.update(question.step.name for question in questions if answers[question.event.id] is None)
            batch = [each for event in batch if (each := answers.get(event.id, event)) is not None]
        # A step whose user code raised turns the run back: nothing is dispatched beside it only to be undone.
        failed = [event for event in batch if isinstance(event, ErrorEvent)]
        batch = failed or batch
        before = state
        for event in batch:
            state = evolve(definition, state, event)
        if state.sizes is not before.sizes or state.rollbacks is not before.rollbacks:
            definition = definition.expanded(state.sizes, state.rollbacks, state.called)
        events += batch
        full = len(events) >= PAGE and _sent(events) >= PAGE
        turned = projected and bool(failed)
        if not failed:
            steps = _next_due(definition, state, batch, steps, full_page=len(due) == PAGE)
            if steps == ():
                break
    return Decision(state, tuple(events), frozenset(left), full or turned)


def _next_due(
    definition: Definition, state: RunState, batch: Sequence[Event], steps: tuple[str, ...] | None, *, full_page: bool
) -> tuple[str, ...] | None:
    """The steps for which more can be due now that what was due is said; None is all of them.

    That is so only behind a step that settled just now without having been done (it was skipped, or took its signal),
    or for a step that waits for a signal which is there already.
    """
    if not state.signals and not full_page and _ATTEMPTS.issuperset(map(type, batch)):
        return ()
    # Where the run goes another way, everything may be due.
    if any(event.step is None for event in batch) or (steps is None and full_page):
        return None
    settled = [event.step for event in batch if event.step and not isinstance(event, CommandEvent)]
    for choice in [definition.steps[step] for step in settled if definition.steps[step].branches]:
        settled += [name for names in choice.branches.values() for name in names]
    settled += [item_name(step, index) for step in settled for index in range(definition.sizes.get(step, 0))]
    waiting = [event.step for event in batch if event.step and isinstance(event, CommandEvent)] if state.signals else []
    ahead = [after for step in settled for after in definition.successors[step]]
    again = steps or () if full_page else ()
    return tuple(dict.fromkeys([*settled, *ahead, *waiting, *again]))


def _sent(events: Iterable[Event]) -> int:
    """How many attempts are sent out, or revoked: each costs the store as much."""
    return sum(
        isinstance(event, CommandEvent | CompensationEvent)
        or getattr(event, "status", None) in (Fact.REVOKED, Fact.ATTEMPT_ABANDONED)
        for event in events
    )


def _is_left(definition: Definition, event: Event, left: Collection[str]) -> bool:
    return event.step is not None and event.step in left and needs_answer(definition.steps[event.step], event)


def _sent_by(events: Iterable[Event]) -> Iterator[str]:
    """Steps whose attempt nobody can have: it is what this very decision is to send."""
    return (event.step for event in events if isinstance(event, CommandEvent) and event.step)
