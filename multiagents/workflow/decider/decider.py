"""What follows from an event: the heart of the engine, as three pure functions.

The literature's *Decider* turns a command into events. Ours is its mirror, the *process manager*: events come in, and
commands go out.

- `evolve` records a fact: state and event in, state out. ``fold(evolve, history) == state`` for every run.
- `react` says what is due: it looks at the state alone. Recovery after a crash is therefore ``react(load())``, and
  there is no second path to get wrong.
- `decide` is evolve, then react until nothing more is due.

No clock, no ids, no randomness: an event's time is "now", ids follow from what they name, jitter is drawn from the
correlation id. What only user code can answer (``when``, ``inputs``) is asked of the shell through ``ask``, and
recorded.

The rules are where they are kept: `multiagents.workflow.state.activity` and `multiagents.workflow.state.run_state`
hold the transition tables, `multiagents.workflow.decider.evolve` and `multiagents.workflow.decider.react` begin with
what they follow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime

from multiagents.events import CommandEvent, CompensationEvent, ErrorEvent, Event
from multiagents.workflow.decider.commands import (
    ABANDONED,
    CANCEL_REQUESTED,
    CHOSEN,
    GATHERED,
    LAID_OUT,
    REACHED,
    RECALLED,
    RECEIVED,
    ROLLED_BACK,
    SIGNALLED,
    SKIPPED,
    TAKEN_OVER,
    start_event,
)
from multiagents.workflow.decider.compensation import is_told_to_stop, needs_undo
from multiagents.workflow.decider.evolve import evolve, fold
from multiagents.workflow.decider.react import PAGE, react
from multiagents.workflow.definition import Definition, StepDefinition, item_name
from multiagents.workflow.state.run_state import RUN, RunState, RunStatus

__all__ = [
    "ABANDONED",
    "CANCEL_REQUESTED",
    "CHOSEN",
    "GATHERED",
    "LAID_OUT",
    "REACHED",
    "RECALLED",
    "RECEIVED",
    "ROLLED_BACK",
    "RUN",
    "SIGNALLED",
    "SKIPPED",
    "TAKEN_OVER",
    "Ask",
    "advance",
    "decide",
    "evolve",
    "fills_page",
    "fold",
    "is_told_to_stop",
    "needs_undo",
    "react",
    "start_event",
]

#: Asked of the shell for each command before it is recorded: the same command (with the answer of ``inputs`` as its
#: payload), a status event when ``when`` is false or a choice was made, or an error event when the callable raised. And
#: for each signal that a step takes: the same event with the signal's data.
Ask = Callable[[StepDefinition, Event], Event]


#: What is said of a step and has data that the shell gives, or is told of.
_ASKED = (RECEIVED, GATHERED, REACHED, ROLLED_BACK)


def _as_it_is(_step: StepDefinition, said: Event) -> Event:
    return said


def decide(
    definition: Definition, state: RunState, event: Event, ask: Ask = _as_it_is
) -> tuple[RunState, tuple[Event, ...]]:
    """Record an event and say what follows from it; calling it again with the same event gives no commands.

    Nothing is sent: whoever calls it commits the state, the event and the commands in one step.

    Args:
        definition: what the run follows.
        state: the run; or a projection of it that holds at least the step the event is about, if the run goes on
            forward. When the new state goes back (``status`` is neither running nor completed), a decision made from a
            projection is to be thrown away and made from the whole.
        event: a result, an error or a status.
        ask: answers for user code; the default takes every command as it is.

    Returns:
        The new state, and the commands in the order in which they are to be recorded.

    Raises:
        UnknownStepError: when the definition has no such step; the state is untouched.
        UnexpectedEventError: when the event is of another run, or answers an attempt of another step than it names.
        DecodeError: when the correlation id of a reply is none.

    >>> from datetime import UTC, datetime
    >>> from multiagents.events import ErrorEvent, ErrorInfo, ResultEvent
    >>> from multiagents import WorkflowBuilder
    >>> order = (
    ...     WorkflowBuilder("decided")
    ...     .add_step("reserve", "reserve_stock", compensation="release_stock")
    ...     .add_step("charge", "charge_card")
    ...     .build()
    ... )
    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> state, said = decide(order, RunState("A-1", "decided"), start_event(order, "A-1", now=noon))
    >>> [event.correlation_id for event in said]
    ['A-1/reserve/do/1']
    >>> reserved = ResultEvent(transaction_id="A-1", correlation_id="A-1/reserve/do/1", step="reserve", timestamp=noon)
    >>> state, said = decide(order, state, reserved)
    >>> [event.correlation_id for event in said]
    ['A-1/charge/do/1']
    >>> declined = ErrorEvent(
    ...     transaction_id="A-1",
    ...     correlation_id="A-1/charge/do/1",
    ...     step="charge",
    ...     timestamp=noon,
    ...     retryable=False,
    ...     error=ErrorInfo(type="CardDeclined", message="no funds"),
    ... )
    >>> state, said = decide(order, state, declined)
    >>> [event.correlation_id or event.status for event in said]
    ['compensating', 'A-1/reserve/undo/1']
    """
    after = evolve(definition, state, event)
    if after is state:
        return state, ()
    definition = definition.expanded(after.sizes, after.rollbacks)
    near = None if event.step is None else (event.step, *definition.successors[event.step])
    return advance(definition, after, now=event.at, ask=ask, near=near)


def advance(
    definition: Definition,
    state: RunState,
    *,
    now: datetime,
    ask: Ask = _as_it_is,
    near: Iterable[str] | None = None,
    unclaimed: Collection[str] = (),
    without: Collection[str] = (),
) -> tuple[RunState, tuple[Event, ...]]:
    """React, record what was said, and react again, until nothing more is due, or a page is full (`fills_page`).

    Args:
        definition: what the run follows.
        state: the run or a projection of it.
        now: the time that the commands are stamped with.
        ask: answers for user code.
        near: look at these steps only; None is all of them.
        unclaimed: steps in flight whose attempt no worker has taken: taken back if the run goes back.
        without: steps that are not to be begun here: whoever calls lacks their code, and others will begin them.
    """
    said: list[Event] = []
    steps = None if near is None else tuple(near)
    definition = definition.expanded(state.sizes, state.rollbacks)
    while commands := _but(without, due := react(definition, state, steps, _untaken(state, unclaimed, said), now)):
        room = PAGE if len(said) + len(commands) <= PAGE else PAGE - _sent(said)
        events = [_asked(definition, command, ask) for command in commands[:room]]
        # A step whose user code raised turns the run back: nothing is dispatched beside it only to be undone.
        refused = [event for event in events if isinstance(event, ErrorEvent)]
        for event in refused or events:
            state = evolve(definition, state, event)
        said += refused or events
        if fills_page(said):
            break
        definition = definition.expanded(state.sizes, state.rollbacks)
        if not refused:
            # What was due is said. More can only be due behind a step that settled just now without having been done
            # (it was skipped, or took its signal), or for a step that waits for a signal which is there already.
            settled = [event.step for event in events if event.step and not isinstance(event, CommandEvent)]
            for choice in [definition.steps[step] for step in settled if definition.steps[step].branches]:
                settled += [name for names in choice.branches.values() for name in names]
            settled += [item_name(step, index) for step in settled for index in range(definition.sizes.get(step, 0))]
            waiting = [event.step for event in events if event.step and isinstance(event, CommandEvent)]
            ahead = [after for step in settled for after in definition.successors[step]]
            again = steps or () if len(due) == PAGE else ()
            found = tuple(dict.fromkeys([*settled, *ahead, *(waiting if state.signals else ()), *again]))
            # Where the run goes another way, everything may be due.
            everything = any(event.step is None for event in events) or (steps is None and len(due) == PAGE)
            steps = None if everything else found
            if not everything and not found:
                break
    return state, tuple(said)


def _sent(said: Iterable[Event]) -> int:
    """How many attempts are sent out, or taken back: each costs the store as much."""
    return sum(
        isinstance(event, CommandEvent | CompensationEvent) or getattr(event, "status", None) in (RECALLED, ABANDONED)
        for event in said
    )


def fills_page(said: Sequence[Event]) -> bool:
    """Whether so much is to be sent out, or taken back, that the rest is left to a commit of its own."""
    return len(said) >= PAGE and _sent(said) >= PAGE


def _but(without: Collection[str], commands: tuple[Event, ...]) -> tuple[Event, ...]:
    if not without:
        return commands
    return tuple(event for event in commands if not (isinstance(event, CommandEvent) and event.step in without))


def _untaken(state: RunState, unclaimed: Collection[str], said: Iterable[Event]) -> Collection[str]:
    """Steps whose attempt nobody has: beside those that the store knows of, what this very decision is to send."""
    if state.status is not RunStatus.COMPENSATING:
        return unclaimed
    return {*unclaimed, *(event.step for event in said if isinstance(event, CommandEvent) and event.step)}


def _asked(definition: Definition, command: Event, ask: Ask) -> Event:
    asks = isinstance(command, CommandEvent) and command.attempt == 1
    if command.step is not None and (asks or getattr(command, "status", None) in _ASKED):
        return ask(definition.steps[command.step], command)
    return command
