"""Runs whose retention is over go, and take their children with them."""

from __future__ import annotations

import logging

from multiagents.exceptions import StateStoreError, WorkflowNotFoundError
from multiagents.names import Correlation, identity_of
from multiagents.orchestrator.engine import children_of
from multiagents.state_store import StateStore
from multiagents.state_store.records import Due, DueKind, Snapshot
from multiagents.workflow.state import Parent

logger = logging.getLogger(__name__)

#: How often it is looked whether the parent of a child whose retention is over is still there. Who takes the parent
#: away has its children looked at at once; this is for when he died over it.
CHILD_KEPT_MS = 3_600_000


class Retention:
    """What one tick of a sweep knows of runs whose time is over.

    Args:
        store: where they are.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        #: parent -> its nonce; None: it is gone. One look does for all of its children.
        self._nonces: dict[str, str | None] = {}

    def is_over(self, entry: Due) -> None:
        """Forget the run of a due entry, unless it goes on again, or goes with a parent that is still there.

        Raises:
            StateStoreError: when the store does not answer.
            WorkflowNotFoundError: when there is no such run.
        """
        name = entry.transaction_id
        run = self._readable(name)
        if run is not None and run.state.nonce != entry.nonce:
            self._store.discard(entry.member, name)  # another run has its id by now
        elif not (self._store.status(name) if run is None else run.state.status).is_end:
            self._store.discard(entry.member, name)
        elif run is not None and run.state.parent is not None and self._is_there(run.state.parent):
            # It may be undone with its parent, and is shown with it.
            self._store.postpone(entry.member, name, CHILD_KEPT_MS)
        else:
            children = [] if run is None else [child.state for child in children_of(run, self._child)]
            # The parent first: its entry is what tells whether it has come back to life meanwhile.
            if self._store.forget(identity_of(name, entry.nonce), entry.seen_ms):
                self._nonces[name] = None
                for child in children:
                    self._store.postpone(DueKind.EXPIRY.entry(child.identity), child.transaction_id, 0)

    def _child(self, name: str) -> Snapshot:
        """A child; one that cannot be read is come upon by its own entry."""
        found = self._readable(name)
        if found is None:
            raise WorkflowNotFoundError(name)
        return found

    def _readable(self, name: str) -> Snapshot | None:
        """A run; None if it cannot be read: that its time is over can be seen all the same."""
        try:
            return self._store.load(name)
        except StateStoreError:
            raise
        except Exception as error:
            if isinstance(error, WorkflowNotFoundError) and error.name == name:
                raise
            logger.warning("run %s, which is looked at because a retention is over, cannot be read: %s", name, error)
            return None

    def _is_there(self, parent: Parent) -> bool:
        """Whether the run that a child was a step of is still there, and not another one that has its id by now."""
        name = Correlation.parse(parent.correlation_id).transaction_id
        if name not in self._nonces:
            try:
                found = self._readable(name)
            except WorkflowNotFoundError:
                self._nonces[name] = None
            else:
                self._nonces[name] = parent.nonce if found is None else found.state.nonce
        return self._nonces[name] == parent.nonce
