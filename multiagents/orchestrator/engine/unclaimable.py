"""Attempts that no worker can claim, because what is stored of the run cannot be read (rule S27).

Nothing ran, and asking again would come to the same. So the attempt has failed for certain, and the failure names the
cause. Where the process that met it cannot read the run at all, it puts the failure into the dead letters. The sweep of
a process that can read the run ends the attempt by it, once ``schedule_to_start`` has passed and nobody else has come
(a rolling deploy).
"""

from __future__ import annotations

import logging

from multiagents.events import ErrorEvent, ErrorInfo
from multiagents.exceptions import ConfigurationError, StateStoreError
from multiagents.names import Correlation
from multiagents.orchestrator.engine.engine import Engine
from multiagents.state_store import StateStore
from multiagents.state_store.records import Delivery, attempt_key_of, record_prefix

logger = logging.getLogger(__name__)

#: What marks the dead letter of such an attempt.
_NOTHING_RAN = "nothing_ran"


def unclaimable(engine: Engine, event: ErrorEvent, owner: str) -> None:
    """End an attempt whose claim came to an error. Calling it again changes nothing.

    Args:
        engine: of this process.
        event: the failure.
        owner: the token under which it was to be claimed; it may be claimed by now, and only its data unreadable.

    Raises:
        StateStoreError: when the store does not answer; the attempt then counts as lost.
    """
    correlation = Correlation.parse(event.correlation_id)
    attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
    why = "no worker could claim it"
    try:
        if engine.give_up(event, record_prefix(attempt_key, Delivery.CLAIMED, owner)):
            return
    except (StateStoreError, ConfigurationError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever reading it comes to
        why = f"{why}, and the run cannot be read: {type(error).__name__}: {error}"
    letter = {"why": why, _NOTHING_RAN: True, "event": event.model_dump(mode="json", exclude_none=True)}
    engine.store.bury(correlation.transaction_id, event.correlation_id, letter)
    logger.error("attempt %s cannot be claimed here: %s", event.correlation_id, event.error.message)


def why_unclaimable(store: StateStore, correlation: Correlation) -> ErrorInfo | None:
    """What kept a worker from claiming an attempt, if one has said so."""
    letter = store.dead_letter(correlation.transaction_id, str(correlation))
    return ErrorInfo.model_validate(letter["event"]["error"]) if letter and letter.get(_NOTHING_RAN) else None
