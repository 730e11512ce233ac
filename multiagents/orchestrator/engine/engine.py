"""What happens when an event arrives: load, decide, commit, dispatch.

Two ways lead to the same commit:

- *In place*: the worker that has just finished a step holds, from its claim, all that deciding the next step needs. One
  script commits the result and sends the next message. Nothing is loaded.
- *Whole* (`whole.py`): failures, undos, joins, cancels, timers and foreign results load the whole run, decide, and
  commit against its version; whoever loses a race loads again.

Whatever in-place deciding cannot settle (a join, a change of direction) falls through to the whole.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from multiagents.clock import to_ms
from multiagents.events import ErrorEvent, ResultEvent
from multiagents.exceptions import (
    DecodeError,
    StateStoreError,
    UnknownStepError,
    WorkflowError,
    WorkflowNotFoundError,
)
from multiagents.failpoints import WriteSite
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.dispatch.base import Dispatcher
from multiagents.orchestrator.engine.advance import WholeRuns
from multiagents.orchestrator.engine.children import Children, has_others_to_tell
from multiagents.orchestrator.engine.commit_plan import build_commit, digest
from multiagents.orchestrator.engine.conflict_policy import OnConflict
from multiagents.orchestrator.engine.fork import Fork, beginning
from multiagents.orchestrator.engine.interventions import Requests
from multiagents.orchestrator.engine.local_steps import local_step
from multiagents.orchestrator.engine.locks import Locks
from multiagents.orchestrator.engine.outbox import Sender
from multiagents.orchestrator.engine.record import landing, lands
from multiagents.orchestrator.engine.unregistered import offered_later
from multiagents.orchestrator.engine.user_code import CodeElsewhereError, advance_here, asker
from multiagents.orchestrator.engine.version_check import Versions
from multiagents.settings import Settings
from multiagents.state_store import StateStore
from multiagents.state_store.payloads import as_mapping
from multiagents.state_store.records import (
    Claim,
    Delivery,
    DueKind,
    Settled,
    Started,
    Verdict,
    attempt_key_of,
    encode_attributes,
    record_prefix,
)
from multiagents.workflow.decider.decider import (
    decide,
    fills_page,
    start_event,
)
from multiagents.workflow.definition import Definition, map_of
from multiagents.workflow.state.run_state import Parent, RunState, RunStatus

logger = logging.getLogger(__name__)

#: Seconds for which the outcome of a step is held while the store is away (at least: ten leases, if that is longer).
OUTAGE = 300.0
#: A run that a process cannot decide is due again, for others, after this part of a lease.
LEFT_FOR = 6


class Engine(Requests):
    """Advances runs. One for each process; it holds no state of any run.

    Args:
        store: where runs live.
        dispatcher: how attempts go out.
        settings: the deployment's settings.
    """

    def __init__(self, store: StateStore, dispatcher: Dispatcher, settings: Settings) -> None:
        self._sender = Sender(dispatcher, settings)
        self.children = Children(self)
        self._sender.children = self.children.sent_out
        super().__init__(store, WholeRuns(store, self._sender, settings, self.children.tell))
        self._versions = Versions(store)
        self.dispatcher = dispatcher
        self.settings = settings
        self.locks = Locks(store, self._sender, self.wake)

    # --- starting ----------------------------------------------------------------------------------------------------

    def start(
        self,
        definition: Definition,
        transaction_id: str,
        input: dict[str, Any],
        on_conflict: OnConflict = OnConflict.RETURN_SAME,
        attributes: Mapping[str, str] | None = None,
        parent: Parent | None = None,
        fork: Fork | None = None,
    ) -> Started:
        """Create a run and send its first steps, in one script."""
        now = self.store.now()
        begun = start_event(definition, transaction_id, now=now, max_lost=self.settings.max_lost, parent=parent)
        before = RunState(transaction_id, workflow="")
        state, facts, ask = beginning(definition, before, begun, input, fork)
        near = definition.entries if fork is None else None
        after, said, elsewhere = advance_here(definition, state, now=now, ask=ask, near=near)
        facts += said
        owed = elsewhere is not None or fills_page(said)
        expanded = definition.expanded(after.sizes)
        tells = has_others_to_tell(expanded, state, after)
        dispatches = self._sender.dispatches(expanded, after, facts, first=parent is None)
        commit = build_commit(
            expanded,
            before,
            after,
            facts,
            dispatches,
            site=WriteSite.START if fork is None else WriteSite.FORK,
            stored_results=None if fork is None else fork.results,
            deadline_ms=None if definition.deadline is None else max(1, round(definition.deadline * 1000)),
            retention=self.settings.retention,
            landed=owed or tells,
            wake=self.dispatcher.wake(transaction_id, first=parent is None) if owed else None,
            attributes=attributes,
        )
        started = self.store.start(
            definition,
            after,
            commit,
            input,
            digest(input) if fork is None else fork.digest,
            call="" if on_conflict.gives_existing else uuid4().hex,
            replaces=on_conflict.replaces,
        )
        if started.created:
            self._versions.look_at(started, definition, transaction_id)
            self._sender.publish(expanded, after, dispatches, first=parent is None)
            if owed and not self.dispatcher.atomic:
                self._sender.wake(transaction_id, first=parent is None)
            if tells:
                self.advance(transaction_id)
        return started

    # --- the outcome of an attempt -----------------------------------------------------------------------------------

    def settle(self, event: ResultEvent | ErrorEvent, claim: Claim, *, may_go_on: bool = False) -> Settled:
        """Commit what came of a claimed attempt, and send what follows; called in the process that ran it.

        Args:
            event: the outcome.
            claim: the attempt.
            may_go_on: a local step that follows is held for this process, which is to run it now.

        Returns:
            what is left to the caller: links for its task (the next undo, if there is just one), or a local step.
        """
        return self._outlasting(lambda: self._settle(event, claim, may_go_on=may_go_on))

    def _outlasting(self, action: Callable[[], Settled]) -> Settled:
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

    def _settle(self, event: ResultEvent | ErrorEvent, claim: Claim, *, may_go_on: bool) -> Settled:
        if event.timestamp is None:
            event = event.model_copy(update={"timestamp": self.store.now()})
        correlation = claim.correlation
        answers = (
            correlation.step,
            record_prefix(attempt_key_of(correlation.direction, correlation.attempt), Delivery.CLAIMED, claim.owner),
        )
        # Of an item no user code follows; and to decide upon each from the whole run would cost the square of them.
        queued = self.settings.orchestration == "queued"
        if queued and map_of(correlation.step) is None:
            return Settled(self._land(event, claim, answers, queued=True))
        if correlation.direction is Direction.DO:
            settled = self._settle_in_place(event, claim, answers, may_go_on=may_go_on)
            if settled is not None:
                return settled
        if queued or lands(claim):
            return Settled(self._land(event, claim, answers, queued=queued))
        may_link = isinstance(event, ResultEvent)
        return Settled(self._settle_whole(event, answers, may_link=may_link, generation=claim.generation))

    def _settle_in_place(
        self, event: ResultEvent | ErrorEvent, claim: Claim, answers: tuple[str, str], *, may_go_on: bool
    ) -> Settled | None:
        definition, before = claim.definition, claim.state
        if before.status is not RunStatus.RUNNING or claim.signals_wait:
            return None

        def context(_definition: Definition, _step: str) -> dict[str, Any]:
            own = as_mapping(claim.correlation.step, event.payload) if isinstance(event, ResultEvent) else {}
            return {**claim.merged, **own}

        try:
            ask = asker(definition, context)
            after, said = decide(definition, before, event, ask)
        except CodeElsewhereError:
            return None
        goes_on = after.status in (RunStatus.RUNNING, RunStatus.COMPLETED) and after.rollbacks == before.rollbacks
        # What is left of an undone pass may have to be undone before the end: that takes the whole run to know.
        unsure = bool(definition.superseded) and after.status is RunStatus.COMPLETED
        if after is before or not goes_on or unsure or fills_page(said):
            return None
        tells = has_others_to_tell(definition, before, after)
        facts = [event, *said]
        local = None
        if may_go_on:
            local = local_step(definition, after, said, event, claim, self.dispatcher, self.settings)
        dispatches = [local.dispatch] if local else self._sender.dispatches(definition, after, said)
        commit = build_commit(
            definition,
            before,
            after,
            facts,
            dispatches,
            site=WriteSite.SETTLE,
            retention=self.settings.retention,
            stored_results=claim.parts,
            answers=answers,
            epoch=claim.epoch,
            landed=tells,
        )
        verdict, joined = self.store.commit(commit)
        if verdict is Verdict.CONFLICT:
            return None
        if verdict is not Verdict.APPLIED:
            self._whole.came_late(event, claim.generation)
            # If it is our own commit that came twice, the first answer is lost, and with it whether a join is complete.
            self.advance(after.transaction_id)
            return Settled()
        self._sender.publish(definition, after, dispatches)
        if joined and self.settings.orchestration == "queued":
            self._sender.wake(after.transaction_id)
        elif joined or tells:
            self.advance(after.transaction_id)
        return Settled(local=local.claim if local else None)

    def _land(
        self, event: ResultEvent | ErrorEvent, claim: Claim, answers: tuple[str, str], *, queued: bool
    ) -> list[Any]:
        """Record the fact; then the first that lands decides, or in queued mode has the orchestrator task decide."""
        transaction_id, undo = claim.correlation.transaction_id, claim.correlation.direction is Direction.UNDO
        linked = queued and undo and isinstance(event, ResultEvent)
        wake = self.dispatcher.wake(transaction_id) if queued and not linked else None
        verdict, first = self.store.commit(landing(self.store, self.settings, event, claim, answers, wake))
        if verdict is Verdict.CONFLICT:
            return self._settle_whole(event, answers, may_link=False, generation=claim.generation)
        if verdict is not Verdict.APPLIED:
            self._whole.came_late(event, claim.generation)
        elif first and not queued:
            self.advance(transaction_id)
        elif first and linked:
            return [self.dispatcher.wake_link(transaction_id)]
        elif first and wake is None:
            self._sender.wake(transaction_id)
        return []

    def _settle_whole(
        self,
        event: ResultEvent | ErrorEvent,
        answers: tuple[str, str],
        *,
        site: WriteSite | None = None,
        may_link: bool = False,
        generation: int | None = None,
    ) -> list[Any]:
        if site is None:
            site = WriteSite.SETTLE_UNDO if event.direction is Direction.UNDO else WriteSite.SETTLE_WHOLE
        try:
            verdict, links, *_ = self._whole.decide(
                event.transaction_id, event, site=site, answers=answers, may_link=may_link
            )
        except (WorkflowNotFoundError, UnknownStepError, DecodeError) as error:
            self._whole.bury(event, str(error))
            return []
        if verdict in (Verdict.LATE, Verdict.MISSING):
            self._whole.came_late(event, generation)
        return links

    def receive(self, event: ResultEvent | ErrorEvent) -> None:
        """Take in the outcome that a foreign producer published; it answers whatever attempt it names.

        An outcome of a run or an attempt that the store does not know, or that names none, goes to the dead letters
        with its payload.
        """
        try:
            correlation = Correlation.parse(event.correlation_id)
            encode_attributes(event.attributes)
        except (DecodeError, WorkflowError) as error:
            self._whole.bury(event, str(error))
            return
        update = {
            "transaction_id": correlation.transaction_id,
            "step": correlation.step,
            "attempt": correlation.attempt,
            "timestamp": self.store.now(),
        }
        if event.transaction_id != correlation.transaction_id:
            self._whole.bury(
                event,
                f"an event of run {event.transaction_id!r} carries the correlation id {event.correlation_id!r} of "
                f"another run; send back the id that came with the command",
            )
            return
        attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
        answers = (correlation.step, f"{attempt_key}|")
        self._settle_whole(event.model_copy(update=update), answers, site=WriteSite.RECEIVE)

    def give_up(self, event: ErrorEvent, record: str, *, unrenewed: int | None = None) -> bool:
        """Record that an attempt was lost, timed out or never taken, unless its record has changed since.

        Returns:
            whether it was recorded.
        """
        stamped = event.model_copy(update={"timestamp": self.store.now()})
        correlation = Correlation.parse(event.correlation_id)
        verdict, *_ = self._whole.decide(
            event.transaction_id,
            stamped,
            site=WriteSite.GIVE_UP_UNDO if correlation.direction is Direction.UNDO else WriteSite.GIVE_UP,
            answers=(correlation.step, record),
            unrenewed=unrenewed,
        )
        if verdict is not Verdict.APPLIED:
            logger.debug("attempt %s was not given up: %s", event.correlation_id, verdict)
        return verdict is Verdict.APPLIED

    def not_registered(self, correlation: Correlation) -> None:
        """A worker took the message of an attempt and does not know its task: send it again after a pause.

        The sweep gives it up once that has gone on for ``schedule_to_start``.
        """
        found = self.store.load(correlation.transaction_id).in_flight.get(correlation.step)
        attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
        if (
            found is None
            or found.attempt_key != attempt_key
            or found.delivery
            in (Delivery.CLAIMED, Delivery.EXTERNAL, Delivery.TIMER, Delivery.SLEEP, Delivery.CHILD, Delivery.LOCK)
        ):
            return
        now_ms, longest_ms = to_ms(self.store.now()), self.settings.lease * 1000 / LEFT_FOR
        later = offered_later(found, correlation, now_ms=now_ms, longest_ms=longest_ms)
        self.store.dispatch(correlation.transaction_id, later, found.record)

    def advance(self, transaction_id: str) -> bool:
        """Send whatever is due for a run; harmless when nothing is.

        Returns:
            False when this process lacks the code that deciding takes, and has left the run to others.
        """
        try:
            self._whole.decide(transaction_id, None, site=WriteSite.ADVANCE)
        except CodeElsewhereError as error:
            self._leave_to_others(transaction_id, error)
            return False
        return True

    def carry_on(self, transaction_id: str) -> None:
        """Somebody has settled an attempt of a run from outside: where runs are driven in process, drive it."""

    def advance_linked(self, transaction_id: str) -> list[Any]:
        """Do as `advance` in a Celery task, which may carry a single next undo as its link."""
        try:
            return self._whole.decide(transaction_id, None, site=WriteSite.ADVANCE, may_link=True).links
        except CodeElsewhereError as error:
            self._leave_to_others(transaction_id, error)
            return []

    def _leave_to_others(self, transaction_id: str, error: CodeElsewhereError) -> None:
        """This process lacks the code that deciding takes: the sweep of one that has it will come upon the run."""
        logger.info("run %s waits for a process that has the code of its step %s", transaction_id, error.step)
        self.store.postpone(
            DueKind.DECISION.entry(transaction_id), transaction_id, round(self.settings.lease * 1000 / LEFT_FOR)
        )
