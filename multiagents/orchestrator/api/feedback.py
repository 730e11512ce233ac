"""What people say of what a run's agents have done."""

from __future__ import annotations

import logging
import math
from typing import Any

from multiagents.exceptions import MultiAgentsError, WorkflowError, did_you_mean
from multiagents.plain_json import check_words
from multiagents.settings import Settings
from multiagents.state_store import StateStore
from multiagents.state_store.records import Feedback, Lesson

logger = logging.getLogger(__name__)


def feedback(
    store: StateStore,
    transaction_id: str,
    nonce: str | None,
    *,
    score: Any,
    note: str | None,
    step: str | None,
    actor: str | None,
) -> list[str]:
    """Note it; the arguments are those of `Run.feedback`.

    Raises:
        WorkflowNotFoundError: when there is no such run, and nothing of it to learn from.
        WorkflowError: when the score is none, or no agent has done that step.
    """
    check_words(note=note, actor=actor)
    if not isinstance(score, int | float) or not (math.isfinite(score) and 0 <= score <= 1):
        raise WorkflowError(
            f"feedback to run {transaction_id!r} was given the score {score!r:.80}; expected a number from 0 (of no "
            f"use) to 1 (as it should be); nothing was noted"
        )
    said = Feedback(float(score), note or "", actor or "")
    found = store.examples.feedback(transaction_id, said, step=step, nonce=nonce)
    if found.given:
        return found.given
    if not found.steps:
        store.status(transaction_id)  # there is no such run
    if not found.steps or step is None:
        raise WorkflowError(
            f"run {transaction_id!r} has nothing to give feedback to: no agent has done a step of it yet, or what they "
            f"did is not kept any more (multiagents_examples, multiagents_example_retention); nothing was noted"
        )
    raise WorkflowError(
        f"run {transaction_id!r} has no step {step!r} that an agent has done{did_you_mean(step, found.steps)} (there "
        f"are: {', '.join(sorted(found.steps)[:20])}); nothing was noted"
    )


def supplied(store: StateStore, settings: Settings, identity: str, step: str, result: Any) -> Lesson | None:
    """What there is to learn from a result that a person gives in place of an agent; None if there is nothing.

    Args:
        store: where the run is.
        settings: how much is kept.
        identity: the run, as `multiagents.names.identity_of` writes it.
        step: the step.
        result: what it is to have returned.
    """
    if not settings.examples:
        return None
    try:
        found = store.examples.of_step(identity, step)
        said = None if found is None else found[1].supplied(result)
        text = None if said is None else said.written(store.policy)
    except (MultiAgentsError, ValueError) as error:
        logger.warning("what was supplied to %s/%s is no example to learn from: %s", identity, step, error)
        return None
    if found is None or text is None:
        return None
    return Lesson(found[0], step, text, settings.examples, round(settings.example_retention * 1000))
