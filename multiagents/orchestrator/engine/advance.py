"""Decide upon a whole run: load it, decide, commit against its version; again when somebody else was faster.

Recovery is no other way: whatever became of the process that was to decide, ``advance(load())`` says what is due. The
same goes for events that come with no claim: what people and timers say, attempts that are given up, foreign results.
They are decided upon together with what else is due.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from multiagents.events import CommandEvent, ErrorEvent, Event, ResultEvent
from multiagents.exceptions import (
    DecodeError,
    StateConflictError,
    UnknownStepError,
    WorkflowError,
    WorkflowNotFoundError,
)
from multiagents.failpoints import WriteSite
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.engine.commit_plan import changed_header
from multiagents.orchestrator.engine.dead_letters import keep
from multiagents.orchestrator.engine.follow_ups import Advance
from multiagents.orchestrator.engine.foreign_results import as_reported
from multiagents.orchestrator.engine.pipeline import Decided, Outcome, Pipeline
from multiagents.orchestrator.engine.timers import deadline_set, moved_timers
from multiagents.orchestrator.engine.user_code import Answers
from multiagents.orchestrator.engine.view import SnapshotView
from multiagents.plain_json import digest
from multiagents.state_store.records import Delivery, DueKind, InFlight, Snapshot, Verdict, any_record
from multiagents.workflow.decider import changed_steps, concerns_others, evolve, why_late
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import ActivityStatus, RunState, RunStatus

__all__ = ["advance", "bury", "came_late", "fence", "let_others_first", "take_in"]

logger = logging.getLogger(__name__)

#: How often a decision is made anew because others committed meanwhile, before it is left to the sweep.
MAX_RACES = 100
#: How often that is done without a pause, and the longest pause after that, in seconds.
RACES_AT_ONCE = 3
LONGEST_PAUSE = 0.2
#: A run that a process cannot decide is due again, for others, after this part of a lease.
LEFT_FOR = 6


def let_others_first(race: int) -> None:
    """Pause before a decision that was lost to others some times: while hundreds commit there is nothing to win.

    Args:
        race: how often it was lost.
    """
    if race > RACES_AT_ONCE:
        time.sleep(min(LONGEST_PAUSE, 0.005 * 2 ** (race - RACES_AT_ONCE)))


def advance(
    pipeline: Pipeline,
    transaction_id: str,
    event: Event | Callable[[Snapshot], Event] | None = None,
    *,
    snapshot: Snapshot | None = None,
    **how: Any,
) -> Outcome:
    """Take an event in, if there is one, and say whatever is due of a run; harmless when nothing is.

    Args:
        pipeline: decides and commits.
        transaction_id: the run.
        event: what has come; one that depends on how the run stands is made of the snapshot, each time.
        snapshot: the run as it was loaded just now.
        how: further arguments of `_once`.

    Raises:
        WorkflowNotFoundError: when there is no such run.
        StateConflictError: when others were always faster; the sweep will make the decision.
    """
    for race in range(MAX_RACES):
        let_others_first(race)
        known = pipeline.store.load(transaction_id) if snapshot is None else snapshot
        outcome = _once(pipeline, known, event(known) if callable(event) else event, **how)
        if outcome.verdict not in (Verdict.CONFLICT, Verdict.MISSING):
            return outcome
        snapshot = None  # it has moved on; or it is gone, and another run may have its id
    raise StateConflictError(
        f"run {transaction_id!r} was changed by others {MAX_RACES} times while one decision was made; the sweep "
        f"will make it: nothing is lost"
    )


def _once(
    pipeline: Pipeline,
    snapshot: Snapshot,
    event: Event | None,
    *,
    site: WriteSite = WriteSite.ADVANCE,
    answers: tuple[str, str] | None = None,
    may_link: bool = False,
    **fences: Any,
) -> Outcome:
    """Decide once, and commit against the version.

    Args:
        pipeline: decides and commits.
        snapshot: the run.
        event: what has come.
        site: where it is decided.
        answers: the record of the attempt that the event answers.
        may_link: the task in which this is done may carry a single next undo as its link.
        fences: what else the commit is refused for.
    """
    view, before = pipeline.of_snapshot(snapshot), snapshot.state
    if isinstance(event, ErrorEvent) and event.retry_policy is None:
        event = _with_policy(pipeline, snapshot, event)
    state = before if event is None else evolve(snapshot.definition, before, event)
    beside = _beside(snapshot, answers)
    decided = pipeline.decide(
        view,
        state,
        () if event is None else (event,),
        Answers(
            view,
            event,
            pipeline.settings.max_payload_bytes,
            lambda step: pipeline.elsewhere.too_long(snapshot, step),
            redact=pipeline.store.policy.redact,
        ),
        snapshot.now if event is None else event.at,
        unclaimed={entry.step for entry in beside if _is_unclaimed(snapshot.definition, entry)},
        begun={entry.step for entry in beside if snapshot.begun and snapshot.is_begun(entry)},
    )
    if decided.elsewhere is not None and not decided.events:
        pipeline.elsewhere.tell(snapshot.definition, before.transaction_id, decided.elsewhere)
        return _leave_to_others(pipeline, before, decided.elsewhere)
    moved = moved_timers(snapshot, decided.after, event)
    dispatches = [
        *pipeline.outbox.dispatches(decided.definition, decided.after, decided.events, may_link=may_link),
        *moved,
    ]
    if site is WriteSite.ADVANCE and before.status is RunStatus.COMPENSATING:
        site = WriteSite.ADVANCE_UNDO
    committed = pipeline.commit(
        view,
        decided,
        dispatches,
        site=site,
        decides=True,
        answers=answers,
        ends=[
            *_ended(snapshot, decided.after, beside),
            *((timer.step, snapshot.in_flight[timer.step].record) for timer in moved),
        ],
        supersedes=_supersedes(snapshot, decided.after, answers),
        deadline_ms=deadline_set(before, decided.after, snapshot.now),
        **fence(snapshot, decided),
        **fences,
    )
    if committed.verdict is not Verdict.APPLIED:
        return Outcome(committed.verdict, before)
    follow_ups = pipeline.publish(decided, dispatches)
    links = pipeline.outbox.links(snapshot.definition, decided.events, before.home) if may_link else ()
    return Outcome(Verdict.APPLIED, decided.after, decided.events, links, follow_ups)


def _with_policy(pipeline: Pipeline, snapshot: Snapshot, event: ErrorEvent) -> ErrorEvent:
    """An attempt may have ended without its worker, whose policy holds all the same."""
    attempt = Correlation.parse(event.correlation_id)
    if attempt.step not in snapshot.definition.steps:
        return event  # `evolve` refuses it by its name
    probe = snapshot.state.is_probe(attempt)
    policy = pipeline.dispatcher.retry_policy(snapshot.definition, attempt, probe=probe)
    return event.model_copy(update={"retry_policy": policy})


def _leave_to_others(pipeline: Pipeline, run: RunState, step: str) -> Outcome:
    """This process lacks the code that deciding takes: the sweep of one that has it will come upon the run."""
    logger.info("run %s waits for a process that has the code of its step %s", run.transaction_id, step)
    pause = round(pipeline.settings.lease * 1000 / LEFT_FOR)
    pipeline.store.postpone(DueKind.DECISION.entry(run.identity), run.transaction_id, pause)
    return Outcome(Verdict.APPLIED, run, elsewhere=step)


# --- what a decision over a whole run is refused for, and what it ends
# ---------------------------------------------------


def fence(snapshot: Snapshot, decided: Decided) -> dict[str, Any]:
    """What a decision is refused for: that anything was committed since the run was loaded.

    A page that does nothing but send out first attempts is right whatever else was committed, as long as the run has
    not turned and nobody else has sent these out. So it need not wait until the thousands before it are done.
    """
    events, before = decided.events, snapshot.state
    first = [event.step for event in events if isinstance(event, CommandEvent) and event.attempt == 1 and event.step]
    plain = len(first) == len(events) and before.status is RunStatus.RUNNING
    plain = plain and decided.pending and not any(step in before.steps for step in first)
    if plain and not changed_header(before, decided.after):
        return {"epoch": snapshot.epoch, "fresh": first}
    return {"version": snapshot.version}


def _beside(snapshot: Snapshot, answered: tuple[str, str] | None) -> list[InFlight]:
    """The attempts to do a step that are in flight beside the one that is answered."""
    known = snapshot.in_flight.items()
    return [e for name, e in known if e.direction is Direction.DO and (answered is None or name != answered[0])]


def _is_unclaimed(definition: Definition, entry: InFlight) -> bool:
    """Whether nobody does the attempt yet, so that it can be revoked; nobody ever does a wait."""
    taken = entry.delivery in (Delivery.CLAIMED, Delivery.EXTERNAL, Delivery.CHILD)
    return not taken or definition.steps[entry.step].awaits_signal


def _ended(snapshot: Snapshot, after: RunState, beside: Sequence[InFlight]) -> list[tuple[str, str]]:
    """The records that go, so that nobody claims their attempts any more: of what was revoked or abandoned."""
    if after.status is RunStatus.TERMINATED:
        return [(entry.step, entry.record) for entry in snapshot.in_flight.values()]
    return [(entry.step, entry.record) for entry in beside if not _is_awaited(after, entry)]


def _is_awaited(state: RunState, entry: InFlight) -> bool:
    """Whether the step still waits for this very attempt to do it, and not for its probe by now."""
    activity = state.step(entry.step).do
    return activity.in_flight and activity.attempt == entry.attempt


def _supersedes(snapshot: Snapshot, after: RunState, answers: tuple[str, str] | None) -> bool:
    """Whether a step changes that a worker has claimed: what it knows of the step from its claim is out of date."""
    claimed = {name for name, found in snapshot.in_flight.items() if found.delivery is Delivery.CLAIMED}
    return not claimed.isdisjoint(changed_steps(snapshot.state, after).keys() - {answers and answers[0]})


# --- outcomes that no claim stands behind
# --------------------------------------------------------------------------------


def take_in(
    pipeline: Pipeline,
    event: ResultEvent | ErrorEvent,
    answers: tuple[str, str],
    *,
    foreign: bool = False,
    **how: Any,
) -> Outcome:
    """Decide upon an outcome from the whole run; one that nobody waits for (any more) is put on record.

    Args:
        pipeline: decides and commits.
        event: the outcome.
        answers: the step, and what the record of the attempt has to start with.
        foreign: a foreign producer published it.
        how: further arguments of `advance`.
    """
    try:
        reported = partial(_reported, pipeline, event, foreign=foreign)
        outcome = advance(pipeline, event.transaction_id, reported, answers=answers, **how)
        if outcome.verdict is Verdict.LATE:
            return came_late(pipeline, event, foreign=foreign)
    except (WorkflowNotFoundError, UnknownStepError, DecodeError, _AnotherRunError) as error:
        return bury(pipeline, event, str(error))
    return outcome


class _AnotherRunError(WorkflowError):
    """An outcome is not, or cannot be known to be, of the run that has its id."""


def _reported(pipeline: Pipeline, event: ResultEvent | ErrorEvent, snapshot: Snapshot, *, foreign: bool) -> Event:
    if (why := _why_another(snapshot, event)) is not None:
        raise _AnotherRunError(why)
    return as_reported(pipeline.store, snapshot, event, pipeline.settings.max_payload_bytes) if foreign else event


def _why_another(snapshot: Snapshot, event: ResultEvent | ErrorEvent) -> str | None:
    """Why an outcome does not count for the run that has its id now (rule S32); None if it does."""
    if event.nonce is not None:
        return None if event.nonce == snapshot.state.nonce else "the run has been replaced by a new one since"
    found = snapshot.attempt(_of_this_run(snapshot, event))
    if found is None or found.delivery is not Delivery.CLAIMED:
        return None
    return (
        f"a worker ({found.worker}) holds this attempt, and the event does not say of which run it is: send back the "
        f"nonce that came with the command, or say external=True of a step that is always done elsewhere"
    )


def _of_this_run(snapshot: Snapshot, event: ResultEvent | ErrorEvent) -> Correlation:
    """The attempt that an outcome names, taken as one of the run that has its id now."""
    return Correlation.parse(event.correlation_id)._replace(nonce=snapshot.state.nonce)


def came_late(pipeline: Pipeline, event: ResultEvent | ErrorEvent, *, foreign: bool = False) -> Outcome:
    """A duplicate, or too late: it is recorded, and a late success may call for another undo (rules S5, S23).

    Args:
        pipeline: decides and commits.
        event: the outcome.
        foreign: a foreign producer published it.
    """
    correlation = Correlation.parse(event.correlation_id)
    for _ in range(MAX_RACES):
        try:
            snapshot = pipeline.store.load(event.transaction_id)
        except WorkflowNotFoundError:
            return bury(pipeline, event, "the state store does not know this run")
        if (why := _why_another(snapshot, event)) is not None:
            return bury(pipeline, event, why)
        known = snapshot.state.step(correlation.step).activity(correlation.direction).attempt
        if correlation.step not in snapshot.definition.steps or correlation.attempt > known:
            return bury(pipeline, event, "the run has not made this attempt")
        if (found := snapshot.attempt(_of_this_run(snapshot, event))) is not None:
            # A server that forgot its last writes sent it out again: the outcome that comes first counts.
            answers = (correlation.step, any_record(found.attempt_key))
            reported = partial(_reported, pipeline, event, foreign=foreign)
            try:
                outcome = advance(pipeline, event.transaction_id, reported, site=WriteSite.LATE, answers=answers)
            except (WorkflowNotFoundError, _AnotherRunError) as error:
                return bury(pipeline, event, str(error))
        else:
            outcome = _record_late(pipeline, pipeline.of_snapshot(snapshot), event, foreign=foreign)
        if outcome.verdict is Verdict.APPLIED:
            return outcome
    return Outcome(Verdict.CONFLICT, snapshot.state)


def _record_late(pipeline: Pipeline, view: SnapshotView, event: ResultEvent | ErrorEvent, *, foreign: bool) -> Outcome:
    if foreign:
        event = as_reported(pipeline.store, view.snapshot, event, pipeline.settings.max_payload_bytes)
    step, before = event.step or "", view.state
    after = evolve(view.definition, before, event)
    changes = after is not before
    # Of a late success the result is kept, too: the undo gets it (rules S2 and S4).
    keeps = changes and before.step(step).do.status is not ActivityStatus.SUCCEEDED
    told: dict[str, Any] = {"late": why_late(before, event)}
    if isinstance(event, ResultEvent) and _is_known(view, event):
        told |= {"payload": None, "digest": digest(event.payload)}
    kept = event.model_copy(update=told)
    # In a run that goes forward it calls for nothing, unless the step was undone with its pass.
    pending = changes and (after.status is not RunStatus.RUNNING or step in view.definition.superseded)
    tells = concerns_others(view.definition, before, after)
    decided = Decided(view.definition, after, (kept,), pending=pending, concerns_others=tells)
    # A decision that is pending already is not made here, so its entry has to stay.
    snapshot, supersedes = view.snapshot, _supersedes(view.snapshot, after, None)
    committed = pipeline.commit(
        view,
        decided,
        (),
        site=WriteSite.LATE,
        version=snapshot.version,
        supersedes=supersedes,
        keeps_results=keeps,
    )
    if committed.verdict is Verdict.APPLIED:
        logger.info("event %s came late or twice; it is recorded", event.correlation_id)
    follow_ups = [Advance(after.transaction_id)] if pending else []
    return Outcome(committed.verdict, after, (kept,), follow_ups=follow_ups)


def _is_known(view: SnapshotView, event: ResultEvent) -> bool:
    """Whether a result says again what counts already: its payload is with the run's data."""
    activity = view.state.step(event.step or "").activity(event.direction)
    if event.direction is Direction.UNDO or activity.status is not ActivityStatus.SUCCEEDED:
        return False
    return event.attempt == activity.attempt and view.results().get(event.step or "") == event.payload


def bury(pipeline: Pipeline, event: ResultEvent | ErrorEvent, why: str) -> Outcome:
    """Keep an event that no run can take in, with its payload, in the dead letters."""
    keep(pipeline.store, event, why)
    logger.warning("%s: %s; its event is kept in the dead letters", event.correlation_id, why)
    return Outcome(Verdict.MISSING, RunState(event.transaction_id, ""))
