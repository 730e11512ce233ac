"""Steps that are runs of their own: they are started, cancelled and undone from here, and their ends answer.

Parent and child may lie in different partitions, so no script touches both. What one of them commits that concerns the
other is done right after the commit, is safe to repeat, and is repeated until it has been done: an attempt that a child
does has its entry in ``due``, and a run that has somebody to tell keeps its own (``r|<run>``) until he knows.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind, ResultEvent
from multiagents.exceptions import WorkflowError, WorkflowNotFoundError
from multiagents.names import Correlation, Direction, child_id, origin_of, parse_origin
from multiagents.orchestrator.conflicts import OnConflict
from multiagents.state_store.base import ClaimRefused, Payloads, Snapshot, Via, mark_of, merge, parse_mark
from multiagents.workflow.decider import is_told_to_stop
from multiagents.workflow.definition import Definition, StepDefinition
from multiagents.workflow.registry import definitions
from multiagents.workflow.rollback import undone_by
from multiagents.workflow.state import Cause, Parent, RunState, RunStatus

if TYPE_CHECKING:
    from multiagents.orchestrator.engine import Engine

#: Ends of a child after which nothing that it did is live: its step has failed for certain, or is undone.
_NOTHING_LEFT = frozenset({RunStatus.COMPENSATED, RunStatus.CANCELLED, RunStatus.TIMED_OUT, RunStatus.FAILED})


class Children:
    """Tends the children of runs.

    Args:
        engine: starts and advances runs.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- from the parent to its children -----------------------------------------------------------------------------

    def tend(self, transaction_id: str, steps: Collection[str]) -> None:
        """Do what steps in flight ask of their children: start them, undo them, have them stop; safe to repeat."""
        store = self._engine.store
        parent = store.load(transaction_id)
        payloads: Payloads | None = None
        begun: list[Correlation] = []
        for step in steps:
            found = parent.in_flight.get(step)
            if found is None or found.via is not Via.CHILD:
                continue
            correlation = Correlation(transaction_id, step, *parse_mark(found.mark))
            if correlation.direction is Direction.UNDO:
                self._undo(parent, correlation)
                continue
            child = self._known(parent, step)
            if child is not None:
                self._look_at(parent, correlation, child)
            elif _is_undone(parent, step):
                # As with a message that nobody has claimed: nothing is begun any more in a run that goes back.
                message = f"child run {self._id(parent, step)!r} was not started, as its parent goes back"
                self._fail(correlation, parent.definition.content_hash, ErrorInfo(type="Recalled", message=message))
            else:
                payloads = payloads or store.payloads(transaction_id)
                self._start(parent, correlation, payloads.input_of(parent.definition, step))
                begun.append(correlation)
        if begun:
            self._stop_unwanted(transaction_id, begun)

    def _stop_unwanted(self, transaction_id: str, begun: Collection[Correlation]) -> None:
        """Cancel children that were started while their parent turned back: it does not wait for them any more."""
        parent = self._engine.store.load(transaction_id)
        for correlation in begun:
            found = parent.in_flight.get(correlation.step)
            mark = mark_of(correlation.direction, correlation.attempt)
            gone = found is None or found.mark != mark or _is_to_stop(parent, correlation.step)
            child = self._known(parent, correlation.step) if gone else None
            if child is None or child.state.status.is_end or parent.definition.own(correlation.step).detached:
                continue
            if not child.state.cancel_requested and child.state.cause is None:
                self._engine.cancel(child.state.transaction_id, reason=f"its parent {transaction_id} goes back")

    def _stop(self, parent: Snapshot) -> None:
        terminated = parent.state.status is RunStatus.TERMINATED
        for step, state in parent.state.steps.items():
            own = parent.definition.own(step)
            if not state.do.in_flight or own.workflow is None or own.detached:
                continue
            if terminated:
                self._terminate(parent, step)
            else:
                self.tend(parent.state.transaction_id, [step])

    def _known(self, parent: Snapshot, step: str) -> Snapshot | None:
        try:
            return self._engine.store.load(self._id(parent, step))
        except WorkflowNotFoundError:
            return None

    @staticmethod
    def _id(parent: Snapshot, step: str) -> str:
        return child_of(parent, step)

    def _start(self, parent: Snapshot, correlation: Correlation, given: Any, *, again: bool = False) -> None:
        step = parent.definition.own(correlation.step)
        definition = definitions.by_hash(step.workflow.content_hash) or step.workflow
        waits = None if step.detached else Parent(str(correlation), parent.definition.content_hash)
        child = self._id(parent, correlation.step)
        policy = OnConflict.REPLACE_FAILED if again else OnConflict.RETURN_SAME
        started = self._engine.start(definition, child, given, policy, parent=waits)
        if started.workflow != definition.name or started.definition_hash != definition.content_hash:
            message = f"there is a run {child!r} already, of workflow {started.workflow!r}, which is not its child"
            self._fail(correlation, parent.definition.content_hash, ErrorInfo(type="ChildFailed", message=message))
        elif step.detached:
            self._succeed(correlation, parent.definition.content_hash, None)

    def _look_at(self, parent: Snapshot, correlation: Correlation, child: Snapshot) -> None:
        """A child that is there: it goes on, or is to stop, or is over and was not heard."""
        definition, state = parent.definition, child.state
        ours = state.parent is not None and _is_same_step(state.parent, correlation)
        if definition.own(correlation.step).detached or not ours:
            payloads = self._engine.store.payloads(correlation.transaction_id)
            self._start(parent, correlation, payloads.input_of(definition, correlation.step))
        elif state.status.is_end:
            tried = Correlation.parse(state.parent.correlation_id).attempt if state.parent else 0
            if state.status is not RunStatus.COMPLETED and tried < correlation.attempt:
                payloads = self._engine.store.payloads(correlation.transaction_id)
                given = payloads.input_of(definition, correlation.step)
                self._start(parent, correlation, given, again=True)
            else:
                self._answer(correlation, definition.content_hash, child)
        elif _is_to_stop(parent, correlation.step) and not state.cancel_requested:
            reason = f"its parent {correlation.transaction_id} goes back"
            self._engine.cancel(state.transaction_id, reason=reason)

    def _terminate(self, parent: Snapshot, step: str) -> None:
        child = self._known(parent, step)
        if child is not None and not child.state.status.is_end:
            reason = f"its parent {parent.state.transaction_id} was terminated"
            self._engine.operate(child.state.transaction_id, RunStatus.TERMINATED, reason=reason)

    def _undo(self, parent: Snapshot, correlation: Correlation) -> None:
        """Undo a child as a unit, by its own journal (rule S11)."""
        child = self._known(parent, correlation.step)
        if child is None:
            self._no_child_to_undo(parent, correlation)
            return
        state, name = child.state, child.state.transaction_id
        if state.status is RunStatus.COMPLETED:
            try:
                self._engine.operate(
                    name,
                    RunStatus.COMPENSATING,
                    payload={
                        "cause": Cause.REQUEST.value,
                        "parent": [str(correlation), parent.definition.content_hash],
                    },
                    reason=f"its parent {correlation.transaction_id} is undone",
                    error=parent.state.error,
                )
            except WorkflowError as error:
                refused = ErrorInfo(type="ChildNotUndone", message=f"child run {name!r}: {error}")
                self._fail(correlation, parent.definition.content_hash, refused)
        elif state.status.is_end:
            self._answer(correlation, parent.definition.content_hash, child)
        elif state.cause is None and not state.cancel_requested:
            self._engine.cancel(name, reason=f"its parent {correlation.transaction_id} is undone")

    def _no_child_to_undo(self, parent: Snapshot, correlation: Correlation) -> None:
        if parent.state.step(correlation.step).outcome == "succeeded":
            name = self._id(parent, correlation.step)
            message = (
                f"child run {name!r} was completed and is not kept any more, so its journal cannot undo it; undo what "
                f"it did by hand, then skip() this undo with a reason"
            )
            self._fail(correlation, parent.definition.content_hash, ErrorInfo(type="ChildNotUndone", message=message))
        else:
            self._succeed(correlation, parent.definition.content_hash, None)

    # --- from a child to its parent ----------------------------------------------------------------------------------

    def tell(self, run: Snapshot) -> None:
        """Tell others what concerns them of a run: its parent that it is over, its children to stop; safe to repeat."""
        state = run.state
        if state.parent is not None and state.status.is_end:
            self._answer(Correlation.parse(state.parent.correlation_id), state.parent.definition_hash, run)
        if run.definition.on_end is not None and state.status.is_end:
            self._at_end(run, run.definition.on_end)
        if run.definition.has_children and state.status in (RunStatus.COMPENSATING, RunStatus.TERMINATED):
            self._stop(run)

    def _at_end(self, run: Snapshot, worker: str) -> None:
        """Have the worker that is told of ends told of this one."""
        state, name = run.state, f"{run.definition.name[:120]}.on_end"
        told = Definition(name=name, steps={"on_end": StepDefinition(name="on_end", worker=worker)})
        payloads = self._engine.store.payloads(state.transaction_id)
        given = {
            "transaction_id": state.transaction_id,
            "workflow": state.workflow,
            "version": state.version,
            "status": state.status.value,
            "error": state.error and {"type": state.error.type, "message": state.error.message},
            "context": merge(dict(payloads.input), payloads.results, run.definition.graph.order),
        }
        identity = child_id(state.transaction_id, f"on_end:{state.finished_at}", run.generation)
        self._engine.start(told, identity, given)

    def _answer(self, correlation: Correlation, definition_hash: str, child: Snapshot) -> None:
        state = child.state
        undo = correlation.direction is Direction.UNDO
        if state.status is RunStatus.COMPLETED:
            if not undo:
                self._succeed(correlation, definition_hash, self._gains(child))
        elif undo and state.status in _NOTHING_LEFT:
            self._succeed(correlation, definition_hash, None)
        else:
            known = state.status in _NOTHING_LEFT
            causes = () if state.error is None else (state.error,)
            why = f": {state.error.message}" if state.error else ""
            message = f"child run {state.transaction_id!r} is {state.status}{why}"
            error = ErrorInfo(type="ChildFailed", message=message, attempt=correlation.attempt, causes=causes)
            self._fail(correlation, definition_hash, error, ErrorKind.FAILED if known else ErrorKind.UNKNOWN)

    def _gains(self, child: Snapshot) -> dict[str, Any]:
        """What a child's steps have returned, merged: what it adds to the context of its parent."""
        results = self._engine.store.payloads(child.state.transaction_id).results
        return merge({}, results, child.definition.graph.order)

    def _succeed(self, correlation: Correlation, definition_hash: str, result: Any) -> None:
        self._settle(ResultEvent(**_about(correlation), payload=result), definition_hash)

    def _fail(
        self, correlation: Correlation, definition_hash: str, error: ErrorInfo, kind: ErrorKind = ErrorKind.FAILED
    ) -> None:
        self._settle(ErrorEvent(**_about(correlation), kind=kind, retryable=False, error=error), definition_hash)

    def _settle(self, event: ResultEvent | ErrorEvent, definition_hash: str) -> None:
        """Answer as a worker does: by a claim, so that an answer among many needs no look at all of the parent."""
        correlation = Correlation.parse(event.correlation_id)
        engine = self._engine
        try:
            claim = engine.store.claim(
                correlation, definition_hash, owner=uuid4().hex, worker=f"run {correlation.step}", timeout=None
            )
        except (ClaimRefused, WorkflowNotFoundError):
            engine.receive(event)  # late, or twice: it is put on record
        else:
            engine.settle(event, claim)
            engine.carry_on(correlation.transaction_id)


def child_of(parent: Snapshot, step: str) -> str:
    """The id of the run that a step is; of one that a fork has taken over, it is that of its original."""
    origin = parent.state.step(step).origin or origin_of(parent.state.transaction_id, parent.generation)
    transaction_id, generation = parse_origin(origin)
    return child_id(transaction_id, step, generation)


def _about(correlation: Correlation) -> dict[str, Any]:
    return {
        "id": f"{correlation}/end",
        "transaction_id": correlation.transaction_id,
        "correlation_id": str(correlation),
        "step": correlation.step,
        "attempt": correlation.attempt,
    }


def _is_same_step(parent: Parent, correlation: Correlation) -> bool:
    transaction_id, step, *_ = Correlation.parse(parent.correlation_id)
    return (transaction_id, step) == (correlation.transaction_id, correlation.step)


def _is_undone(parent: Snapshot, step: str) -> bool:
    return parent.state.status is RunStatus.COMPENSATING and step in undone_by(parent.definition, parent.state)


def _is_to_stop(parent: Snapshot, step: str) -> bool:
    state = parent.state
    return state.status is RunStatus.COMPENSATING and is_told_to_stop(parent.definition, state, step)


def has_others_to_tell(definition: Definition, before: RunState, after: RunState) -> bool:
    """Whether a commit leaves word to be sent: of the end of a run, or to its children that are to stop."""
    if before.status is after.status:
        return False
    if after.status.is_end and (after.parent is not None or definition.on_end is not None):
        return True
    if after.status not in (RunStatus.COMPENSATING, RunStatus.TERMINATED):
        return False
    return any(step.do.in_flight and definition.own(name).workflow is not None for name, step in after.steps.items())
