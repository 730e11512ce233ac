"""Outcomes that no run takes in are kept with their payload, where a person sees them."""

from __future__ import annotations

from multiagents.events import Event
from multiagents.state_store import StateStore
from multiagents.state_store.records import key_of_outcome

#: What an outcome says: what tells it from others of the same attempt.
_SAID = {"type", "payload", "kind", "error"}


def keep(store: StateStore, event: Event, why: str) -> None:
    """Put an outcome into the dead letters; one that comes again has the same letter.

    Args:
        store: where the letters are.
        event: the outcome.
        why: no run took it in.

    Raises:
        StateStoreError: when the store does not answer.
    """
    told = event.model_dump(mode="json", exclude_none=True)
    said = {name: value for name, value in told.items() if name in _SAID}
    key = key_of_outcome(event.correlation_id or event.id, event.nonce, said)
    store.bury(event.transaction_id, key, {"why": why, "event": told})
