"""An agent as a store sees it: attempts of one step that ask models and tools, one after the other."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from multiagents.events import ErrorEvent, ErrorInfo, ResultEvent
from multiagents.names import Correlation, Direction
from multiagents.plain_json import canonical
from multiagents.state_store.journal import Journal
from multiagents.state_store.records import (
    Begun,
    Call,
    CallOutcome,
    CallUndo,
    Commit,
    Delivery,
    Dispatch,
    Opened,
    Request,
    Usage,
    attempt_key_of,
    record_prefix,
)
from multiagents.workflow.decider import call_after
from multiagents.workflow.definition import call_name
from multiagents.workflow.state import Activity, ActivityStatus, StepState
from tests.support.store_kit import FLOW, RUN, STEP, StoreKit


class Agent:
    """The attempt that goes on now, and those before it; it holds the first attempt of a new run.

    Each attempt has an owner of its own, ``agent-1`` and so on, and numbers its calls.
    """

    def __init__(
        self,
        kit: StoreKit,
        transaction_id: str = RUN,
        *,
        step: str = STEP,
        undo: bool = False,
        nonce: str = "",
        **fields: Any,
    ) -> None:
        self.kit = kit
        self.nonce = nonce
        self.undo = undo
        self.id = transaction_id
        self.step = step
        self.attempt = 0
        self.number = 0
        self.last: tuple[str, str] = ("", "")
        kit.begin(transaction_id, nonce=nonce, **fields)
        self._take()

    @property
    def journal(self) -> Journal:
        return self.kit.store.journal

    @property
    def owner(self) -> str:
        return f"agent-{self.attempt}"

    @property
    def correlation(self) -> Correlation:
        return self.of(self.attempt)

    def of(self, attempt: int) -> Correlation:
        """One of the attempts."""
        return Correlation(self.id, self.step, self.direction, attempt, self.nonce)

    @property
    def direction(self) -> Direction:
        return Direction.UNDO if self.undo else Direction.DO

    def is_lost(self, *, taken: bool = True) -> Agent:
        """The worker of the attempt is gone, and another one makes the next attempt."""
        self.kit.store.commit(self._sends(self.attempt + 1, record_prefix(self._key, Delivery.CLAIMED, self.owner)))
        if taken:
            self._take(sent=True)
        return self

    def asks(self, text: str = "hello?", **fields: Any) -> Begun:
        """Begin a call to a model; one after the other, each told by the one before it."""
        self.number += 1
        given = {"number": self.number, "request": Request.after(*self.last, text), "name": "small", "kind": "lm"}
        begun = self.journal.begin(self.correlation, self.owner, Call(hash=hash_of(text), **(given | fields)))
        if begun.slot:
            self.last = begun.slot, text
        return begun

    def uses(self, tool: str = "search", arguments: str = '{"q":1}', **fields: Any) -> Begun:
        """Begin a call of a tool."""
        self.number += 1
        given = {"number": self.number, "request": Request(text=arguments), "name": tool, "kind": "tool"}
        return self.journal.begin(
            self.correlation, self.owner, Call(hash=hash_of(tool + arguments), **(given | fields))
        )

    def books(self, tool: str = "flight", arguments: Any = None, **fields: Any) -> Begun:
        """Begin a call of a tool that ``undo_<tool>`` undoes."""
        given = {"city": "Rome"} if arguments is None else arguments
        return self.uses(tool, canonical(given), undo=CallUndo(f"undo_{tool}", given), **fields)

    def has_booked(self, begun: Begun, result: Any = None, error: ErrorInfo | None = None, **fields: Any) -> bool:
        """Write down what it has come to, as the agent does."""
        assert begun.state is not None
        tool = self.journal.calls(self.id, self.step)[-1].name
        at = self.kit.store.now()
        call = self.correlation._replace(step=call_name(self.step, tool, begun.nth - 1), attempt=1)
        event: ResultEvent | ErrorEvent = ResultEvent.about(call, result, at=at)
        if error is not None:
            event = ErrorEvent.about(call, error, at=at, retryable=False, **fields)
        outcome = CallOutcome(event, call_after(FLOW, begun.state, event))
        answer = {"result": result} if error is None else {"error": error.message}
        return self.hears(begun, answer, failed=error is not None, outcome=outcome)

    def hears(self, begun: Begun | str, answer: Any = "hi", usage: Usage | None = None, **fields: Any) -> bool:
        """Write down what a call was answered."""
        slot = begun if isinstance(begun, str) else begun.slot
        return self.journal.finish(self.correlation, self.owner, slot, answer, usage, **fields)

    def asked(self, text: str = "hello?", answer: Any = "hi", usage: Usage | None = None) -> Begun:
        """Ask a model and be answered."""
        begun = self.asks(text)
        self.hears(begun, answer, usage)
        return begun

    def decides(self, slot: str, decision: Any) -> Any:
        """A person decides upon a call."""
        return self.journal.decide(self.correlation.identity, self.step, slot, decision, self.direction)

    def refuses(self, *slots: str, why: str = "no JSON") -> bool:
        return self.journal.refuse(self.correlation, self.owner, slots, why)

    def withholds(self, begun: Begun | str) -> bool:
        """A call that was begun is not made for now."""
        slot = begun if isinstance(begun, str) else begun.slot
        return self.journal.withhold(self.correlation, self.owner, slot)

    def opens(self, **pins: str) -> Opened:
        return self.journal.open(self.correlation, self.owner, pins)

    def usage(self) -> Any:
        return self.journal.usage(self.id, [self.step])[self.step]

    def states(self) -> list[tuple[str, str]]:
        """Of each call the occurrence and the state."""
        return [(record.slot, record.state.name.lower()) for record in self.journal.calls(self.id)]

    @property
    def _key(self) -> str:
        return attempt_key_of(self.direction, self.attempt)

    def _sends(self, attempt: int, answers: str | None = None) -> Commit:
        activity = Activity(ActivityStatus.IN_FLIGHT, attempt)
        state = StepState(Activity(ActivityStatus.SUCCEEDED, 1), activity) if self.undo else StepState(activity)
        dispatch: Dispatch = self.kit.message(self.id, self.step, attempt_key_of(self.direction, attempt))
        return Commit(
            self.id,
            [],
            answers=None if answers is None else (self.step, answers),
            steps={self.step: state},
            dispatches=[dispatch],
            nonce=self.nonce,
        )

    def _take(self, *, sent: bool = False) -> None:
        if not sent and (self.undo or self.step != STEP):
            self.kit.store.commit(self._sends(1))
        self.attempt += 1
        self.number = 0
        self.kit.store.claim(self.correlation, FLOW.content_hash, owner=self.owner, worker="w", timeout=None)


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()
