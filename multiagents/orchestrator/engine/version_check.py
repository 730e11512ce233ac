"""What two contents under one name and version mean: that somebody forgot to raise the version.

Nothing breaks by it: a run follows the content that it started with, whatever is deployed since (rule S26). So a start
is never refused for it, which would bring a deployment down; whoever starts the run is warned, with the difference.
"""

from __future__ import annotations

import logging

from multiagents.exceptions import MultiAgentsError
from multiagents.state_store import StateStore
from multiagents.state_store.records import Started
from multiagents.workflow.definition import Definition, changes, definitions, next_version

logger = logging.getLogger(__name__)

#: How many contents are remembered that were warned of.
MAX_TOLD = 1_000


class Versions:
    """Warns once of each other content that a version turns out to have in the store.

    Args:
        store: where the contents are kept.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._told: set[tuple[str, str]] = set()

    def look_at(self, started: Started, definition: Definition, transaction_id: str) -> None:
        """Warn if the run before was started with another content under this name and version."""
        pair = (definition.content_hash, started.other)
        if not started.other or pair in self._told:
            return
        if len(self._told) == MAX_TOLD:
            self._told.clear()
        self._told.add(pair)
        name, version = definition.name, definition.version
        logger.warning(
            'workflow "%s" version "%s" has another content here than in the process that started a run of it before: '
            "%s. Each run goes on by the content it started with, but nobody can tell the two apart by their version, "
            'and a process finds the code only of the content it has; raise the version, e.g. WorkflowBuilder("%s", '
            'version="%s")',
            name,
            version,
            self._changes(started.other, definition, transaction_id),
            name,
            next_version(version),
        )

    def _changes(self, other: str, definition: Definition, transaction_id: str) -> str:
        try:
            return changes(self._store.definition(other, transaction_id), definition)
        except MultiAgentsError as error:
            return f"it cannot be said in what ({error})"


def code_is_elsewhere(definition: Definition) -> str:
    """What this process has of a workflow whose code it lacks, in words."""
    here = definitions.versions(definition.name)
    if definition.version in here:
        found = changes(definition, definitions.get(definition.name, definition.version))
        return f'the last process that looked has other content under version "{definition.version}": {found}'
    if here:
        return f"the last process that looked has version {', '.join(here)}"
    return "the last process that looked has no version of it"
