"""What came of a claimed attempt: decided at once from the claim, or recorded for whoever has the whole run.

Which of the two is known before anything is decided (`is_enough`), so nothing is decided twice. Success is decided from
the claim, and so is a failure that is retried: two scripts a step, its claim and its commit. A failure for good, an
undo and what comes of a run that compensates are recorded; then the run is advanced. Of a map's items hundreds come at
once: the first that is recorded decides for all that come until then. In queued mode everything is recorded so, and the
orchestrator's task advances the run.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from multiagents.events import ErrorEvent, ResultEvent
from multiagents.failpoints import WriteSite
from multiagents.names import Direction
from multiagents.orchestrator.engine.advance import came_late, take_in
from multiagents.orchestrator.engine.follow_ups import Advance
from multiagents.orchestrator.engine.local_steps import local_step
from multiagents.orchestrator.engine.pipeline import Outcome, Pipeline
from multiagents.orchestrator.engine.user_code import Answers
from multiagents.orchestrator.engine.view import ClaimView
from multiagents.state_store.records import Claim, Delivery, Verdict, attempt_key_of, record_prefix
from multiagents.workflow.decider import evolve, neighbourhood
from multiagents.workflow.definition import map_of
from multiagents.workflow.state import RunState, RunStatus

__all__ = ["is_enough", "settle"]


def is_enough(claim: Claim, after: RunState) -> bool:
    """Whether what follows from an attempt can be said from its claim.

    Args:
        claim: the attempt.
        after: the run after its outcome, as far as the claim shows it.
    """
    step, definition = claim.correlation.step, claim.definition
    if claim.state.status is not RunStatus.RUNNING or claim.correlation.direction is Direction.UNDO:
        return False
    # What waits for a signal, or has failed for good, may be anywhere in the run.
    if claim.signals_wait or after.step(step).do.is_over:
        return False
    # What is left of an undone pass may have to be undone before the end.
    return not (definition.superseded and step in definition.exits)


def settle(pipeline: Pipeline, event: ResultEvent | ErrorEvent, claim: Claim, *, may_go_on: bool = False) -> Outcome:
    """Commit what came of a claimed attempt, and get out what follows; called in the process that ran it.

    Args:
        pipeline: decides and commits.
        event: the outcome.
        claim: the attempt.
        may_go_on: a local step that follows may be held for this process, which is to run it now.
    """
    now = event.timestamp
    if now is None or event.nonce is None:
        now = now or pipeline.store.now()
        event = event.model_copy(update={"timestamp": now, "nonce": claim.correlation.nonce or None})
    correlation = claim.correlation
    attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
    answers = (correlation.step, record_prefix(attempt_key, Delivery.CLAIMED, claim.owner))
    view = ClaimView(claim, partial(pipeline.store.payloads, correlation.transaction_id))
    after = evolve(claim.definition, claim.state, event)
    queued = pipeline.settings.orchestration == "queued"
    # Of an item no user code follows; and to decide upon each from the whole run would cost the square of them.
    if is_enough(claim, after) and (not queued or map_of(correlation.step) is not None):
        return _decide_at_once(pipeline, view, event, after, answers, now, queued=queued, may_go_on=may_go_on)
    return _record(pipeline, view, event, after, answers, queued=queued)


def _decide_at_once(
    pipeline: Pipeline,
    view: ClaimView,
    event: ResultEvent | ErrorEvent,
    after: RunState,
    answers: tuple[str, str],
    now: datetime,
    *,
    queued: bool,
    may_go_on: bool,
) -> Outcome:
    claim = view.claim
    near = neighbourhood(claim.definition, event)
    decided = pipeline.decide(
        view, after, (event,), Answers(view, event, pipeline.settings.max_payload_bytes), now, near=near
    )
    held = local_step(pipeline, decided, event, claim) if may_go_on else None
    dispatches = (
        [held.dispatch] if held else pipeline.outbox.dispatches(decided.definition, decided.after, decided.events)
    )
    committed = pipeline.commit(
        view, decided, dispatches, site=WriteSite.SETTLE, hand_over=queued, answers=answers, epoch=claim.epoch
    )
    if committed.verdict is not Verdict.APPLIED:
        return _not_applied(pipeline, view, event, answers, committed.verdict)
    follow_ups = pipeline.publish(decided, dispatches, hand_over=queued)
    if committed.decision_due and queued:
        pipeline.outbox.orchestrate(claim.correlation.transaction_id)
    elif committed.decision_due and not decided.pending:
        follow_ups.append(Advance(claim.correlation.transaction_id))
    return Outcome(
        Verdict.APPLIED, decided.after, decided.events, follow_ups=follow_ups, held=held.claim if held else None
    )


def _record(
    pipeline: Pipeline,
    view: ClaimView,
    event: ResultEvent | ErrorEvent,
    after: RunState,
    answers: tuple[str, str],
    *,
    queued: bool,
) -> Outcome:
    transaction_id, undo = view.claim.correlation.transaction_id, view.claim.correlation.direction is Direction.UNDO
    succeeded = isinstance(event, ResultEvent)
    linked = queued and undo and succeeded
    is_due = pipeline.record(
        view,
        after,
        event,
        coalesces=queued or map_of(view.claim.correlation.step) is not None,
        site=WriteSite.RECORD_UNDO if undo else WriteSite.RECORD,
        answers=answers,
        epoch=view.claim.epoch,
        orchestration=pipeline.dispatcher.orchestration(transaction_id) if queued and not linked else None,
    )
    if isinstance(is_due, Verdict):
        return _not_applied(pipeline, view, event, answers, is_due)
    recorded = Outcome(Verdict.APPLIED, after, (event,))
    if not is_due:
        return recorded  # Whoever decides already has this before him.
    if not queued:
        return recorded._replace(follow_ups=[Advance(transaction_id, may_link=succeeded)])
    if linked:
        return recorded._replace(links=[pipeline.dispatcher.orchestration_link(transaction_id)])
    if not pipeline.dispatcher.atomic:
        pipeline.outbox.orchestrate(transaction_id)
    return recorded


def _not_applied(
    pipeline: Pipeline, view: ClaimView, event: ResultEvent | ErrorEvent, answers: tuple[str, str], verdict: Verdict
) -> Outcome:
    transaction_id = view.claim.correlation.transaction_id
    if verdict is Verdict.CONFLICT:  # The run has gone another way since the claim.
        return take_in(pipeline, event, answers, may_link=isinstance(event, ResultEvent))
    late = came_late(pipeline, event)
    if pipeline.settings.orchestration == "queued":
        return late
    # If it is our own commit that came twice, the first answer is lost, and with it whether a decision is due.
    return late._replace(follow_ups=[*late.follow_ups, Advance(transaction_id)])
