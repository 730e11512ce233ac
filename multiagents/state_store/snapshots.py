"""The definitions that runs are pinned to (rule S26)."""

from __future__ import annotations

from collections.abc import Callable

from multiagents.exceptions import WorkflowNotFoundError
from multiagents.workflow.definition import Definition
from multiagents.workflow.registry import definitions


class Definitions:
    """Find a definition by its hash: with the code of this process if it has it, else as the store kept it."""

    def __init__(self) -> None:
        self._known: dict[str, Definition] = {}

    def get(self, content_hash: str, kept: Callable[[], str | None]) -> Definition:
        """Find one.

        Args:
            content_hash: which one.
            kept: gives the JSON that the store keeps, asked for once.

        Raises:
            WorkflowNotFoundError: when neither has it.
        """
        if (local := definitions.by_hash(content_hash)) is not None:
            return local
        if content_hash not in self._known:
            snapshot = kept()
            if snapshot is None:
                raise WorkflowNotFoundError(
                    content_hash,
                    f"no definition with content hash {content_hash!r} is registered here or kept in the state store; "
                    f"the run that names it was started against another database",
                )
            self._known[content_hash] = Definition.from_json(snapshot)
        return self._known[content_hash]
