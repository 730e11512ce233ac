"""How the journal writes down a call that is a step of its run (rule S36): around what only the store can say of it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Self

from multiagents.events import ErrorEvent, ResultEvent
from multiagents.names import Correlation
from multiagents.plain_json import digest
from multiagents.state_store.payloads import PayloadPolicy, Writing
from multiagents.state_store.records.journal import CallOutcome, CallUndo
from multiagents.workflow.decider import call_begun, called_event

#: In place of the name of a call, which no name has in it.
_NAME = "~"


class CallBegun(NamedTuple):
    """What is written of a call that begins; all texts are empty where it is no step.

    Attributes:
        before_number, after_number: its state, around its number.
        before_name, after_name: the event, around its name.
        arguments: what undoes it is given.
    """

    before_number: str = ""
    after_number: str = ""
    before_name: str = ""
    after_name: str = ""
    arguments: str = ""

    @classmethod
    def of(cls, correlation: Correlation, undo: CallUndo | None, at: datetime, writing: Writing) -> Self:
        """Write it down.

        Args:
            correlation: the attempt.
            undo: what undoes it; None: it is no step.
            at: the store's clock.
            writing: in what form.
        """
        if undo is None:
            return cls()
        policy = writing.policy
        state = policy.step(call_begun(undo.compensation, 0, at))
        before, _, after = policy.event(called_event(correlation, _NAME, undo.compensation, at)).partition(f'"{_NAME}"')
        # The number is the last thing in it, within two lists.
        return cls(state[:-3], state[-2:], f'{before}"', f'"{after}', writing.value(undo.arguments))

    def state(self, number: int) -> str:
        """The state of the call, with its number."""
        return f"{self.before_number}{number}{self.after_number}"

    def event(self, name: str) -> str:
        """The event, with the name of the call."""
        return f"{self.before_name}{name}{self.after_name}"


class CallEnded(NamedTuple):
    """What is written of a call that is answered; all texts are empty where it is no step."""

    state: str = ""
    event: str = ""
    result: str = ""

    @classmethod
    def of(cls, outcome: CallOutcome | None, writing: Writing) -> Self:
        """Write it down.

        Args:
            outcome: what it has come to; None: it is no step.
            writing: in what form.
        """
        if outcome is None:
            return cls()
        result = "" if outcome.event.payload is None else writing.value(outcome.event.payload)
        return cls(writing.policy.step(outcome.state), _packed(outcome.event, writing.policy), result)


def _packed(event: ResultEvent | ErrorEvent, policy: PayloadPolicy) -> str:
    """The event as the history has it: its payload is with the run's data."""
    if event.payload is not None:
        event = event.model_copy(update={"payload": None, "digest": digest(event.payload)})
    return policy.event(event)
