"""Local steps: run by the process that has run the step before, which holds all that they need.

The commit of the step before makes the local step's attempt one that is claimed already, by a token of this process. So
it costs one commit, no claim and no message. Everything else holds as for any claimed attempt: if the process dies, its
lease runs out, the attempt is lost, and the next one is sent to the worker's queue.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from pydantic_core import from_json

from multiagents.events import CommandEvent, ErrorEvent, ResultEvent
from multiagents.names import Direction
from multiagents.orchestrator.engine.pipeline import Decided, Pipeline
from multiagents.state_store.payloads import as_mapping, dumps
from multiagents.state_store.records import LIMIT_GRACE_MS, Claim, Delivery, Dispatch, attempt_key_of
from multiagents.workflow.definition import map_of


class Local(NamedTuple):
    """A local step that is due, as the commit is to hold it, and what it is to be run with."""

    dispatch: Dispatch
    claim: Claim


def local_step(pipeline: Pipeline, decided: Decided, event: ResultEvent | ErrorEvent, claim: Claim) -> Local | None:
    """The local step that follows from an attempt, if it is all that follows, and its worker is in this process.

    Args:
        pipeline: knows the workers of this process, and the settings.
        decided: what follows from the attempt.
        event: the outcome of the attempt.
        claim: the attempt.
    """
    if len(decided.events) != 2:
        return None
    definition, after, command = decided.definition, decided.after, decided.events[1]
    dispatcher, settings = pipeline.outbox.dispatcher, pipeline.settings
    if not isinstance(command, CommandEvent) or command.delay or command.step is None or command.probe:
        return None
    step = definition.steps[command.step]
    before = claim.correlation.step
    if not step.local or map_of(before) is not None or not dispatcher.has_worker(step.worker):
        return None
    correlation = after.correlation(step.name, Direction.DO, command.attempt)
    limit = step.timeout if step.timeout is not None else dispatcher.timeout_of(step.worker)
    limit = settings.step_timeout if limit is None else limit
    ends = [seconds for seconds in (limit, step.schedule_to_close) if seconds]
    limit_ms = round(min(ends, default=0) * 1000)
    lease_ms = round(settings.lease * 1000)
    owner = claim.owner  # a token of this very execution, which goes on
    dispatch = Dispatch(
        step.name,
        attempt_key_of(Direction.DO, command.attempt),
        Delivery.CLAIMED,
        target=owner,
        prefix=event.worker or "",
        delay_ms=min(lease_ms, limit_ms + LIMIT_GRACE_MS) if limit_ms else lease_ms,
        close_ms=limit_ms,
    )
    own = event.payload if isinstance(event, ResultEvent) else None
    merged = {**claim.merged, **as_mapping(before, own)}
    parts = {} if definition.is_trunk(before) else {**claim.parts, before: own}
    # The worker's own, who may do with it as it likes: what follows is decided by what is stored.
    seen = from_json(dumps(merged if command.payload is None else command.payload))
    own_claim = Claim(
        correlation,
        definition,
        seen,
        seen,
        owner,
        after._replace(steps={step.name: after.steps[step.name]}),
        claim.epoch,
        merged,
        event.at,
        parts,
        deadline=event.at + timedelta(milliseconds=limit_ms) if limit_ms else None,
        generation=claim.generation,
    )
    return Local(dispatch, own_claim)
