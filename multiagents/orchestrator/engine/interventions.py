"""What people, and time, have to say to a run: facts that answer no attempt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiagents.clock import from_ms
from multiagents.events import ErrorInfo, ResultEvent, StatusEvent
from multiagents.exceptions import WorkflowError
from multiagents.failpoints import WriteSite
from multiagents.names import Correlation
from multiagents.orchestrator.engine.signals import SignalOutcome, fitting, outcome_of
from multiagents.orchestrator.engine.timers import Timers
from multiagents.state_store.payloads import signal_field
from multiagents.state_store.records import Snapshot
from multiagents.workflow.decider.decider import CANCEL_REQUESTED, SIGNALLED
from multiagents.workflow.decider.interventions import is_so_already, why_not
from multiagents.workflow.decider.timers import is_early
from multiagents.workflow.state.run_state import Cause, RunStatus


class Requests(Timers):
    """The part of the engine that takes them in."""

    def deadline_passed(self, transaction_id: str) -> bool:
        """Turn a run back that is not over at its deadline; one that goes back already, or is over, stays as it is.

        Returns:
            False when the deadline is still to come: it has been moved, or stands still; or when the run goes back to a
            save-point, after which it may go forward again.
        """
        state = self.store.load(transaction_id).state
        if state.status not in (RunStatus.RUNNING, RunStatus.PAUSED):
            return not state.back_to
        try:
            self._whole.decide(transaction_id, _deadline_passed, site=WriteSite.ADVANCE)
        except _StillToCome:
            return False
        return True

    def wake(self, correlation: Correlation, record: str, result: Any = None) -> None:
        """A step that no worker does is done: the time of a sleep has come, a wait goes on without its signal, ..."""
        now = self.store.now()
        event = ResultEvent.of(
            id=f"{correlation}/end",
            transaction_id=correlation.transaction_id,
            correlation_id=str(correlation),
            timestamp=now,
            occurred_at=now,
            step=correlation.step,
            attempt=correlation.attempt,
            payload=result,
        )
        self._whole.decide(
            correlation.transaction_id, event, site=WriteSite.WAKE_UP, answers=(correlation.step, record)
        )

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
        """Give a run a signal; durable when this returns, and counted once for each key (guarantee G3).

        Raises:
            WorkflowNotFoundError: when there is no such run.
            UnknownSignalError: when no step of it waits for such a signal.
            WorkflowError: when the data cannot be written as JSON, or does not fit the step's schema.
        """
        snapshot = self.store.load(transaction_id)
        data = fitting(snapshot.definition, name, data)
        now = self.store.now()
        refuses = isinstance(data, Mapping) and data.get("approved") is False
        event = StatusEvent(
            id=f"{transaction_id}/signal/{key}",
            transaction_id=transaction_id,
            timestamp=now,
            occurred_at=now,
            status=SIGNALLED,
            reason=reason,
            actor=actor,
            payload={"signal": name, "key": key, "refuses": refuses, "data": data},
        )
        decision = self._whole.decide(transaction_id, event, site=WriteSite.SIGNAL, absent=signal_field(key))
        return outcome_of(decision, key)

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

        Returns:
            the status the run has then.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            UnknownStepError: when its workflow has no such step.
            WorkflowError: when the verb does not fit the run; nothing was changed.
        """
        snapshot = self.store.load(transaction_id)
        definition, state = snapshot.definition, snapshot.state
        event = StatusEvent(
            transaction_id=transaction_id,
            timestamp=snapshot.now,
            occurred_at=snapshot.now,
            step=step,
            status=verb,
            reason=reason,
            actor=actor,
            payload=payload,
            error=error,
        )
        if step is not None:
            definition.step(step)
        if is_so_already(state, event):
            return state.status
        refusal = why_not(definition, state, event)
        if refusal is not None:
            raise WorkflowError(f"run {transaction_id!r} did not take {verb!r}: {refusal}; nothing was changed")
        return self._whole.decide(transaction_id, event, site=WriteSite.OPERATE).after.status

    def cancel(self, transaction_id: str, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Ask a run to stop, undo what it did and end as cancelled (rule S20); durable when this returns.

        Returns:
            the status the run had when the request was recorded.
        """
        now = self.store.now()
        event = StatusEvent(
            transaction_id=transaction_id,
            timestamp=now,
            occurred_at=now,
            status=CANCEL_REQUESTED,
            reason=reason,
            actor=actor,
        )
        self._whole.decide(transaction_id, event, site=WriteSite.CANCEL)
        return self.store.load(transaction_id).state.status


class _StillToCome(Exception):  # noqa: N818 - no error: there is nothing to do yet
    """A deadline has been moved, or stands still."""


def _deadline_passed(snapshot: Snapshot) -> StatusEvent:
    state, deadline = snapshot.state, snapshot.definition.deadline or 0.0
    limit = (
        f"within its {deadline:g} s" if state.deadline_at is None else f"by {from_ms(state.deadline_at).isoformat()}"
    )
    event = StatusEvent(
        id=f"{state.transaction_id}/deadline",
        transaction_id=state.transaction_id,
        timestamp=snapshot.now,
        occurred_at=snapshot.now,
        status=RunStatus.COMPENSATING,
        reason="its deadline passed",
        error=ErrorInfo(type="DeadlineExceeded", message=f"the run was not over {limit}"),
        payload={"cause": Cause.DEADLINE.value},
    )
    if is_early(state, event):
        raise _StillToCome
    return event
