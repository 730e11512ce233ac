"""What a person, or a program on their behalf, may tell a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from multiagents.events import ErrorInfo
from multiagents.exceptions import WorkflowError
from multiagents.names import Direction
from multiagents.state_store.base import dumps
from multiagents.workflow.operating import PAUSE, RESUME, RETRY, SKIP, SUPPLY, settleable
from multiagents.workflow.state import Cause, RunStatus

if TYPE_CHECKING:
    from multiagents.orchestrator.orchestrator import Orchestrator
    from multiagents.orchestrator.signals import SignalOutcome


class Verbs:
    """The verbs of a run. Each is durable when it returns; ``reason`` and ``actor`` are for the history.

    Attributes:
        transaction_id: the run's id.
    """

    def __init__(self, orchestrator: Orchestrator, transaction_id: str) -> None:
        self._orchestrator = orchestrator
        self.transaction_id = transaction_id

    def cancel(self, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Stop the run, undo what it did, and end it as cancelled (rule S20).

        Durable when this returns, and safe to repeat. What is in flight settles first; during compensation it is
        recorded and changes nothing; after the end it does nothing.

        A run that is ``paused``, because nobody knows whether a step with ``on_unknown="park"`` took effect, is told by
        it to undo that step, too: look at the other side first. A cancel that came before the pause says nothing of it.

        Args:
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            the status the run has now, mostly ``compensating``.

        Raises:
            WorkflowNotFoundError: when there is no such run.
        """
        return self._orchestrator.engine.cancel(self.transaction_id, reason=reason, actor=actor)

    def signal(
        self,
        name: str,
        data: Any = None,
        *,
        key: str | None = None,
        reason: str | None = None,
        actor: str | None = None,
    ) -> SignalOutcome:
        """Give the run a signal that a step of it waits for, will wait for, or has waited for.

        Durable when this returns. A step that waits takes it at once; otherwise it is kept for the first that will.

        Args:
            name: the signal's name, as ``add_wait`` or ``add_approval`` has it.
            data: what the waiting step's result is to be; anything that can be written as JSON.
            key: names this very signal: given twice with one key, it counts once. None makes one up.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            ``received``, ``kept``, ``late`` (the run goes back or is over: it is on record and changes nothing), or
            ``repeated``.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            UnknownSignalError: when no step of its workflow waits for such a signal.
            WorkflowError: when the data does not fit the step's schema, or cannot be written as JSON.

        >>> run.signal("approval", {"approved": True}, actor="ann")  # doctest: +SKIP
        <SignalOutcome.RECEIVED: 'received'>
        """
        return self._orchestrator.engine.signal(
            self.transaction_id, name, data, key=key or uuid4().hex, reason=reason, actor=actor
        )

    def pause(self, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Hold the run, going forward or back: nothing new is sent out until `resume`; pausing twice does no harm.

        What is in flight comes to its end, and is recorded; timers keep running, and what they would send waits. A
        cancel lifts the hold.

        Returns:
            the status the run has then: ``paused``.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when it is over.
        """
        return self._tell(PAUSE, reason=reason, actor=actor)

    def resume(self, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Let a paused run go on where it was held; a run that goes on already is left as it is.

        Returns:
            the status the run has then.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when nobody has paused it: it is over, or waits for somebody to settle a step.
        """
        return self._tell(RESUME, reason=reason, actor=actor)

    def terminate(self, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """End the run as it stands, and undo nothing (rule S20); ``describe().effects`` says what is live then.

        What still runs is told to stop; what it returns is recorded, and changes nothing.

        Returns:
            the status: ``terminated``.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when it is over already.
        """
        return self._tell(RunStatus.TERMINATED, reason=reason, actor=actor)

    def compensate(self, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Undo a run that was completed, within its retention (rule S24); it ends as ``compensated``.

        Returns:
            the status the run has then, mostly ``compensating``.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when it is not completed; `cancel` undoes one that goes on.
        """
        message = reason or "the completed run was taken back on request"
        error = ErrorInfo(type="CompensationRequested", message=message)
        payload = {"cause": Cause.REQUEST.value}
        return self._tell(RunStatus.COMPENSATING, payload=payload, error=error, reason=reason, actor=actor)

    def retry(self, step: str | None = None, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Try again what waits for a person: a step whose outcome is unknown, or an undo that was given up.

        The attempts count anew; the dead letter of an undo goes.

        Args:
            step: the step; None is all that wait.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            the status the run has then.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when nothing of it waits for a person, or not this step.
        """
        return self._tell(RETRY, step=step, reason=reason, actor=actor)

    def skip(self, step: str, reason: str, *, actor: str | None = None) -> RunStatus:
        """Go on without a step, or without its undo.

        Of a step whose outcome is unknown it says that it took no effect; of an undo that was given up, that the effect
        may stay (the run then ends as ``compensated_partially``).

        Args:
            step: the step.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            the status the run has then.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when the step does not wait for a person.
        """
        return self._tell(SKIP, step=step, reason=reason, actor=actor)

    def supply(
        self, step: str, result: Any = None, *, reason: str | None = None, actor: str | None = None
    ) -> RunStatus:
        """Say that a step whose outcome is unknown has succeeded, and with what; or that its undo was done by hand.

        Args:
            step: the step.
            result: what it is to have returned; for an undo it is not used.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            the status the run has then.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when the step does not wait for a person, or the result cannot be written as JSON.
        """
        try:
            dumps(result)
        except (TypeError, ValueError) as error:
            raise WorkflowError(
                f"the result given for step {step!r} cannot be written as JSON: {error}; use str, int, float, bool, "
                f"None, lists and dicts"
            ) from None
        snapshot = self._orchestrator.store.load(self.transaction_id)
        waiting = dict(settleable(snapshot.definition, snapshot.state))
        payload = {"result": result, "direction": waiting.get(step, Direction.DO).value}
        return self._tell(SUPPLY, step=step, payload=payload, reason=reason, actor=actor)

    def _tell(self, verb: str, **facts: Any) -> RunStatus:
        return self._orchestrator.engine.operate(self.transaction_id, verb, **facts)
