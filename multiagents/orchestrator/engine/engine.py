"""The engine: what happens when an event arrives, and one loop that sees to all that follows from it.

Begin with `multiagents.orchestrator.engine.pipeline`: the steps that every decision goes through. `start`, `settle` and
`advance` are the three ways into it: a run that begins, what came of a claimed attempt, and everything else.

Each gives back *follow-ups*: what concerns other runs, and what did not fit into the commit. They are carried out here,
one after the other, so that a chain of runs of any length needs the stack of one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from multiagents.events import ErrorEvent, Event, ResultEvent
from multiagents.exceptions import (
    StateConflictError,
    StateStoreError,
    WorkflowAlreadyExistsError,
    WorkflowNotFoundError,
)
from multiagents.names import Correlation
from multiagents.orchestrator.dispatch import Dispatcher
from multiagents.orchestrator.engine import attempts
from multiagents.orchestrator.engine.advance import advance, came_late
from multiagents.orchestrator.engine.children import Children
from multiagents.orchestrator.engine.follow_ups import Advance, AskForLock, FollowUp, Progressed, TendChildren
from multiagents.orchestrator.engine.fork import plan_fork
from multiagents.orchestrator.engine.interventions import Interventions
from multiagents.orchestrator.engine.locks import Locks
from multiagents.orchestrator.engine.pipeline import Outcome, Pipeline
from multiagents.orchestrator.engine.settle import settle
from multiagents.orchestrator.engine.start import start
from multiagents.settings import Settings
from multiagents.state_store import StateStore
from multiagents.state_store.records import Claim, InFlight, Settled, Snapshot, Started, Verdict
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunStatus

logger = logging.getLogger(__name__)

#: Seconds for which the outcome of a step is kept while the store is away (at least: ten leases, if that is longer).
OUTAGE = 300.0
#: A run that compensates or is over may have word for its children, its parent, or who is told of ends.
HAS_WORD = frozenset(status for status in RunStatus if status.is_end or status is RunStatus.COMPENSATING)


class Engine:
    """Advances runs. One for each process; it holds no state of any run.

    Args:
        store: where runs live.
        dispatcher: how attempts go out.
        settings: the deployment's settings.
    """

    def __init__(self, store: StateStore, dispatcher: Dispatcher, settings: Settings) -> None:
        self.store = store
        self.dispatcher = dispatcher
        self.settings = settings
        self.pipeline = Pipeline.of(store, dispatcher, settings)
        self.locks = Locks(self.pipeline)
        self.interventions = Interventions(store, self._decide, settings.max_payload_bytes)

    # --- runs --------------------------------------------------------------------------------------------------------

    def start(self, definition: Definition, transaction_id: str, input: dict[str, Any], **how: Any) -> Started:
        """Create a run and send its first steps, in one script; the arguments are those of `start.start`."""
        started, follow_ups = start(self.pipeline, definition, transaction_id, input, **how)
        self._carry_out(follow_ups)
        return started

    def fork(
        self, transaction_id: str, from_step: str, input: Mapping[str, Any] | None, identity: str, **words: Any
    ) -> None:
        """Start a run that begins where another one was; safe to repeat with the same ``identity``.

        Raises:
            WorkflowAlreadyExistsError: when there is another run with this ``identity``.
            WorkflowError: and its kinds, as `multiagents.orchestrator.engine.fork.plan_fork`.
        """
        fork = plan_fork(self.store, transaction_id, from_step, input, self.settings.max_payload_bytes, **words)
        definition, attributes = fork.definition, fork.of.attributes
        started = self.start(definition, identity, fork.input, attributes=attributes, fork=fork)
        if (started.definition_hash, started.input_digest) != (definition.content_hash, fork.digest):
            raise WorkflowAlreadyExistsError(identity, "origin, step or input")

    def advance(self, transaction_id: str, nonce: str | None = None) -> bool:
        """Send whatever is due for a run; harmless when nothing is.

        Args:
            transaction_id: the run.
            nonce: which of those that have had its id; None for whichever has it.

        Returns:
            False when this process lacks the code that deciding takes, and has left the run to others.

        Raises:
            WorkflowNotFoundError: when there is no such run.
        """
        return self._advance(transaction_id, nonce=nonce).elsewhere is None

    def advance_linked(self, transaction_id: str) -> Sequence[Any]:
        """Do as `advance` in a Celery task, which may carry a single next undo as its link."""
        return self._advance(transaction_id, may_link=True).links

    def _advance(self, transaction_id: str, *, may_link: bool = False, nonce: str | None = None) -> Outcome:
        outcome = self._told(transaction_id, may_link=may_link, nonce=nonce)
        self._carry_out(outcome.follow_ups)
        return outcome

    def _told(self, transaction_id: str, *, may_link: bool, nonce: str | None = None) -> Outcome:
        """Tell others what concerns them of a run, then say what is due of it."""
        snapshot = self.store.load(transaction_id)
        if nonce is not None and snapshot.state.nonce != nonce:
            raise WorkflowNotFoundError(transaction_id)
        word: Sequence[FollowUp] = ()
        if snapshot.state.status in HAS_WORD:
            children = Children(self.pipeline)
            children.tell(snapshot)
            word = children.follow_ups
        outcome = advance(self.pipeline, transaction_id, snapshot=snapshot, may_link=may_link)
        return outcome._replace(follow_ups=[*word, *outcome.follow_ups]) if word else outcome

    def _decide(self, transaction_id: str, event: Event | Callable[[Snapshot], Event], /, **how: Any) -> Outcome:
        outcome = advance(self.pipeline, transaction_id, event, **how)
        self._carry_out(outcome.follow_ups)
        return outcome

    # --- attempts ----------------------------------------------------------------------------------------------------

    def settle(self, event: ResultEvent | ErrorEvent, claim: Claim, *, may_go_on: bool = False) -> Settled:
        """Commit what came of a claimed attempt, and send what follows; called in the process that ran it.

        Args:
            event: the outcome.
            claim: the attempt.
            may_go_on: a local step that follows is held for this process, which is to run it now.

        Returns:
            what is left to the caller: links for its task (the next undo, if there is just one), or a local step.
        """
        outcome = self._outlasting(partial(settle, self.pipeline, event, claim, may_go_on=may_go_on))
        links = self._carry_out(outcome.follow_ups) if outcome.follow_ups else ()
        return Settled(outcome.links or links, outcome.held)

    def _outlasting(self, action: Callable[[], Outcome]) -> Outcome:
        """Wait for a store that is away: the step has run, and its outcome is only here."""
        give_up = time.monotonic() + max(OUTAGE, 10 * self.settings.lease)
        pause = 0.1
        while True:
            try:
                return action()
            except StateStoreError as error:
                if time.monotonic() > give_up:
                    raise
                logger.warning("the outcome of a step waits for the state store: %s", error)
                time.sleep(pause)
                pause = min(2.0, pause * 2)

    def receive(self, event: ResultEvent | ErrorEvent) -> None:
        """Take in the outcome that a foreign producer published; it answers whatever attempt it names."""
        self._carry_out(attempts.receive(self.pipeline, event).follow_ups)

    def came_late(self, event: ResultEvent | ErrorEvent) -> None:
        """Take in an outcome that its attempt is too late for: it may call for another undo (rule S5)."""
        self._carry_out(came_late(self.pipeline, event).follow_ups)

    def give_up(self, event: ErrorEvent, record: str, *, unrenewed: int | None = None) -> bool:
        """Record that an attempt was lost, timed out or never taken, unless its record has changed since.

        Returns:
            whether it was recorded.
        """
        outcome = attempts.give_up(self.pipeline, event, record, unrenewed=unrenewed)
        self._carry_out(outcome.follow_ups)
        return outcome.verdict is Verdict.APPLIED

    def complete(self, correlation: Correlation, record: str) -> None:
        """A step that no worker does is done: the time of a sleep has come, a wait goes on without its signal."""
        self._carry_out(attempts.complete(self.pipeline, correlation, record).follow_ups)

    def revoked(self, correlation: Correlation, *, terminated: bool) -> None:
        """Record that Celery was told not to run an attempt, or to stop it."""
        self._carry_out(attempts.revoked(self.pipeline, correlation, terminated=terminated).follow_ups)

    def unclaimable(self, event: ErrorEvent, owner: str) -> None:
        """End an attempt whose claim came to an error."""
        self._carry_out(attempts.unclaimable(self.pipeline, event, owner).follow_ups)

    def not_registered(self, correlation: Correlation) -> None:
        """A worker took the message of an attempt and does not know its task: send it again after a pause."""
        attempts.not_registered(self.pipeline, correlation)

    # --- what runs wait for ------------------------------------------------------------------------------------------

    def ask_for_lock(self, snapshot: Snapshot, found: InFlight) -> int | None:
        """Ask for the lock that a step waits for.

        Returns:
            None when the run has it, else in how many ms to ask again.
        """
        pause, follow_ups = self.locks.ask(snapshot, found)
        self._carry_out(follow_ups)
        return pause

    def tend_children(self, parent: Snapshot, steps: Sequence[str]) -> None:
        """Do what steps in flight ask of their children; safe to repeat."""
        children = Children(self.pipeline)
        children.tend(parent, steps)
        self._carry_out(children.follow_ups)

    def resume_child(self, correlation: Correlation, found: InFlight) -> None:
        """Whoever was to answer for a child has died over it: the child says so again."""
        children = Children(self.pipeline)
        children.resume(correlation, found)
        self._carry_out(children.follow_ups)

    # --- what follows ------------------------------------------------------------------------------------------------

    def _carry_out(self, follow_ups: Sequence[FollowUp]) -> Sequence[Any]:
        """Do what commits have left, and what that leaves in turn; what fails here, the sweep does.

        Returns:
            what the task in which this is done is to carry as its links.
        """
        links: Sequence[Any] = ()
        waiting = list(reversed(follow_ups))
        while waiting:
            following = waiting.pop()
            try:
                more, found = self._follow_up(following)
            except WorkflowNotFoundError:
                continue  # It was over, and has been forgotten.
            except StateConflictError as error:
                logger.info("%s is left to the sweep: %s", following, error)
                continue
            except Exception:
                logger.warning("%s was not done; the sweep will do it", following, exc_info=True)
                continue
            links = links or found
            waiting += reversed(more)
        return links

    def _follow_up(self, following: FollowUp) -> tuple[Sequence[FollowUp], Sequence[Any]]:
        match following:
            case Advance(transaction_id, may_link):
                outcome = self._told(transaction_id, may_link=may_link)
                return outcome.follow_ups, outcome.links
            case TendChildren(transaction_id, steps):
                children = Children(self.pipeline)
                children.tend(self.store.load(transaction_id), steps)
                return children.follow_ups, ()
            case AskForLock(transaction_id, step):
                return self.locks.ask_for(transaction_id, step), ()
            case Progressed():
                return (), ()
