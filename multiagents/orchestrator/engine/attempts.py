"""Outcomes of attempts that no claim stands behind: published by others, given up, revoked, or that nobody could run.

All are facts about an attempt that is known by its *record*, what the store has of it while it is in flight. Each is
refused if the record has changed meanwhile, so saying it again changes nothing.
"""

from __future__ import annotations

import logging
import random

from multiagents.clock import to_ms
from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind, ResultEvent
from multiagents.exceptions import ConfigurationError, DecodeError, StateStoreError, WorkflowError
from multiagents.failpoints import WriteSite
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.engine.advance import LEFT_FOR, advance, bury, take_in
from multiagents.orchestrator.engine.pipeline import Outcome, Pipeline
from multiagents.state_store import StateStore
from multiagents.state_store.records import (
    Delivery,
    Dispatch,
    InFlight,
    Snapshot,
    Verdict,
    any_record,
    attempt_key_of,
    encode_attributes,
    record_prefix,
)
from multiagents.workflow.state import RunState

__all__ = ["complete", "give_up", "not_registered", "receive", "revoked", "unclaimable", "why_unclaimable"]

logger = logging.getLogger(__name__)

#: What marks the dead letter of an attempt that nobody can claim.
_NOTHING_RAN = "nothing_ran"
#: ms between two offers of an attempt to workers that do not know it, at least.
SHORTEST_PAUSE = 500
#: How an attempt is in flight for which no message is out.
_NO_MESSAGE = (
    Delivery.CLAIMED,
    Delivery.EXTERNAL,
    Delivery.TIMER,
    Delivery.SLEEP,
    Delivery.CHILD,
    Delivery.LOCK,
)


def receive(pipeline: Pipeline, event: ResultEvent | ErrorEvent) -> Outcome:
    """Take in the outcome that a foreign producer published; it answers whatever attempt it names.

    An outcome of a run or an attempt that the store does not know, or that names none, goes to the dead letters with
    its payload.
    """
    try:
        correlation = Correlation.parse(event.correlation_id)
        encode_attributes(event.attributes)
    except (DecodeError, WorkflowError) as error:
        return bury(pipeline, event, str(error))
    if event.transaction_id != correlation.transaction_id:
        return bury(
            pipeline,
            event,
            f"an event of run {event.transaction_id!r} carries the correlation id {event.correlation_id!r} of another "
            f"run; send back the id that came with the command",
        )
    update = {"step": correlation.step, "attempt": correlation.attempt, "timestamp": pipeline.store.now(), "late": None}
    attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
    answers = (correlation.step, any_record(attempt_key))
    return take_in(pipeline, event.model_copy(update=update), answers, site=WriteSite.RECEIVE, foreign=True)


def complete(pipeline: Pipeline, correlation: Correlation, record: str, result: object = None) -> Outcome:
    """A step that no worker does is done: a sleep is over, a wait goes on without its signal, a lock is there."""
    event = ResultEvent.about(correlation, result, at=pipeline.store.now())
    return advance(pipeline, event.transaction_id, event, site=WriteSite.COMPLETE, answers=(correlation.step, record))


def give_up(pipeline: Pipeline, event: ErrorEvent, record: str, *, unrenewed: int | None = None) -> Outcome:
    """Record that an attempt was lost, timed out or never taken, unless its record has changed since.

    Args:
        pipeline: decides and commits.
        event: how it ended.
        record: of the attempt; or what it has to start with.
        unrenewed: not if its lease was renewed since then.
    """
    correlation = Correlation.parse(event.correlation_id)
    now = pipeline.store.now()

    def ended(snapshot: Snapshot) -> ErrorEvent:
        found = snapshot.in_flight.get(correlation.step)
        # Nobody has taken it now, but somebody had, and given it back: nobody knows what it has come to (rule S1b).
        # That it is this very attempt is for the fence.
        begun = event.kind is ErrorKind.FAILED and found is not None and snapshot.is_begun(found)
        return event.model_copy(update={"timestamp": now, **({"kind": ErrorKind.UNKNOWN} if begun else {})})

    outcome = advance(
        pipeline,
        event.transaction_id,
        ended,
        site=WriteSite.GIVE_UP_UNDO if correlation.direction is Direction.UNDO else WriteSite.GIVE_UP,
        answers=(correlation.step, record),
        unrenewed=unrenewed,
    )
    if outcome.verdict is not Verdict.APPLIED:
        logger.debug("attempt %s was not given up: %s", event.correlation_id, outcome.verdict)
    return outcome


def revoked(pipeline: Pipeline, correlation: Correlation, *, terminated: bool) -> Outcome:
    """Record that Celery was told not to run an attempt, or to stop it. Calling it again changes nothing.

    An attempt that had not begun has failed for certain. Of one that was terminated nobody knows how far it came, so
    its outcome is in doubt, as after a time-out. An attempt that runs on though its id was revoked is left alone.

    Raises:
        WorkflowNotFoundError: when there is no such run.
        StateStoreError: when the store does not answer; a lost message is then found by the sweep.
    """
    snapshot = pipeline.store.load(correlation.transaction_id)
    found = snapshot.attempt(correlation)
    if found is None or (found.delivery is Delivery.CLAIMED) is not terminated:
        return Outcome(Verdict.LATE, snapshot.state)
    what = "terminated while it ran" if terminated else "revoked before it ran"
    error = ErrorInfo(
        type="TaskRevokedError",
        message=f"step {correlation.step!r}: its Celery task was {what} by remote control",
        attempt=correlation.attempt,
    )
    kind = ErrorKind.TIMEOUT if terminated else ErrorKind.FAILED
    return give_up(pipeline, ErrorEvent.about(correlation, error, at=pipeline.store.now(), kind=kind), found.record)


def unclaimable(pipeline: Pipeline, event: ErrorEvent, owner: str) -> Outcome:
    """End an attempt that no worker can claim, because what is stored of the run cannot be read (rule S27).

    Nothing ran, and asking again would come to the same. So the attempt has failed for certain, and the failure names
    the cause. Where this process cannot read the run at all, it puts the failure into the dead letters. The sweep of a
    process that can read the run ends the attempt by it, once ``schedule_to_start`` has passed and nobody else has come
    (a rolling deploy).

    Args:
        pipeline: decides and commits.
        event: the failure.
        owner: the token under which it was to be claimed; it may be claimed by now, and only its data unreadable.

    Raises:
        StateStoreError: when the store does not answer; the attempt then counts as lost.
    """
    correlation = Correlation.parse(event.correlation_id)
    attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
    why = "no worker could claim it"
    outcome = Outcome(Verdict.MISSING, RunState(event.transaction_id, ""))
    try:
        outcome = give_up(pipeline, event, record_prefix(attempt_key, Delivery.CLAIMED, owner))
        if outcome.verdict is Verdict.APPLIED:
            return outcome
    except (StateStoreError, ConfigurationError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever reading it comes to
        why = f"{why}, and the run cannot be read: {type(error).__name__}: {error}"
    letter = {"why": why, _NOTHING_RAN: True, "event": event.model_dump(mode="json", exclude_none=True)}
    pipeline.store.bury(correlation.transaction_id, correlation._replace(nonce=event.nonce or "").of_its_run, letter)
    logger.error("attempt %s cannot be claimed here: %s", event.correlation_id, event.error.message)
    return outcome


def why_unclaimable(store: StateStore, correlation: Correlation) -> ErrorInfo | None:
    """What kept a worker from claiming an attempt, if one has said so."""
    letter = store.dead_letter(correlation.transaction_id, correlation.of_its_run)
    return ErrorInfo.model_validate(letter["event"]["error"]) if letter and letter.get(_NOTHING_RAN) else None


def not_registered(pipeline: Pipeline, correlation: Correlation) -> None:
    """A worker took the message of an attempt and does not know its task: send it again after a pause.

    In a deployment many do not know it yet. The sweep gives it up once that has gone on for ``schedule_to_start``.
    """
    snapshot = pipeline.store.load(correlation.transaction_id)
    found = snapshot.attempt(correlation)
    if found is None or found.delivery in _NO_MESSAGE:
        return
    longest_ms = pipeline.settings.lease * 1000 / LEFT_FOR
    later = offered_later(found, now_ms=to_ms(pipeline.store.now()), longest_ms=longest_ms)
    pipeline.store.dispatch(snapshot.state.identity, later, found.record)


def offered_later(found: InFlight, *, now_ms: int, longest_ms: float) -> Dispatch:
    """An attempt as it is sent again after a pause.

    The pause grows with the time this has gone on. It is taken at odd lengths: idle workers take turns in a rhythm, and
    a message in that rhythm finds the same one every time. The time that the message had waited in the queue before
    somebody took it does not count.

    Args:
        found: the attempt's record.
        now_ms: the store's clock.
        longest_ms: how long the pause may grow.
    """
    again = found.number == 0 and found.first_ms < found.since_ms
    waited = now_ms - found.first_ms if again else 0
    pause = max(min(waited, longest_ms), SHORTEST_PAUSE)
    return Dispatch(
        found.step,
        found.attempt_key,
        Delivery.UNREGISTERED,
        target=found.target,
        delay_ms=round(pause * random.uniform(0.5, 1.5)),  # noqa: S311 - no secret
        first_ms=found.first_ms if again else 0,
        close_ms=found.close_ms,
    )
