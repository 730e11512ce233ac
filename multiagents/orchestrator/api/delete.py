"""Erasing a run that is over, and what is kept of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from multiagents.clock import from_ms, to_ms
from multiagents.exceptions import StateConflictError, WorkflowNotEndedError, WorkflowNotFoundError
from multiagents.orchestrator.engine import children_of
from multiagents.plain_json import check_words, dumps
from multiagents.state_store import StateStore
from multiagents.state_store.records import LetterKey, Snapshot, Verdict
from multiagents.workflow.state import RunStatus

#: How often it is tried while others change the run.
MAX_RACES = 100


@dataclass(frozen=True)
class Tombstone:
    """What is kept of a run that was deleted.

    Attributes:
        transaction_id: the run.
        workflow: its definition's name.
        status: how it had ended.
        deleted_at: when, by the store's clock.
        reason: why.
        actor: who did it.
    """

    transaction_id: str
    workflow: str
    status: RunStatus
    deleted_at: datetime
    reason: str | None = None
    actor: str | None = None


def delete(store: StateStore, transaction_id: str, *, reason: str | None, actor: str | None) -> None:
    """Erase a run that is over, after its children: what they did, and knew, is a part of it.

    Of a run that is gone, what is left to learn from is erased.

    Raises:
        WorkflowNotFoundError: when there is no such run.
        WorkflowNotEndedError: when it, or a child of it, is not over.
    """
    check_words(reason=reason, actor=actor)
    token = uuid4().hex
    for _ in range(MAX_RACES):
        try:
            snapshot = store.load(transaction_id)
        except WorkflowNotFoundError:
            if store.examples.forget(transaction_id):
                return
            raise
        status = snapshot.state.status
        if not status.is_end:
            raise WorkflowNotEndedError(transaction_id, status.value, "delete")
        for child in children_of(snapshot, store.load):
            delete(store, child.state.transaction_id, reason=reason, actor=actor)
        kept = {
            "transaction_id": transaction_id,
            "workflow": snapshot.state.workflow,
            "status": status.value,
            "reason": reason,
            "actor": actor,
            "id": token,
        }
        verdict = store.delete(
            snapshot.state.identity, status=status, tombstone=dumps(kept), dead_letters=_dead_letters(store, snapshot)
        )
        if verdict is Verdict.APPLIED:
            return
        if verdict is Verdict.MISSING:
            raise WorkflowNotFoundError(transaction_id)
    raise StateConflictError(
        f"run {transaction_id!r} changed its status {MAX_RACES} times while it was to be deleted; it is still there: "
        f"delete it again"
    )


def tombstones(store: StateStore, limit: int, before: datetime | None) -> list[Tombstone]:
    """What is kept of deleted runs, newest first."""
    before_ms = None if before is None else to_ms(before)
    found = []
    for at, text in store.visibility.deleted(limit=limit, before_ms=before_ms):
        kept = json.loads(text)
        found.append(
            Tombstone(
                kept["transaction_id"],
                kept["workflow"],
                RunStatus(kept["status"]),
                from_ms(at),
                kept["reason"],
                kept["actor"],
            )
        )
    return found


def _dead_letters(store: StateStore, snapshot: Snapshot) -> list[str]:
    """The keys of the dead letters that go with a run: its own, and those of which nobody knows whose they are."""
    state = snapshot.state
    found = store.visibility.letters_of(state.transaction_id)
    return [key for key in found if LetterKey.parse(key).nonce in ("", state.nonce)]
