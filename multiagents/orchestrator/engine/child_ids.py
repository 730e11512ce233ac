"""Which runs are the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator

from multiagents.names import child_id, origin_of, parse_origin
from multiagents.state_store.records import Snapshot

__all__ = ["child_of", "children_of"]


def child_of(parent: Snapshot, step: str) -> str:
    """The id of the run that a step is; of one that a fork has taken over, it is that of its original."""
    origin = parent.state.step(step).origin or origin_of(parent.state.transaction_id, parent.generation)
    transaction_id, generation = parse_origin(origin)
    return child_id(transaction_id, step, generation)


def children_of(parent: Snapshot) -> Iterator[str]:
    """The ids of the runs that go with this one: not those that are detached, or that a fork has taken over."""
    for name, step in parent.state.steps.items():
        own = parent.definition.own(name)
        if own.workflow is not None and not own.detached and step.do.attempt and not step.origin:
            yield child_of(parent, name)
