"""Decide upon a whole run: load it, decide, commit against its version, and again when somebody else was faster.

This is the way of failures, undos, joins, cancels, timers and foreign results. What a decision sends goes out with its
commit, or right after it; if this process dies in between, the sweep does it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from multiagents.events import ErrorEvent, Event, ResultEvent, StatusEvent
from multiagents.exceptions import (
    StateConflictError,
    WorkflowNotFoundError,
)
from multiagents.failpoints import WriteSite
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.engine.children import has_others_to_tell
from multiagents.orchestrator.engine.code_elsewhere import LeftToOthers
from multiagents.orchestrator.engine.commit_plan import (
    build_commit,
    changed_steps,
    dead_letters_of,
    dead_letters_settled,
    newly_done,
)
from multiagents.orchestrator.engine.optimistic_retry import MAX_RACES, fence, let_others_first
from multiagents.orchestrator.engine.outbox import Sender
from multiagents.orchestrator.engine.probes import as_told
from multiagents.orchestrator.engine.timer_moves import deadline_set, moved_timers
from multiagents.orchestrator.engine.user_code import advance_here, asker
from multiagents.settings import Settings
from multiagents.state_store import StateStore
from multiagents.state_store.payloads import Payloads
from multiagents.state_store.records import Delivery, Dispatch, InFlight, Snapshot, Verdict, attempt_key_of
from multiagents.workflow.decider.decider import SIGNALLED, Ask, advance, evolve, fills_page
from multiagents.workflow.definition import Definition
from multiagents.workflow.state.run_state import ActivityStatus, Cause, RunState, RunStatus

logger = logging.getLogger(__name__)


class Decision(NamedTuple):
    """What became of a decision."""

    verdict: Verdict
    #: Celery signatures that the task is to carry as its links
    links: list[Any]
    #: the run after it, and the facts that led there, if it was applied
    after: RunState
    facts: list[Event]
    #: it has left something to be done: there is more to say, or somebody to tell
    owes: bool = False


class WholeRuns:
    """Decides upon runs from their whole state.

    Args:
        store: where runs live.
        sender: how attempts go out.
        settings: the deployment's settings.
        tell: tells the parent and the children of a run what concerns them; safe to repeat.
    """

    def __init__(self, store: StateStore, sender: Sender, settings: Settings, tell: Callable[[Snapshot], None]) -> None:
        self._store = store
        self._sender = sender
        self._settings = settings
        self._tell = tell
        self._left = LeftToOthers(settings)

    def decide(
        self,
        transaction_id: str,
        event: Event | Callable[[Snapshot], Event] | None,
        *,
        site: WriteSite,
        answers: tuple[str, str] | None = None,
        may_link: bool = False,
        **fences: Any,
    ) -> Decision:
        """Load, decide, commit against the version; again when somebody else was faster.

        An event that depends on how the run stands is made of the snapshot, each time.
        """
        for race in range(MAX_RACES):
            let_others_first(race)
            snapshot = self._store.load(transaction_id)
            said = event(snapshot) if callable(event) else event
            decision = self._decide_once(snapshot, said, site=site, answers=answers, may_link=may_link, fences=fences)
            if decision.verdict is Verdict.CONFLICT:
                continue
            if decision.owes:
                self._make_good(transaction_id)
            return decision
        raise StateConflictError(
            f"run {transaction_id!r} was changed by others {MAX_RACES} times while one decision was made; the sweep "
            f"will make it: nothing is lost"
        )

    def _make_good(self, transaction_id: str) -> None:
        """Do what a commit has left: say more of what is due, tell others; its entry in ``due`` stays until then."""
        try:
            owes, race = True, 0
            while owes:
                let_others_first(race)
                decision = self._decide_once(self._store.load(transaction_id), None, site=WriteSite.ADVANCE)
                lost = decision.verdict is Verdict.CONFLICT
                owes, race = decision.owes or lost, race + 1 if lost else 0
        except Exception:
            logger.warning("run %s is not done with; the sweep will go on", transaction_id, exc_info=True)

    def _decide_once(
        self,
        snapshot: Snapshot,
        event: Event | None,
        *,
        site: WriteSite,
        answers: tuple[str, str] | None = None,
        may_link: bool = False,
        fences: Mapping[str, Any] = MappingProxyType({}),
    ) -> Decision:
        if event is None:
            self._tell(snapshot)
        if site is WriteSite.RECEIVE and isinstance(event, ResultEvent):
            event = as_told(self._store, snapshot, event)
        if isinstance(event, ErrorEvent) and event.retry_policy is None:
            # It may have ended without its worker, whose policy holds all the same.
            attempt = Correlation.parse(event.correlation_id)
            policy = self._sender.dispatcher.retry_policy(
                snapshot.definition, attempt, probe=snapshot.state.is_probe(attempt)
            )
            event = event.model_copy(update={"retry_policy": policy})
        payloads = self._lazily(snapshot)
        ask = self._asker(snapshot, event, payloads)
        now = event.at if event is not None else snapshot.now
        before = snapshot.state
        state = before if event is None else evolve(snapshot.definition, before, event)
        facts: list[Event] = [] if event is None else [event]
        beside = self._beside(snapshot, answers)
        unclaimed = {entry.step for entry in beside if _is_untaken(snapshot.definition, entry)}
        state, said, elsewhere = advance_here(snapshot.definition, state, now=now, ask=ask, unclaimed=unclaimed)
        facts += said
        paged = fills_page(said)
        if elsewhere is not None and not facts:
            raise elsewhere
        # Of what was taken back or abandoned the record goes, so that nobody claims it any more.
        ends = [(entry.step, entry.record) for entry in beside if not _is_awaited(state, entry)]
        if state.status is RunStatus.TERMINATED:
            ends = [(entry.step, entry.record) for entry in snapshot.in_flight.values()]
        moved = moved_timers(snapshot, state, event)
        ends += [(timer.step, snapshot.in_flight[timer.step].record) for timer in moved]
        verdict = self._commit(
            snapshot,
            state,
            facts,
            site=site,
            fences={"answers": answers, "ends": ends, **fences},
            moved=moved,
            payloads=payloads,
            may_link=may_link,
            owed=elsewhere is not None,  # What is recorded is recorded; the rest is decided where the code is.
            paged=paged,
        )
        links: list[Any] = []
        if verdict is Verdict.APPLIED and may_link:
            links = self._sender.links(snapshot.definition, facts)
        owes = verdict is Verdict.APPLIED and (paged or self._tells(snapshot, state))
        return Decision(verdict, links, state, facts, owes)

    @staticmethod
    def _tells(snapshot: Snapshot, after: RunState) -> bool:
        return has_others_to_tell(snapshot.definition.expanded(after.sizes, after.rollbacks), snapshot.state, after)

    def _asker(self, snapshot: Snapshot, event: Event | None, payloads: Callable[[], Payloads]) -> Ask:
        return asker(
            snapshot.definition,
            lambda definition, step: self._context(payloads(), definition, event, step),
            data_of=lambda key: _data_of(key, event, payloads),
            results=lambda: _results(payloads(), snapshot, event),
            waits_too_long=lambda step: self._left.too_long(snapshot, step),
        )

    def came_late(self, event: ResultEvent | ErrorEvent, generation: int | None = None) -> None:
        """A duplicate, or too late: it is recorded, and a late success may call for another undo (rules S5, S23).

        Args:
            event: the outcome.
            generation: of the run that it belongs to, where that is known: another run may have its id by now. None: a
                foreign producer published it.
        """
        for _ in range(MAX_RACES):
            try:
                snapshot = self._store.load(event.transaction_id)
            except WorkflowNotFoundError:
                self.bury(event, "the state store does not know this run")
                return
            if generation is not None and generation != snapshot.generation:
                self.bury(event, "the run has been replaced by a new one since")
                return
            correlation = Correlation.parse(event.correlation_id)
            known = snapshot.state.step(correlation.step).activity(correlation.direction).attempt
            if correlation.step not in snapshot.definition.steps or correlation.attempt > known:
                self.bury(event, "the run has not made this attempt")
                return
            attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
            found = snapshot.in_flight.get(correlation.step)
            if found is not None and found.attempt_key == attempt_key:
                # A server that forgot its last writes sent it out again: the outcome that comes first counts.
                answers = (correlation.step, f"{attempt_key}|")
                decision = self.decide(event.transaction_id, event, site=WriteSite.LATE, answers=answers)
                if decision.verdict is Verdict.APPLIED:
                    return
                continue
            if generation is None:
                event = as_told(self._store, snapshot, event)
            before = snapshot.state
            after = evolve(snapshot.definition, before, event)
            # Of a late success the result is kept, too: the undo gets it (rules S2 and S4).
            keeps = after is not before and after.step(correlation.step).do.status is not ActivityStatus.SUCCEEDED
            facts: list[Event] = [event if keeps else event.model_copy(update={"payload": None})]
            payloads = self._lazily(snapshot)
            superseded = snapshot.definition.superseded
            paged = False
            if after is not before and (after.status is not RunStatus.RUNNING or correlation.step in superseded):
                ask = self._asker(snapshot, event, payloads)
                after, said = advance(snapshot.definition, after, now=event.at, ask=ask)
                facts += said
                paged = fills_page(said)
            # A decision that is owed (a join's) is not made here, so its entry has to stay.
            verdict = self._commit(
                snapshot,
                after,
                facts,
                site=WriteSite.LATE,
                fences={},
                payloads=payloads,
                decided=False,
                paged=paged,
            )
            if verdict is Verdict.APPLIED:
                if paged or self._tells(snapshot, after):
                    self._make_good(event.transaction_id)
                logger.info("event %s came late or twice; it is recorded", event.correlation_id)
                return

    def bury(self, event: ResultEvent | ErrorEvent, why: str) -> None:
        """Keep an event that no run can take in, with its payload."""
        letter = {"why": why, "event": event.model_dump(mode="json", exclude_none=True)}
        self._store.bury(event.transaction_id, event.correlation_id or event.id, letter)
        logger.warning("%s: %s; its event is kept in the dead letters", event.correlation_id, why)

    def _commit(
        self,
        snapshot: Snapshot,
        after: RunState,
        facts: list[Event],
        *,
        site: WriteSite,
        fences: dict[str, Any],
        payloads: Callable[[], Payloads],
        moved: Sequence[Dispatch] = (),
        may_link: bool = False,
        owed: bool = False,
        paged: bool = False,
        decided: bool = True,
    ) -> Verdict:
        definition, before = snapshot.definition.expanded(after.sizes, after.rollbacks), snapshot.state
        left = owed or paged or self._tells(snapshot, after)
        dispatches = [*self._sender.dispatches(definition, after, facts, may_link=may_link), *moved]
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
            retention=self._settings.retention,
            stored_results=self._stored(definition, before, after, payloads),
            stored_context=payloads().context if after.rollbacks is not before.rollbacks else None,
            stop=(turned and not after.back_to and self._stops_siblings(definition, after))
            or _asked_to_stop(before, after),
            **fence(snapshot, after, facts, paged=paged),
            decided=decided and not left,
            landed=left,
            deadline_ms=deadline_set(before, after, snapshot.now),
            wake=self._sender.dispatcher.wake(after.transaction_id) if owed else None,
            overtakes=_overtakes(snapshot, after, fences.get("answers")),
            answered=dead_letters_settled(before, after),
            dead_letters=dead_letters_of(definition, before, after, payloads, snapshot.generation),
            **fences,
        )
        verdict = self._store.commit(commit).verdict
        if verdict is Verdict.APPLIED:
            if owed and not self._sender.dispatcher.atomic:
                self._sender.wake(after.transaction_id)
            self._sender.publish(definition, after, dispatches)
        return verdict

    def _lazily(self, snapshot: Snapshot) -> Callable[[], Payloads]:
        return _Lazy(lambda: self._store.payloads(snapshot.state.transaction_id))

    @staticmethod
    def _beside(snapshot: Snapshot, answered: tuple[str, str] | None) -> list[InFlight]:
        """The attempts to do a step that are in flight beside the one that is answered."""
        known = snapshot.in_flight.items()
        return [e for name, e in known if e.direction is Direction.DO and (answered is None or name != answered[0])]

    def _stored(
        self, definition: Definition, before: RunState, after: RunState, payloads: Callable[[], Payloads]
    ) -> dict[str, Any]:
        """Earlier results, if branches meet here: in a finished trunk step, or in the end of the run."""
        if after.rollbacks is not before.rollbacks:
            return payloads().results
        met = before.status is not after.status is RunStatus.COMPLETED and len(definition.exits) > 1
        if met or any(
            definition.is_trunk(name) and definition.parts(name)
            for name in newly_done(before, changed_steps(before, after))
        ):
            return payloads().results
        return {}

    @staticmethod
    def _context(payloads: Payloads, definition: Definition, event: Event | None, step: str) -> dict[str, Any]:
        results = _with_own(payloads.results, event)
        known = Payloads(payloads.input, payloads.context, results, payloads.inputs)
        return known.of(definition, step)

    @staticmethod
    def _stops_siblings(definition: Definition, state: RunState) -> bool:
        """Whether steps in flight are asked to stop: on cancel, and where the block of the failed step says so (S7)."""
        if state.cause is not Cause.FAILURE:
            return True
        over = (name for name, step in state.steps.items() if step.do.is_over and name not in definition.superseded)
        return any(definition.steps[name].cancel_siblings for name in over)


def _with_own(results: dict[str, Any], event: Event | None) -> dict[str, Any]:
    """Results with that of the event that has just come."""
    if isinstance(event, ResultEvent) and event.step and event.direction is Direction.DO:
        return {**results, event.step: event.payload}
    return results


def _results(payloads: Payloads, snapshot: Snapshot, event: Event | None) -> dict[str, Any]:
    """Step -> result, of the steps that have succeeded; ``{}`` of one that had nothing to tell."""
    done = [name for name, step in snapshot.state.steps.items() if step.do.status is ActivityStatus.SUCCEEDED]
    return _with_own({**{name: {} for name in done}, **payloads.results}, event)


class _Lazy:
    """Load once, and only if somebody asks."""

    def __init__(self, load: Callable[[], Payloads]) -> None:
        self._load = load
        self._value: Payloads | None = None

    def __call__(self) -> Payloads:
        if self._value is None:
            self._value = self._load()
        return self._value


def _is_untaken(definition: Definition, entry: InFlight) -> bool:
    """Whether nobody does the attempt yet, so that it can be taken back; nobody ever does a wait."""
    return (
        entry.delivery not in (Delivery.CLAIMED, Delivery.EXTERNAL, Delivery.CHILD)
        or definition.steps[entry.step].awaits_signal
    )


def _is_awaited(state: RunState, entry: InFlight) -> bool:
    """Whether the step still waits for this very attempt to do it, and not for its probe by now."""
    activity = state.step(entry.step).do
    return activity.in_flight and activity.attempt == entry.attempt


def _data_of(key: str, event: Event | None, payloads: Callable[[], Payloads]) -> Any:
    """A signal's data: it has just come, or is kept."""
    if isinstance(event, StatusEvent) and event.status == SIGNALLED and event.payload["key"] == key:
        return event.payload["data"]
    return payloads().signals.get(key)


def _overtakes(snapshot: Snapshot, after: RunState, answers: tuple[str, str] | None) -> bool:
    """Whether a step changes that a worker has claimed: what it knows of the step from its claim is out of date."""
    claimed = {name for name, found in snapshot.in_flight.items() if found.delivery is Delivery.CLAIMED}
    return not claimed.isdisjoint(changed_steps(snapshot.state, after).keys() - {answers and answers[0]})


def _asked_to_stop(before: RunState, after: RunState) -> bool:
    return (after.cancel_requested and not before.cancel_requested) or after.status is RunStatus.TERMINATED
