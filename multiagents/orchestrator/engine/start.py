"""How a run begins: created with its first steps sent, in one script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from multiagents.events import Event
from multiagents.exceptions import MultiAgentsError, StateStoreError
from multiagents.failpoints import WriteSite
from multiagents.names import DEFAULT_QUEUE, new_nonce
from multiagents.orchestrator.engine.child_ids import children_of
from multiagents.orchestrator.engine.conflict_policy import OnConflict
from multiagents.orchestrator.engine.follow_ups import FollowUp
from multiagents.orchestrator.engine.fork import Fork
from multiagents.orchestrator.engine.pipeline import Pipeline
from multiagents.orchestrator.engine.user_code import Answers
from multiagents.orchestrator.engine.view import StartView
from multiagents.plain_json import digest
from multiagents.state_store import StateStore
from multiagents.state_store.records import DueKind, Started
from multiagents.workflow.decider import evolve, start_event
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import Parent, RunState

__all__ = ["start"]


def start(
    pipeline: Pipeline,
    definition: Definition,
    transaction_id: str,
    input: dict[str, Any],
    on_conflict: OnConflict = OnConflict.RETURN_SAME,
    attributes: Mapping[str, str] | None = None,
    parent: Parent | None = None,
    fork: Fork | None = None,
    home: str | None = None,
) -> tuple[Started, Sequence[FollowUp]]:
    """Create a run and send its first steps.

    What cannot be said here (it takes code that is elsewhere, or does not fit into one commit) is left to the
    orchestrator's task: whoever starts a run may be no worker.

    Args:
        pipeline: decides and commits.
        definition: what it follows.
        transaction_id: its id.
        input: what it is started with.
        on_conflict: what is done if there is a run with this id.
        attributes: what it is found by, as it is stored.
        parent: the attempt that it is, if it is a child.
        fork: what it takes over, if it is a fork.
        home: the default queue of the app whose run it is; None is this process's own, and of a fork its original's.

    Returns:
        whether it is new, and what is left to be done.
    """
    now, first = pipeline.store.now(), parent is None
    before = RunState(transaction_id, workflow="")
    nonce = new_nonce()
    view = StartView(definition, before, input, None if fork is None else fork.results)
    begun = start_event(
        definition,
        transaction_id,
        now=now,
        max_lost=pipeline.settings.max_lost,
        parent=parent,
        nonce=nonce,
        home=home or (pipeline.dispatcher.home if fork is None else fork.of.state.home) or DEFAULT_QUEUE,
    )
    events: list[Event] = [begun] if fork is None else fork.facts(begun)
    state = before
    for event in events:
        state = evolve(definition, state, event)
    near = definition.entries if fork is None else None
    decided = pipeline.decide(
        view, state, events, Answers(view, None, pipeline.settings.max_payload_bytes), now, near=near
    )
    dispatches = pipeline.outbox.dispatches(decided.definition, decided.after, decided.events, first=first)
    commit = pipeline.plan(
        view,
        decided,
        dispatches,
        site=WriteSite.START if fork is None else WriteSite.FORK,
        first=first,
        hand_over=True,
        deadline_ms=None if definition.deadline is None else max(1, round(definition.deadline * 1000)),
        attributes=attributes,
    )
    orphaned = _orphaned_by(pipeline.store, transaction_id, on_conflict)
    started = pipeline.store.start(
        definition,
        decided.after,
        commit,
        input,
        digest(input) if fork is None else fork.digest,
        call="" if on_conflict.gives_existing else uuid4().hex,
        replaces=on_conflict.replaces,
    )
    if not started.created:
        return started, ()
    with suppress(StateStoreError):  # the sweep looks at them in any case, only later
        for child in orphaned:
            pipeline.store.postpone(DueKind.EXPIRY.entry(child.identity), child.transaction_id, 0)
    pipeline.versions.look_at(started, definition, transaction_id)
    follow_ups = pipeline.publish(decided, dispatches, first=first, hand_over=True)
    pipeline.names.look_at(definition)
    return started, follow_ups


def _orphaned_by(store: StateStore, transaction_id: str, on_conflict: OnConflict) -> list[RunState]:
    """The children of a run that is to be replaced; none if it cannot be read, as if it had none."""
    if not on_conflict.replaces:
        return []
    with suppress(MultiAgentsError):
        found = store.load(transaction_id)
        if found.state.status in on_conflict.replaces:
            return [child.state for child in children_of(found, store.load)]
    return []
