"""Every fact that a status event may state beside the status of a run: one table.

An event is a command, a reply (a result or an error), or a status: a fact that neither asks for anything nor answers an
attempt. Commands and replies say all of themselves by their kind. Of a status, everything that the engine does with it
follows from its row here:

- *Who says it.* The core, when it is due (`multiagents.workflow.decider.react`). User code, as the answer to a question
  of the core (`multiagents.workflow.decider.questions`). A person or another program, from outside. The start of a
  fork. An attempt that goes on, in the write that begins the call of a tool.
- *What it moves.* The trigger that it pulls at the activity of its step, where that is all that it does. Facts without
  one move something else, which `multiagents.workflow.decider.evolve` has in a function of its own.
- *What it brings.* A payload lives once, in the data of the run, and the history keeps its digest: ``carries`` names
  what of the payload goes there; ``result`` names what becomes the result of the step.
- *Whether a replay reads it.* What `evolve` needs of the payload has to be in the history as it was: it is never
  redacted, and users' data is not in it.

The statuses of a run (`multiagents.workflow.state.run_state.RunStatus`) are facts, too; which may follow which is the
table `RUN`. A status that is neither is somebody else's: it goes on record, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from multiagents.events import Event, ResultEvent, StatusEvent
from multiagents.names import Direction
from multiagents.workflow.state import RunStatus, Trigger

__all__ = ["FACTS", "Fact", "FactKind", "Source", "has_result", "is_replayed", "result_of"]


class Fact(StrEnum):
    """What a status event states. The values are what histories keep."""

    #: its ``when`` was false
    SKIPPED = "skipped"
    #: the attempt in flight was revoked before anybody had claimed it: it had no effect
    REVOKED = "recalled"
    #: the run compensates and does not wait for the attempt in flight: the step is cancel-safe (rule S5)
    ATTEMPT_ABANDONED = "abandoned"
    #: the chooser of a choice has answered: the steps of the other branches are skipped with it
    CHOSEN = "chosen"
    #: a step that waits for a signal has it: its data is the step's result
    RECEIVED = "received"
    #: the list of a map is known: its items are steps from now on
    EXPANDED = "laid_out"
    #: the items of a map are done, or what was done of them is to be undone in one go: its result is the list of theirs
    GATHERED = "gathered"
    #: a save-point is reached
    REACHED = "reached"
    #: all that stands behind a save-point is undone: from now on there is another pass of it
    ROLLED_BACK = "rolled_back"
    #: the run is a fork, and the one that it was forked from had done the step
    TAKEN_OVER = "taken_over"
    #: results with the same key met; it changes nothing
    MERGED = "merged"
    #: a signal came: it is kept until a step takes it
    SIGNALLED = "signalled"
    CANCEL_REQUESTED = "cancel_requested"
    PAUSE_REQUESTED = "pause_requested"
    RESUME_REQUESTED = "resume_requested"
    RETRY_REQUESTED = "retry_requested"
    SKIP_REQUESTED = "skip_requested"
    RESULT_SUPPLIED = "result_supplied"
    ABANDON_REQUESTED = "abandon_requested"
    #: somebody has moved what a step waits for; where it is now is the store's
    TIMER_UPDATED = "timer_updated"
    #: somebody has decided upon a call of an agent, whose attempt waits for that: it comes now
    CALL_DECIDED = "call_decided"
    #: a tool that has a compensation is called: the call is a step from now on, which is there to be undone (rule S36)
    CALLED = "called"
    #: somebody has moved the run's deadline
    DEADLINE_UPDATED = "deadline_updated"


class Source(StrEnum):
    """Who says a fact."""

    CORE = "core"
    #: user code, in answer to a question of the core
    ANSWER = "answer"
    #: a person, or another program, to a run as a whole
    OUTSIDE = "outside"
    #: a person: a verb that `multiagents.workflow.decider.interventions` has the rules of
    OPERATOR = "operator"
    #: the start of a fork
    FORK = "fork"
    #: an attempt that goes on; the store writes it down, together with what the attempt does
    ATTEMPT = "attempt"


class FactKind(NamedTuple):
    """What the engine does with a fact.

    Attributes:
        source: who says it.
        trigger: what it pulls at the activity of its step, where that is all it does.
        result: the part of its payload that is the step's result.
        carries: the parts of its payload that are kept with the run's data, and not in the history; the first one gives
            the digest.
        replayed: a replay reads what is left of its payload.
    """

    source: Source
    trigger: Trigger | None = None
    result: str = ""
    carries: tuple[str, ...] = ()
    replayed: bool = False


_OPERATOR = FactKind(Source.OPERATOR, replayed=True)

#: The whole table. A test sees that each fact has a row, and that each row holds.
FACTS: Mapping[str, FactKind] = MappingProxyType(
    {
        Fact.SKIPPED: FactKind(Source.ANSWER, Trigger.SKIP),
        Fact.CHOSEN: FactKind(Source.ANSWER, Trigger.CHOICE, result="label", replayed=True),
        Fact.EXPANDED: FactKind(Source.ANSWER, carries=("items", "shared", "given"), replayed=True),
        Fact.REVOKED: FactKind(Source.CORE),
        Fact.ATTEMPT_ABANDONED: FactKind(Source.CORE, Trigger.DOUBT),
        Fact.RECEIVED: FactKind(Source.CORE, result="data", carries=("data",), replayed=True),
        Fact.GATHERED: FactKind(Source.CORE, Trigger.CHOICE, result="results", carries=("results",), replayed=True),
        Fact.REACHED: FactKind(Source.CORE, Trigger.CHOICE, result="result"),
        Fact.ROLLED_BACK: FactKind(Source.CORE, result="result"),
        Fact.MERGED: FactKind(Source.CORE),
        Fact.TAKEN_OVER: FactKind(Source.FORK, result="result", carries=("result", "input"), replayed=True),
        Fact.SIGNALLED: FactKind(Source.OUTSIDE, carries=("data",), replayed=True),
        Fact.CANCEL_REQUESTED: FactKind(Source.OUTSIDE),
        Fact.PAUSE_REQUESTED: _OPERATOR,
        Fact.RESUME_REQUESTED: _OPERATOR,
        Fact.RETRY_REQUESTED: _OPERATOR,
        Fact.SKIP_REQUESTED: _OPERATOR,
        Fact.ABANDON_REQUESTED: _OPERATOR,
        Fact.RESULT_SUPPLIED: _OPERATOR._replace(result="result", carries=("result",)),
        Fact.TIMER_UPDATED: _OPERATOR,
        Fact.CALL_DECIDED: _OPERATOR,
        Fact.DEADLINE_UPDATED: _OPERATOR,
        Fact.CALLED: FactKind(Source.ATTEMPT),
    }
)

_STATUSES = frozenset(RunStatus)


def is_replayed(event: StatusEvent) -> bool:
    """Whether a replay reads the payload of a status as the history has it; of what came late it reads none."""
    if event.late is not None:
        return False
    kind = FACTS.get(event.status)
    return event.status in _STATUSES if kind is None else kind.replayed


def has_result(event: Event) -> bool:
    """Whether an event ends a step with a result, be it an empty one."""
    if isinstance(event, ResultEvent):
        return event.direction is Direction.DO
    if not isinstance(event, StatusEvent) or event.error is not None:
        return False
    kind = FACTS.get(event.status)
    if kind is None or not kind.result:
        return False
    return event.status != Fact.RESULT_SUPPLIED or event.payload["direction"] == Direction.DO


def result_of(event: Event) -> Any:
    """What an event adds to the results: what a step returned, the label of a choice, the data of a signal, ..."""
    if isinstance(event, ResultEvent):
        return event.payload if event.direction is Direction.DO else None
    if not isinstance(event, StatusEvent) or not has_result(event):
        return None
    return event.payload[FACTS[Fact(event.status)].result]
