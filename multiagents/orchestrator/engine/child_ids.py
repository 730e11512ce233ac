"""Which runs are the steps of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from multiagents.exceptions import WorkflowNotFoundError
from multiagents.names import child_id, origin_of, parse_origin
from multiagents.orchestrator.engine.view import RunView
from multiagents.state_store.records import Snapshot

__all__ = ["child_of", "children_of"]


def child_of(parent: Snapshot | RunView, step: str) -> str:
    """The id of the run that a step is; of one that a fork has taken over, it is that of its original."""
    origin = parent.state.step(step).origin or origin_of(parent.state.transaction_id, parent.generation)
    transaction_id, generation = parse_origin(origin)
    return child_id(transaction_id, step, generation)


def children_of(parent: Snapshot, load: Callable[[str], Snapshot]) -> Iterator[Snapshot]:
    """The runs that go with this one, as far as they are there: not those that are detached, or that a fork took over.

    Args:
        parent: the run.
        load: reads a run (`StateStore.load`).
    """
    for name, step in parent.state.steps.items():
        own = parent.definition.own(name)
        if own.workflow is None or own.detached or not step.do.attempt or step.origin:
            continue
        with suppress(WorkflowNotFoundError):
            child = load(child_of(parent, name))
            if child.state.parent is not None and child.state.parent.is_run(parent.state):
                yield child
