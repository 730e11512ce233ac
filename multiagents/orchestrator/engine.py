"""What happens when an event arrives: load, decide, commit, dispatch.

Two ways lead to the same commit:

- *In place*: the worker that has just finished a step holds, from its claim, all that deciding the next step needs. One
  script commits the result and sends the next message. Nothing is loaded.
- *Whole*: failures, undos, joins, cancels, timers and foreign results load the whole run, decide, and commit against its
  version; whoever loses a race loads again.

Whatever in-place deciding cannot settle (a join, a change of direction) falls through to the whole.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from multiagents.events import CommandEvent, CompensationEvent, ErrorEvent, Event, ResultEvent, StatusEvent
from multiagents.exceptions import (
    DecodeError,
    StateConflictError,
    StateStoreError,
    UnknownStepError,
    WorkflowNotFoundError,
)
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.answers import CodeElsewhereError, asker
from multiagents.orchestrator.dispatcher import Dispatcher, plan_dispatches
from multiagents.orchestrator.planner import build_commit, changed_steps, digest, newly_done
from multiagents.settings import Settings
from multiagents.sites import WriteSite, write
from multiagents.state_store.base import (
    Claim,
    Dispatch,
    InFlight,
    Payloads,
    Snapshot,
    Started,
    StateStore,
    Verdict,
    Via,
    as_mapping,
    mark_of,
)
from multiagents.workflow.decider import (
    CANCEL_REQUESTED,
    advance,
    decide,
    evolve,
    start_event,
)
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import Cause, Progress, RunState, RunStatus

logger = logging.getLogger(__name__)

#: How often a decision is made anew because others committed meanwhile, before it is left to the sweep.
MAX_RACES = 100
#: Seconds for which the outcome of a step is held while the store is away (at least: ten leases, if that is longer).
OUTAGE = 300.0


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

    # --- starting ----------------------------------------------------------------------------------------------------

    def start(self, definition: Definition, transaction_id: str, input: dict[str, Any]) -> Started:
        """Create a run and send its first steps, in one script."""
        now = self.store.now()
        begun = start_event(definition, transaction_id, now=now, max_lost=self.settings.max_lost)
        before = RunState(transaction_id, workflow="")
        state = evolve(definition, before, begun)
        ask = asker(lambda _step: dict(input), definition.input_of)
        facts: list[Event] = [begun]
        owed = False
        try:
            after, said = advance(definition, state, now=now, ask=ask, near=definition.entries)
            facts += said
        except CodeElsewhereError:
            after, owed = state, True
        dispatches = self._dispatches(definition, after, facts)
        commit = build_commit(
            definition,
            before,
            after,
            facts,
            dispatches,
            site=WriteSite.START,
            retention=self.settings.retention,
            landed=owed,
            wake=self.dispatcher.wake(transaction_id) if owed else None,
        )
        started = self.store.start(
            definition,
            after,
            commit,
            input,
            digest(input),
        )
        if started.created:
            self._publish(definition, transaction_id, dispatches)
            if owed and not self.dispatcher.atomic:
                self._wake(transaction_id)
        return started

    # --- the outcome of an attempt -----------------------------------------------------------------------------------

    def settle(self, event: ResultEvent | ErrorEvent, claim: Claim) -> list[Any]:
        """Commit what came of a claimed attempt, and send what follows; called in the process that ran it.

        Returns:
            Celery signatures that the task is to carry as its links: the next undo, if there is just one.
        """
        return self._outlasting(lambda: self._settle(event, claim))

    def _outlasting(self, action: Callable[[], list[Any]]) -> list[Any]:
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

    def _settle(self, event: ResultEvent | ErrorEvent, claim: Claim) -> list[Any]:
        event = event.model_copy(update={"timestamp": self.store.now()})
        correlation = claim.correlation
        answers = (
            correlation.step,
            f"{mark_of(correlation.direction, correlation.attempt)}|{Via.CLAIMED.value}|{claim.owner}|",
        )
        if self.settings.orchestration == "queued":
            return self._land(event, claim, answers)
        if correlation.direction is Direction.DO and self._settle_in_place(event, claim, answers):
            return []
        return self._settle_whole(event, answers, may_link=isinstance(event, ResultEvent))

    def _settle_in_place(self, event: ResultEvent | ErrorEvent, claim: Claim, answers: tuple[str, str]) -> bool:
        definition, before = claim.definition, claim.state
        if before.status is not RunStatus.RUNNING:
            return False
        context = claim.merged
        if isinstance(event, ResultEvent):
            context = {**claim.merged, **as_mapping(claim.correlation.step, event.payload)}
        try:
            ask = asker(lambda _step: context, definition.input_of)
            after, said = decide(definition, before, event, ask)
        except CodeElsewhereError:
            return False
        if after is before or after.status not in (RunStatus.RUNNING, RunStatus.COMPLETED):
            return False
        facts = [event, *said]
        dispatches = self._dispatches(definition, after, said)
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
        )
        verdict, joined = self.store.commit(commit)
        if verdict is Verdict.CONFLICT:
            return False
        if verdict is not Verdict.APPLIED:
            self._came_late(event)
            # If it is our own commit that came twice, the first answer is lost, and with it whether a join is complete.
            self.advance(after.transaction_id)
            return True
        self._publish(definition, after.transaction_id, dispatches)
        if joined:
            self.advance(after.transaction_id)
        return True

    def _land(self, event: ResultEvent | ErrorEvent, claim: Claim, answers: tuple[str, str]) -> list[Any]:
        """Queued mode: record the fact, and let the orchestrator task decide."""
        transaction_id, undo = claim.correlation.transaction_id, claim.correlation.direction is Direction.UNDO
        linked = undo and isinstance(event, ResultEvent)
        wake = None if linked else self.dispatcher.wake(transaction_id)
        after = evolve(claim.definition, claim.state, event)
        commit = build_commit(
            claim.definition,
            claim.state,
            after,
            [event],
            (),
            site=WriteSite.LAND_UNDO if undo else WriteSite.LAND,
            letters=self._letters(claim.definition, claim.state, after, None),
            retention=self.settings.retention,
            stored_results=claim.parts,
            answers=answers,
            epoch=claim.epoch,
            landed=True,
            wake=wake,
        )
        verdict, _ = self.store.commit(commit)
        if verdict is Verdict.CONFLICT:
            return self._settle_whole(event, answers, may_link=False)
        if verdict is not Verdict.APPLIED:
            self._came_late(event)
            return []
        if linked:
            return [self.dispatcher.wake_link(transaction_id)]
        if wake is None:
            self._wake(transaction_id)
        return []

    def _settle_whole(
        self,
        event: ResultEvent | ErrorEvent,
        answers: tuple[str, str],
        *,
        site: WriteSite | None = None,
        may_link: bool = False,
    ) -> list[Any]:
        if site is None:
            site = WriteSite.SETTLE_UNDO if event.direction is Direction.UNDO else WriteSite.SETTLE_WHOLE
        try:
            verdict, links = self._decide_whole(
                event.transaction_id, event, site=site, answers=answers, may_link=may_link
            )
        except (WorkflowNotFoundError, UnknownStepError) as error:
            self._bury(event, str(error))
            return []
        if verdict in (Verdict.LATE, Verdict.MISSING):
            self._came_late(event)
        return links

    def receive(self, event: ResultEvent | ErrorEvent) -> None:
        """Take in the outcome that a foreign producer published; it answers whatever attempt it names.

        An outcome of a run or an attempt that the store does not know, or that names none, goes to the dead letters
        with its payload.
        """
        try:
            correlation = Correlation.parse(event.correlation_id)
        except DecodeError as error:
            self._bury(event, str(error))
            return
        update = {
            "transaction_id": correlation.transaction_id,
            "step": correlation.step,
            "attempt": correlation.attempt,
            "timestamp": self.store.now(),
        }
        if event.transaction_id != correlation.transaction_id:
            self._bury(
                event,
                f"an event of run {event.transaction_id!r} carries the correlation id {event.correlation_id!r} of "
                f"another run; send back the id that came with the command",
            )
            return
        mark = mark_of(correlation.direction, correlation.attempt)
        answers = (correlation.step, f"{mark}|")
        self._settle_whole(event.model_copy(update=update), answers, site=WriteSite.RECEIVE)

    def give_up(self, event: ErrorEvent, record: str, *, unrenewed: int | None = None) -> None:
        """Record that an attempt was lost, timed out or never taken, unless its record has changed since."""
        stamped = event.model_copy(update={"timestamp": self.store.now()})
        correlation = Correlation.parse(event.correlation_id)
        verdict, _ = self._decide_whole(
            event.transaction_id,
            stamped,
            site=WriteSite.GIVE_UP_UNDO if correlation.direction is Direction.UNDO else WriteSite.GIVE_UP,
            answers=(correlation.step, record),
            unrenewed=unrenewed,
        )
        if verdict is not Verdict.APPLIED:
            logger.debug("attempt %s was not given up: %s", event.correlation_id, verdict)

    def not_registered(self, correlation: Correlation) -> None:
        """A worker took the message of an attempt and does not know its task: send it again after a pause.

        The pause grows with the time the attempt has waited; the sweep gives it up after ``schedule_to_start``.
        """
        found = self.store.load(correlation.transaction_id).in_flight.get(correlation.step)
        mark = mark_of(correlation.direction, correlation.attempt)
        if found is None or found.mark != mark or found.via in (Via.CLAIMED, Via.EXTERNAL, Via.TIMER):
            return
        waited = round(self.store.now().timestamp() * 1000) - found.first_ms
        again = Dispatch(
            correlation.step,
            mark,
            Via.UNREGISTERED,
            target=found.target,
            delay_ms=min(max(waited, 500), round(self.settings.lease * 1000)),
            first_ms=found.first_ms,
            close_ms=found.close_ms,
        )
        self.store.dispatch(correlation.transaction_id, again, found.record)

    def _came_late(self, event: ResultEvent | ErrorEvent) -> None:
        """A duplicate, or too late: it is recorded, and a late success may call for another undo (rules S5, S23)."""
        for _ in range(MAX_RACES):
            try:
                snapshot = self.store.load(event.transaction_id)
            except WorkflowNotFoundError:
                self._bury(event, "the state store does not know this run")
                return
            correlation = Correlation.parse(event.correlation_id)
            known = snapshot.state.step(correlation.step).track(correlation.direction).attempt
            if correlation.step not in snapshot.definition.steps or correlation.attempt > known:
                self._bury(event, "the run has not made this attempt")
                return
            mark = mark_of(correlation.direction, correlation.attempt)
            found = snapshot.in_flight.get(correlation.step)
            if found is not None and found.mark == mark:
                # A server that forgot its last writes sent this attempt out again: the outcome that comes first counts.
                answers = (correlation.step, f"{mark}|")
                verdict, _ = self._decide_whole(event.transaction_id, event, site=WriteSite.LATE, answers=answers)
                if verdict is Verdict.APPLIED:
                    return
                continue
            before = snapshot.state
            after = evolve(snapshot.definition, before, event)
            # Of a late success the result is kept, too: the undo gets it (rules S2 and S4).
            keeps = after is not before and after.step(correlation.step).do.progress is not Progress.SUCCEEDED
            facts: list[Event] = [event if keeps else event.model_copy(update={"payload": None})]
            if after is not before and after.status is not RunStatus.RUNNING:
                after, said = advance(snapshot.definition, after, now=event.at)
                facts += said
            # A decision that is owed (a join's) is not made here, so its entry has to stay.
            verdict = self._commit_whole(snapshot, after, facts, site=WriteSite.LATE, fences={}, decided=False)
            if verdict is Verdict.APPLIED:
                logger.info("event %s came late or twice; it is recorded and changes no progress", event.correlation_id)
                return

    def _bury(self, event: ResultEvent | ErrorEvent, why: str) -> None:
        letter = {"why": why, "event": event.model_dump(mode="json", exclude_none=True)}
        self.store.bury(event.transaction_id, event.correlation_id or event.id, letter)
        logger.warning("%s: %s; its event is kept in the dead letters", event.correlation_id, why)

    # --- the whole run -----------------------------------------------------------------------------------------------

    def advance(self, transaction_id: str) -> None:
        """Send whatever is due for a run; harmless when nothing is."""
        try:
            self._decide_whole(transaction_id, None, site=WriteSite.ADVANCE)
        except CodeElsewhereError as error:
            self._leave_to_others(transaction_id, error)

    def advance_linked(self, transaction_id: str) -> list[Any]:
        """Do as `advance` in a Celery task, which may carry a single next undo as its link."""
        try:
            return self._decide_whole(transaction_id, None, site=WriteSite.ADVANCE, may_link=True)[1]
        except CodeElsewhereError as error:
            self._leave_to_others(transaction_id, error)
            return []

    def _leave_to_others(self, transaction_id: str, error: CodeElsewhereError) -> None:
        """This process lacks the code that deciding takes: the sweep of one that has it will come upon the run."""
        logger.info("run %s waits for a process that has the code of its step %s", transaction_id, error.step)
        self.store.postpone(f"r|{transaction_id}", transaction_id, round(self.settings.lease * 1000 / 6))

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
        self._decide_whole(transaction_id, event, site=WriteSite.CANCEL)
        return self.store.load(transaction_id).state.status

    def _decide_whole(
        self,
        transaction_id: str,
        event: Event | None,
        *,
        site: WriteSite,
        answers: tuple[str, str] | None = None,
        may_link: bool = False,
        unrenewed: int | None = None,
    ) -> tuple[Verdict, list[Any]]:
        """Load, decide, commit against the version; again when somebody else was faster."""
        for _ in range(MAX_RACES):
            snapshot = self.store.load(transaction_id)
            if isinstance(event, ErrorEvent) and event.retry_policy is None:
                # It may have ended without its worker, whose policy holds all the same.
                policy = self.dispatcher.retry_policy(snapshot.definition, Correlation.parse(event.correlation_id))
                event = event.model_copy(update={"retry_policy": policy})
            payloads = _Lazy(lambda: self.store.payloads(transaction_id))
            ask = asker(
                lambda step: self._context(payloads(), snapshot, event, step),
                snapshot.definition.input_of,
                waits_too_long=lambda step: self._waits_too_long(snapshot, step),
            )
            now = event.at if event is not None else snapshot.now
            before = snapshot.state
            state = before if event is None else evolve(snapshot.definition, before, event)
            facts: list[Event] = [] if event is None else [event]
            beside = self._beside(snapshot, answers)
            unclaimed = {entry.step for entry in beside if entry.via not in (Via.CLAIMED, Via.EXTERNAL)}
            owed = False
            try:
                state, said = advance(snapshot.definition, state, now=now, ask=ask, unclaimed=unclaimed)
                facts += said
            except CodeElsewhereError:
                if event is None:
                    raise
                owed = True  # The fact is recorded here; what follows from it is decided where the code is.
            # Of what was taken back or abandoned the record goes, so that nobody claims it any more.
            ends = [(entry.step, entry.record) for entry in beside if not state.step(entry.step).do.in_flight]
            verdict = self._commit_whole(
                snapshot,
                state,
                facts,
                site=site,
                fences={"answers": answers, "ends": ends, "unrenewed": unrenewed},
                payloads=payloads,
                may_link=may_link,
                owed=owed,
            )
            if verdict is Verdict.CONFLICT:
                continue
            links: list[Any] = []
            if verdict is Verdict.APPLIED and may_link:
                links = self._links(snapshot.definition, facts)
            return verdict, links
        raise StateConflictError(
            f"run {transaction_id!r} was changed by others {MAX_RACES} times while one decision was made; the sweep will "
            f"make it: nothing is lost"
        )

    def _waits_too_long(self, snapshot: Snapshot, step: str) -> bool:
        """Whether a step has been due, with no process there that has its code, for as long as it may wait."""
        definition, state = snapshot.definition.steps[step], snapshot.state
        since = [state.step(before).do.finished_at for before in definition.after] or [state.started_at]
        limit = definition.schedule_to_start or self.settings.schedule_to_start
        now = round(snapshot.now.timestamp() * 1000)
        return all(at is not None and now - at >= limit * 1000 for at in since)

    @staticmethod
    def _beside(snapshot: Snapshot, answered: tuple[str, str] | None) -> list[InFlight]:
        """The attempts to do a step that are in flight beside the one that is answered."""
        known = snapshot.in_flight.items()
        return [e for name, e in known if e.direction is Direction.DO and (answered is None or name != answered[0])]

    def _commit_whole(
        self,
        snapshot: Snapshot,
        after: RunState,
        facts: list[Event],
        *,
        site: WriteSite,
        fences: dict[str, Any],
        payloads: Callable[[], Payloads] | None = None,
        may_link: bool = False,
        owed: bool = False,
        decided: bool = True,
    ) -> Verdict:
        definition, before = snapshot.definition, snapshot.state
        dispatches = self._dispatches(definition, after, facts, may_link=may_link)
        if site is WriteSite.ADVANCE and before.status is RunStatus.COMPENSATING:
            site = WriteSite.ADVANCE_UNDO
        turned = before.status is not RunStatus.COMPENSATING and after.status is RunStatus.COMPENSATING
        commit = build_commit(
            definition,
            before,
            after,
            facts,
            dispatches,
            site=site,
            retention=self.settings.retention,
            stored_results=self._stored(definition, before, after, payloads),
            stop=(turned and self._stops_siblings(definition, after)) or _asked_to_stop(before, after),
            version=snapshot.version,
            decided=decided and not owed,
            landed=owed,
            wake=self.dispatcher.wake(after.transaction_id) if owed else None,
            overtakes=_overtakes(snapshot, after, fences.get("answers")),
            letters=self._letters(definition, before, after, payloads),
            **fences,
        )
        verdict = self.store.commit(commit).verdict
        if verdict is Verdict.APPLIED:
            if owed and not self.dispatcher.atomic:
                self._wake(after.transaction_id)
            self._publish(definition, after.transaction_id, dispatches)
        return verdict

    def _stored(
        self, definition: Definition, before: RunState, after: RunState, payloads: Callable[[], Payloads] | None
    ) -> dict[str, Any]:
        """Earlier results, if branches meet here: in a finished trunk step, or in the end of the run."""
        met = before.status is not after.status is RunStatus.COMPLETED and len(definition.exits) > 1
        if met or any(definition.is_trunk(name) and definition.parts(name) for name in newly_done(before, after)):
            return (payloads or (lambda: self.store.payloads(after.transaction_id)))().results
        return {}

    @staticmethod
    def _context(payloads: Payloads, snapshot: Snapshot, event: Event | None, step: str) -> dict[str, Any]:
        results = payloads.results
        if isinstance(event, ResultEvent) and event.step and event.direction is Direction.DO:
            results = {**results, event.step: event.payload}
        known = Payloads(payloads.input, payloads.context, results, payloads.inputs)
        return known.of(snapshot.definition, step)

    @staticmethod
    def _stops_siblings(definition: Definition, state: RunState) -> bool:
        """Whether steps in flight are asked to stop: on cancel, and where the block of the failed step says so (S7)."""
        if state.cause is not Cause.FAILURE:
            return True
        return any(definition.steps[name].cancel_siblings for name, step in state.steps.items() if step.do.is_over)

    def _letters(
        self, definition: Definition, before: RunState, after: RunState, payloads: Callable[[], Payloads] | None
    ) -> dict[str, Any]:
        """Rule S17: an undo that is over without success goes to the dead letters, with what it takes to act on it."""
        letters: dict[str, Any] = {}
        for name, step in after.steps.items():
            if not step.undo.is_over or before.step(name).undo.is_over:
                continue
            data = (payloads or (lambda: self.store.payloads(after.transaction_id)))()
            correlation = Correlation(after.transaction_id, name, Direction.UNDO, step.undo.attempt)
            letters[str(correlation)] = {
                "why": "the undo is over without success",
                "step": name,
                "compensation": definition.steps[name].compensation,
                "input": data.inputs.get(name, data.of(definition, name)),
                "result": data.results.get(name),
                "idempotency_key": f"{after.transaction_id}/{name}",
                "error": step.undo.error.model_dump(mode="json") if step.undo.error else None,
                "original_error": after.error.model_dump(mode="json") if after.error else None,
            }
        return letters

    # --- sending -----------------------------------------------------------------------------------------------------

    def _dispatches(
        self, definition: Definition, state: RunState, facts: Iterable[Event], *, may_link: bool = False
    ) -> list[Dispatch]:
        commands = [event for event in facts if isinstance(event, CommandEvent | CompensationEvent)]
        if not commands:
            return []
        return plan_dispatches(
            self.dispatcher,
            definition,
            state,
            commands,
            now=commands[0].at,
            default_timeout=self.settings.step_timeout,
            may_link=may_link,
        )

    def _links(self, definition: Definition, facts: Iterable[Event]) -> list[Any]:
        undos = [event for event in facts if isinstance(event, CompensationEvent)]
        if len(undos) != 1 or undos[0].delay:
            return []
        return [self.dispatcher.link(definition, Correlation.parse(undos[0].correlation_id))]

    def _wake(self, transaction_id: str) -> None:
        write(WriteSite.WAKE, lambda: self.dispatcher.send_wake(transaction_id))

    def _publish(self, definition: Definition, transaction_id: str, dispatches: Iterable[Dispatch]) -> None:
        """What the commit could not push itself goes out now; if this process dies first, the sweep does it."""
        for dispatch in dispatches:
            if dispatch.via is Via.OUTBOX:
                correlation = _correlation(transaction_id, dispatch)
                try:
                    publish = partial(self.dispatcher.publish, definition, correlation, dispatch.target)
                    write(WriteSite.PUBLISH, publish)
                except Exception:
                    logger.warning("%s was not published; the sweep will publish it", correlation, exc_info=True)


class _Lazy:
    """Load once, and only if somebody asks."""

    def __init__(self, load: Callable[[], Payloads]) -> None:
        self._load = load
        self._value: Payloads | None = None

    def __call__(self) -> Payloads:
        if self._value is None:
            self._value = self._load()
        return self._value


def _correlation(transaction_id: str, dispatch: Dispatch) -> Correlation:
    direction = Direction.UNDO if dispatch.mark[0] == "u" else Direction.DO
    return Correlation(transaction_id, dispatch.step, direction, int(dispatch.mark[1:]))


def _overtakes(snapshot: Snapshot, after: RunState, answers: tuple[str, str] | None) -> bool:
    """Whether a step changes that a worker has claimed: what it knows of the step from its claim is out of date."""
    claimed = {name for name, found in snapshot.in_flight.items() if found.via is Via.CLAIMED}
    return not claimed.isdisjoint(changed_steps(snapshot.state, after).keys() - {answers and answers[0]})


def _asked_to_stop(before: RunState, after: RunState) -> bool:
    return after.cancel_requested and not before.cancel_requested
