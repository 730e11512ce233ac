"""Steps that are runs of their own: they are started, cancelled and undone from here, and their ends answer.

Parent and child may lie in different partitions, so no script touches both. What one of them commits that concerns the
other is done right after the commit, is safe to repeat, and is repeated until it has been done: an attempt that a child
does has its entry in ``due``, and a run that has somebody to tell keeps its own (``r|<run>``) until he knows.

What a child is to its parent is a rule of the core (`multiagents.workflow.decider.children`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any
from uuid import uuid4

from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind, Event, ResultEvent
from multiagents.exceptions import WorkflowError, WorkflowNotFoundError
from multiagents.names import Correlation, Direction, child_id
from multiagents.orchestrator.engine.advance import advance
from multiagents.orchestrator.engine.attempts import receive
from multiagents.orchestrator.engine.child_ids import child_of
from multiagents.orchestrator.engine.conflict_policy import OnConflict
from multiagents.orchestrator.engine.follow_ups import FollowUp, Progressed
from multiagents.orchestrator.engine.interventions import Interventions
from multiagents.orchestrator.engine.pipeline import Outcome, Pipeline
from multiagents.orchestrator.engine.settle import settle
from multiagents.orchestrator.engine.start import start
from multiagents.orchestrator.engine.view import Once
from multiagents.state_store.payloads import Payloads, merge
from multiagents.state_store.records import (
    ClaimRefused,
    Delivery,
    Dispatch,
    InFlight,
    Snapshot,
    parse_attempt_key,
)
from multiagents.workflow.decider import (
    Fact,
    failure_of_child,
    is_to_stop,
    is_undone,
    running_children,
    settled_with_child,
)
from multiagents.workflow.definition import Definition, StepDefinition, StepKind, definitions
from multiagents.workflow.state import Cause, Parent, RunState, RunStatus

__all__ = ["Children", "is_done_by_child"]

#: When the sweep looks again at a child whose end somebody died over; it is looked at right away, too.
RESUMED_MS = 5_000


class Children:
    """One look after the children of a run, or after those that wait for its end.

    Args:
        pipeline: starts, settles and advances runs.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._store = pipeline.store
        #: what is left to be done by what was done here
        self.follow_ups: list[FollowUp] = []
        self._interventions = Interventions(pipeline.store, self._decide, pipeline.settings.max_payload_bytes)

    # --- from the parent to its children -----------------------------------------------------------------------------

    def tend(self, parent: Snapshot, steps: Collection[str]) -> None:
        """Do what steps in flight ask of their children: start them, undo them, have them stop; safe to repeat.

        Args:
            parent: the run; one that is some moments old will do.
            steps: those of its steps that are meant; others than children in flight are passed over.
        """
        payloads = Once(partial(self._store.payloads, parent.state.transaction_id))
        begun: list[Correlation] = []
        for step in steps:
            if begun and self._store.status(parent.state.transaction_id) is not parent.state.status:
                parent = self._store.load(parent.state.transaction_id)  # it has turned while others were started
            found = parent.in_flight.get(step)
            if found is None or found.delivery is not Delivery.CHILD:
                continue
            correlation = parent.state.correlation(step, *parse_attempt_key(found.attempt_key))
            if correlation.direction is Direction.UNDO:
                self._undo(parent, correlation)
                continue
            child = self._known(parent, step)
            if child is not None:
                self._look_at(parent, correlation, child, payloads)
            elif is_undone(parent.definition, parent.state, step):
                # As with a message that nobody has claimed: nothing is begun any more in a run that goes back.
                message = f"child run {self._id(parent, step)!r} was not started, as its parent goes back"
                self._fail(correlation, parent.definition.content_hash, ErrorInfo(type="Recalled", message=message))
            else:
                self._start(parent, correlation, payloads)
                begun.append(correlation)
        if begun:
            self._stop_unwanted(parent, begun)

    def _stop_unwanted(self, parent: Snapshot, begun: Collection[Correlation]) -> None:
        """Cancel children that were started while their parent turned back, or went: it does not wait for them."""
        transaction_id = parent.state.transaction_id
        now = self._found(transaction_id)
        for correlation in begun:
            if now is not None and _waits_for(now, correlation):
                continue
            child = self._own(parent, correlation.step)
            if child is None or child.state.status.is_end:
                continue
            if not child.state.cancel_requested and child.state.cause is None:
                self._interventions.cancel(child.state.transaction_id, reason=f"its parent {transaction_id} goes back")

    def resume(self, correlation: Correlation, found: InFlight) -> None:
        """Whoever was to answer for a child has died over it: the attempt is the child's again, and is looked at."""
        again = Dispatch(
            correlation.step, found.attempt_key, Delivery.CHILD, delay_ms=RESUMED_MS, first_ms=found.since_ms
        )
        if self._store.dispatch(correlation.identity, again, found.record):
            self.tend(self._store.load(correlation.transaction_id), [correlation.step])

    def _stop(self, parent: Snapshot) -> None:
        steps = running_children(parent.definition, parent.state)
        if parent.state.status is not RunStatus.TERMINATED:
            self.tend(parent, steps)
            return
        for step in steps:
            self._terminate(parent, step)

    def _known(self, parent: Snapshot, step: str) -> Snapshot | None:
        """The run that has the id of a child."""
        return self._found(self._id(parent, step))

    def _own(self, parent: Snapshot, step: str) -> Snapshot | None:
        """The child itself: another run may have its id, and is told nothing in its place (rule S32)."""
        found = self._known(parent, step)
        told = None if found is None else found.state.parent
        if told is None or not (told.is_run(parent.state) or parent.state.step(step).origin):
            return None
        return found

    def _found(self, transaction_id: str) -> Snapshot | None:
        try:
            return self._store.load(transaction_id)
        except WorkflowNotFoundError:
            return None

    @staticmethod
    def _id(parent: Snapshot, step: str) -> str:
        return child_of(parent, step)

    def _start(
        self,
        parent: Snapshot,
        correlation: Correlation,
        payloads: Callable[[], Payloads],
        policy: OnConflict = OnConflict.RETURN_SAME,
    ) -> None:
        step = parent.definition.own(correlation.step)
        definition = definitions.by_hash(step.workflow.content_hash) or step.workflow
        waits = None if step.detached else _parent(parent, correlation)
        child, given = self._id(parent, correlation.step), payloads().input_of(parent.definition, correlation.step)
        started, follow_ups = start(
            self._pipeline, definition, child, given, policy, parent=waits, home=parent.state.home
        )
        self.follow_ups += [*follow_ups, Progressed(child)]
        if started.workflow != definition.name or started.definition_hash != definition.content_hash:
            self._is_taken(parent, correlation, started.workflow)
        elif step.detached:
            self._succeed(correlation, parent.definition.content_hash, None)

    def _is_taken(self, parent: Snapshot, correlation: Correlation, workflow: str) -> None:
        child = self._id(parent, correlation.step)
        message = (
            f"there is a run {child!r} already, of workflow {workflow!r}, which is not its child; start the parent "
            f"under another transaction_id, or delete that run first"
        )
        self._fail(correlation, parent.definition.content_hash, ErrorInfo(type="ChildFailed", message=message))

    def _look_at(
        self, parent: Snapshot, correlation: Correlation, child: Snapshot, payloads: Callable[[], Payloads]
    ) -> None:
        """A child that is there: it goes on, or is to stop, or is over and was not heard."""
        definition, state = parent.definition, child.state
        if definition.own(correlation.step).detached:
            self._start(parent, correlation, payloads)
        elif state.parent is None or not _is_same_step(state.parent, correlation):
            self._is_taken(parent, correlation, state.workflow)
        elif state.parent.nonce != parent.state.nonce:
            # Its parent had the id of this one, and is gone: what it did is none of this one's.
            if state.status.is_end:
                self._start(parent, correlation, payloads, OnConflict.REPLACE_ENDED)
            else:
                self._is_taken(parent, correlation, state.workflow)
        elif state.status.is_end:
            tried = Correlation.parse(state.parent.correlation_id).attempt
            if state.status is not RunStatus.COMPLETED and tried < correlation.attempt:
                self._start(parent, correlation, payloads, OnConflict.REPLACE_FAILED)
            else:
                self._answer(correlation, definition.content_hash, child)
        elif is_to_stop(parent.definition, parent.state, correlation.step) and not state.cancel_requested:
            self._interventions.cancel(
                state.transaction_id, reason=f"its parent {correlation.transaction_id} goes back"
            )

    def _terminate(self, parent: Snapshot, step: str) -> None:
        child = self._own(parent, step)
        if child is not None and not child.state.status.is_end:
            reason = f"its parent {parent.state.transaction_id} was terminated"
            self._interventions.operate(
                child.state.transaction_id, RunStatus.TERMINATED, reason=reason, nonce=child.state.nonce
            )

    def _undo(self, parent: Snapshot, correlation: Correlation) -> None:
        """Undo a child as a unit, by its own journal (rule S11)."""
        child = self._own(parent, correlation.step)
        if child is None:
            self._no_child_to_undo(parent, correlation)
            return
        state, name = child.state, child.state.transaction_id
        if state.status is RunStatus.COMPLETED:
            try:
                self._interventions.operate(
                    name,
                    RunStatus.COMPENSATING,
                    payload={
                        "cause": Cause.REQUEST.value,
                        "parent": list(_parent(parent, correlation)),
                    },
                    reason=f"its parent {correlation.transaction_id} is undone",
                    error=parent.state.error,
                    nonce=state.nonce,
                )
            except WorkflowError as error:
                refused = ErrorInfo(type="ChildNotUndone", message=f"child run {name!r}: {error}")
                self._fail(correlation, parent.definition.content_hash, refused)
        elif state.status.is_end:
            self._answer(correlation, parent.definition.content_hash, child)
        elif state.cause is None and not state.cancel_requested:
            self._interventions.cancel(name, reason=f"its parent {correlation.transaction_id} is undone")

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
            self._answer(state.parent.correlation, state.parent.definition_hash, run)
        if run.definition.on_end is not None and state.status.is_end:
            self._at_end(run, run.definition.on_end)
        if run.definition.has_children and state.status in (RunStatus.COMPENSATING, RunStatus.TERMINATED):
            self._stop(run)

    def _at_end(self, run: Snapshot, worker: str) -> None:
        """Have the worker that is told of ends told of this one."""
        state, name = run.state, f"{run.definition.name[:120]}.on_end"
        told = Definition(name=name, steps={"on_end": StepDefinition(name="on_end", worker=worker)})
        payloads = self._store.payloads(state.transaction_id)
        given = {
            "transaction_id": state.transaction_id,
            "workflow": state.workflow,
            "version": state.version,
            "status": state.status.value,
            "error": state.error and {"type": state.error.type, "message": state.error.message},
            "context": merge(run.definition, dict(payloads.input), payloads.results, run.definition.graph.order),
        }
        identity = child_id(state.transaction_id, f"on_end:{state.finished_at}", run.generation)
        self.follow_ups += [*start(self._pipeline, told, identity, given, home=state.home)[1], Progressed(identity)]

    def _answer(self, correlation: Correlation, definition_hash: str, child: Snapshot) -> None:
        state, undo = child.state, correlation.direction is Direction.UNDO
        if undo and state.status is RunStatus.COMPLETED:
            return  # It is about to be undone.
        failure = failure_of_child(state, undo=undo, attempt=correlation.attempt)
        if failure is None:
            self._succeed(correlation, definition_hash, None if undo else self._gains(child))
        else:
            self._fail(correlation, definition_hash, *failure)
        if state.status is not RunStatus.COMPLETED:
            self._settle_parent(correlation, state)

    def _settle_parent(self, correlation: Correlation, child: RunState) -> None:
        """What a person has settled of a child settles its parent, too, if that had parked the undo of its step."""
        try:
            parent = self._store.load(correlation.transaction_id)
        except WorkflowNotFoundError:
            return
        step = correlation.step
        verb = settled_with_child(parent.definition, parent.state, step, child)
        if verb is not None:
            payload = {"result": None, "direction": Direction.UNDO.value} if verb == Fact.RESULT_SUPPLIED else None
            reason = f"its child {child.transaction_id} was settled, and is {child.status}"
            self._interventions.operate(
                correlation.transaction_id, verb, step=step, payload=payload, reason=reason, nonce=correlation.nonce
            )

    def _gains(self, child: Snapshot) -> dict[str, Any]:
        """What a child's steps have returned, merged: what it adds to the context of its parent."""
        results = self._store.payloads(child.state.transaction_id).results
        return merge(child.definition, {}, results, child.definition.graph.order)

    def _succeed(self, correlation: Correlation, definition_hash: str, result: Any) -> None:
        self._settle(ResultEvent.about(correlation, result, at=self._store.now()), correlation, definition_hash)

    def _fail(
        self, correlation: Correlation, definition_hash: str, error: ErrorInfo, kind: ErrorKind = ErrorKind.FAILED
    ) -> None:
        event = ErrorEvent.about(correlation, error, at=self._store.now(), kind=kind, retryable=False)
        self._settle(event, correlation, definition_hash)

    def _settle(self, event: ResultEvent | ErrorEvent, correlation: Correlation, definition_hash: str) -> None:
        """Answer as a worker does: by a claim, so that an answer among many needs no look at all of the parent."""
        worker = f"run {correlation.step}"
        try:
            claim = self._store.claim(correlation, definition_hash, owner=uuid4().hex, worker=worker, timeout=None)
        except (ClaimRefused, WorkflowNotFoundError):
            outcome = receive(self._pipeline, event)  # late, or twice: it is put on record
        else:
            outcome = settle(self._pipeline, event, claim)
        self.follow_ups += [*outcome.follow_ups, Progressed(correlation.transaction_id)]

    def _decide(self, transaction_id: str, event: Event | Callable[[Snapshot], Event], /, **how: Any) -> Outcome:
        outcome = advance(self._pipeline, transaction_id, event, **how)
        self.follow_ups += [*outcome.follow_ups, Progressed(transaction_id)]
        return outcome


def is_done_by_child(definition: Definition, correlation: Correlation) -> bool:
    """Whether an attempt is done by a run of its own."""
    step = definition.own(correlation.step)
    if correlation.direction is Direction.UNDO:
        return step.is_undone_as_child
    return step.kind is StepKind.CHILD


def _parent(parent: Snapshot, correlation: Correlation) -> Parent:
    """Who is to hear of the end of a child."""
    return Parent(str(correlation), parent.definition.content_hash, parent.state.nonce)


def _waits_for(parent: Snapshot, correlation: Correlation) -> bool:
    """Whether a run waits for the child that does an attempt, and does not want it to stop."""
    is_out = parent.attempt(correlation) is not None
    return is_out and not is_to_stop(parent.definition, parent.state, correlation.step)


def _is_same_step(parent: Parent, correlation: Correlation) -> bool:
    transaction_id, step, *_ = Correlation.parse(parent.correlation_id)
    return (transaction_id, step) == (correlation.transaction_id, correlation.step)
