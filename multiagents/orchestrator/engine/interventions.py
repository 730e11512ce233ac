"""What people, and time, have to say to a run: facts that answer no attempt.

Each verb checks that it fits the run, is recorded as a fact with ``reason`` and ``actor``, and is decided upon together
with what follows. The rules of the verbs are the core's (`multiagents.workflow.decider.interventions`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from multiagents.clock import Duration, from_ms
from multiagents.events import ErrorInfo, Event, StatusEvent, new_id
from multiagents.exceptions import WorkflowError
from multiagents.failpoints import WriteSite
from multiagents.names import Direction
from multiagents.orchestrator.engine.pipeline import Outcome
from multiagents.orchestrator.engine.signals import SignalOutcome, assert_same, fitting, outcome_of
from multiagents.orchestrator.engine.timers import call_decided, deadline_moved, timer_moved, wanted_time
from multiagents.plain_json import check_words, plain
from multiagents.state_store import StateStore
from multiagents.state_store.payloads import signal_field
from multiagents.state_store.records import Lesson, Snapshot, Verdict, decided
from multiagents.workflow.decider import (
    Fact,
    Lateness,
    answer_of,
    is_early,
    is_so_already,
    lateness,
    said,
    signal_id,
    why_not,
)
from multiagents.workflow.state import Cause, RunState, RunStatus

__all__ = ["Interventions"]


class Decide(Protocol):
    """Takes an event in, and sees to what follows."""

    def __call__(
        self, transaction_id: str, event: Event | Callable[[Snapshot], Event], /, *, site: WriteSite, **fences: Any
    ) -> Outcome:
        """As `multiagents.orchestrator.engine.advance.advance`."""


class Interventions:
    """Tell runs what people want, and what time it is.

    Args:
        store: where runs live.
        decide: has a run take an event in.
        max_bytes: how large the data of a signal may be.
    """

    def __init__(self, store: StateStore, decide: Decide, max_bytes: int) -> None:
        self._store = store
        self._decide = decide
        self._max_bytes = max_bytes

    def signal(
        self,
        transaction_id: str,
        name: str,
        data: Any = None,
        *,
        key: str,
        reason: str | None = None,
        actor: str | None = None,
    ) -> SignalOutcome:
        """Give a run a signal; durable when this returns, and counted once for each name and key (guarantee G3).

        Raises:
            WorkflowNotFoundError: when there is no such run.
            UnknownSignalError: when no step of it waits for such a signal.
            WorkflowError: when the data cannot be written as JSON, does not fit the step's schema, or says neither yes
                nor no to an approval; when other data was given under this name and key before.
        """
        check_words(key=key, reason=reason, actor=actor)
        snapshot = self._store.load(transaction_id)
        data = fitting(snapshot.definition, name, data, self._max_bytes)
        late: Lateness | None = None
        now = self._store.now()

        def event(snapshot: Snapshot) -> Event:
            nonlocal late
            late = lateness(snapshot.definition, snapshot.state, name)
            return said(
                snapshot.state,
                Fact.SIGNALLED,
                now,
                event_id=f"{transaction_id}/signal/{name}/{key}",
                reason=reason,
                actor=actor,
                late=late and late.why,
                payload={"signal": name, "key": key, "answer": answer_of(data).value, "data": data},
            )

        identity = signal_id(name, key)
        outcome = self._decide(transaction_id, event, site=WriteSite.SIGNAL, absent=signal_field(identity))
        if outcome.verdict is not Verdict.APPLIED:
            assert_same(transaction_id, name, key, data, self._store.payloads(transaction_id).signals.get(identity))
        return outcome_of(outcome, name, key, late)

    def decide_call(
        self,
        transaction_id: str,
        call: str,
        *,
        approved: bool,
        arguments: Mapping[str, Any] | None = None,
        reason: str | None = None,
        actor: str | None = None,
    ) -> SignalOutcome:
        """Say whether a call of an agent may be made; durable when this returns, and the first one who says so counts.

        Args:
            transaction_id: the run.
            call: its step and its slot, ``<step>/<slot>``.
            approved: whether it may.
            arguments: what it is to be called with; None is what the model has asked for.
            reason: why, for the model and the history.
            actor: who, for the model and the history.

        Returns:
            ``received``, or ``already_decided``: what was said before counts.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when it has no such call.
        """
        check_words(reason=reason, actor=actor)
        given = None if arguments is None else plain(arguments, f"the arguments of call {call!r}")
        step, _, slot = call.rpartition("/")
        state = self._store.load(transaction_id).state
        direction = Direction.UNDO if state.step(step).undo.in_flight else Direction.DO
        decision = decided(approved=approved, actor=actor, reason=reason, arguments=given)
        found = self._store.journal.decide(state.identity, step, slot, decision, direction)
        if found is None:
            raise WorkflowError(
                f"run {transaction_id!r} has no call {call!r} that waits for approval; describe().steps[...]"
                f".waiting_for and orchestrator.waiting() have the ids of those that do; nothing was changed"
            )

        def event(snapshot: Snapshot) -> Event:
            said = call_decided(snapshot, step, slot, bool(found.decision["approved"]))
            if said is None:
                raise _IsSoAlready  # Its worker has it in hand, and finds the decision by itself.
            return said.model_copy(update={"reason": reason, "actor": actor})

        with contextlib.suppress(_IsSoAlready):
            self._decide(transaction_id, event, site=WriteSite.UPDATE_TIMER)
        return SignalOutcome.RECEIVED if found.is_new else SignalOutcome.ALREADY_DECIDED

    def operate(
        self,
        transaction_id: str,
        verb: str,
        *,
        step: str | None = None,
        payload: Mapping[str, Any] | None = None,
        reason: str | None = None,
        actor: str | None = None,
        error: ErrorInfo | None = None,
        nonce: str | None = None,
        lesson: Lesson | None = None,
    ) -> RunStatus:
        """Tell a run what a person wants; durable when this returns, and safe to repeat.

        Args:
            transaction_id: the run.
            verb: one of `multiagents.workflow.decider.interventions`, or the status that is asked for.
            step: the step that is meant, if one is.
            payload: what the verb brings.
            reason: why, for the history.
            actor: who, for the history.
            error: why the run goes back, where it does.
            nonce: which of the runs that have had the id is meant; None is the one that has it.
            lesson: what there is to learn from it.

        Returns:
            the status the run has then.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            UnknownStepError: when its workflow has no such step.
            WorkflowError: when the verb does not fit the run; nothing was changed.
        """
        check_words(reason=reason, actor=actor)
        snapshot = self._store.load(transaction_id)
        definition, state = snapshot.definition, snapshot.state
        _assert_meant(state, nonce, verb)
        event = said(
            state,
            verb,
            snapshot.now,
            event_id=new_id(),
            step=step,
            reason=reason,
            actor=actor,
            payload=payload,
            error=error,
        )
        if lesson is not None:
            event = event.model_copy(update={"lesson": lesson})
        if step is not None:
            definition.step(step)
        if is_so_already(state, event):
            return state.status
        refusal = why_not(definition, state, event)
        if refusal is not None:
            raise WorkflowError(f"run {transaction_id!r} did not take {verb!r}: {refusal}; nothing was changed")

        def of_this_run(found: Snapshot) -> Event:
            _assert_meant(found.state, state.nonce, verb)
            return event

        return self._decide(transaction_id, of_this_run, site=WriteSite.OPERATE).after.status

    def cancel(self, transaction_id: str, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Ask a run to stop, undo what it did and end as cancelled (rule S20); durable when this returns.

        Returns:
            the status the run had when the request was recorded.
        """
        check_words(reason=reason, actor=actor)
        now = self._store.now()

        def event(snapshot: Snapshot) -> Event:
            status = snapshot.state.status
            return said(
                snapshot.state,
                Fact.CANCEL_REQUESTED,
                now,
                event_id=new_id(),
                reason=reason,
                actor=actor,
                late=f"the run is {status}" if status.is_end else None,
            )

        self._decide(transaction_id, event, site=WriteSite.CANCEL)
        return self._store.load(transaction_id).state.status

    def deadline_passed(self, transaction_id: str, nonce: str) -> bool:
        """Have a run compensate that has not ended by its deadline; one that compensates or has ended stays as it is.

        Args:
            transaction_id: the run.
            nonce: which of those that have had its id.

        Returns:
            False when the deadline is still to come: it has been moved, or stands still; or when the run goes back to a
            save-point, after which it may go forward again.
        """
        state = self._store.load(transaction_id).state
        if state.nonce != nonce:
            return True  # it was that of an earlier run
        if state.status not in (RunStatus.RUNNING, RunStatus.PAUSED):
            return not state.back_to
        try:
            self._decide(transaction_id, _deadline_passed, site=WriteSite.ADVANCE)
        except _StillToCome:
            return False
        return True

    def update_timer(
        self,
        transaction_id: str,
        step: str,
        seconds: Duration | None,
        at: datetime | None,
        *,
        reason: str | None = None,
        actor: str | None = None,
    ) -> datetime:
        """Move what a step waits for; durable when this returns.

        Returns:
            when it is due now.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            UnknownStepError: when its workflow has no such step.
            WorkflowError: when the step has no timer, or the time cannot be used; nothing was changed.
        """
        wanted = wanted_time(f"the timer of step {step!r}", seconds, at, self._store.load(transaction_id).now)
        return self._move(
            transaction_id, lambda snapshot: timer_moved(snapshot, step, wanted(snapshot)), wanted, reason, actor
        )

    def update_deadline(
        self,
        transaction_id: str,
        seconds: Duration | None,
        at: datetime | None,
        *,
        reason: str | None = None,
        actor: str | None = None,
    ) -> datetime:
        """Move the deadline of a run, or give it one; durable when this returns.

        Returns:
            when the run is to be over now.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when the run goes back or is over, or the time cannot be used; nothing was changed.
        """
        wanted = wanted_time("the deadline", seconds, at, self._store.load(transaction_id).now)
        return self._move(
            transaction_id, lambda snapshot: deadline_moved(snapshot, wanted(snapshot)), wanted, reason, actor
        )

    def _move(
        self,
        transaction_id: str,
        moved: Callable[[Snapshot], StatusEvent | None],
        wanted: Callable[[Snapshot], int],
        reason: str | None,
        actor: str | None,
    ) -> datetime:
        """Have a run take in that a timer is moved; who asks twice gets the same answer, and one fact is written."""
        check_words(reason=reason, actor=actor)
        snapshots: list[Snapshot] = []

        def event(snapshot: Snapshot) -> Event:
            snapshots.append(snapshot)
            moving = moved(snapshot)
            if moving is None:
                raise _IsSoAlready
            return moving.model_copy(update={"reason": reason, "actor": actor})

        try:
            self._decide(transaction_id, event, site=WriteSite.UPDATE_TIMER)
        except _IsSoAlready:
            pass
        return from_ms(wanted(snapshots[-1]))


def _assert_meant(state: RunState, nonce: str | None, verb: str) -> None:
    """What a person has seen of one run is not said of another that has its id by now (rule S32)."""
    if nonce not in (None, state.nonce):
        raise WorkflowError(
            f"run {state.transaction_id!r} did not take {verb!r}: it is meant for an earlier run, which this one has "
            f"replaced under its id; nothing was changed"
        )


class _IsSoAlready(Exception):  # noqa: N818 - no error: there is nothing to do
    """The timer is where it is to be."""


class _StillToCome(Exception):  # noqa: N818 - no error: there is nothing to do yet
    """A deadline has been moved, or stands still."""


def _deadline_passed(snapshot: Snapshot) -> StatusEvent:
    state, deadline = snapshot.state, snapshot.definition.deadline or 0.0
    limit = (
        f"within its {deadline:g} s" if state.deadline_at is None else f"by {from_ms(state.deadline_at).isoformat()}"
    )
    event = said(
        state,
        RunStatus.COMPENSATING,
        snapshot.now,
        event_id=f"{state.transaction_id}/deadline",
        reason="its deadline passed",
        error=ErrorInfo(type="DeadlineExceeded", message=f"the run was not over {limit}"),
        payload={"cause": Cause.DEADLINE.value},
    )
    if is_early(state, event):
        raise _StillToCome
    return event
