"""The definitions that runs are pinned to (rule S26)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from multiagents.exceptions import WorkflowNotFoundError
from multiagents.workflow.definition import Definition, definitions

#: How many definitions that are not of its own code a process keeps at hand.
MAX_KNOWN = 1_000


class DefinitionCache:
    """Find a definition by its hash: with the code of this process if it has it, else as the store kept it."""

    def __init__(self) -> None:
        self._known: dict[str, Definition] = {}

    def get(self, reference: str, kept: Callable[[str], str | None]) -> Definition:
        """Find one.

        Args:
            reference: the content hash; and behind it, each after a ``~``, the save-points that a run has gone back to.
            kept: gives the JSON that the store keeps under a hash, asked for once.

        Raises:
            WorkflowNotFoundError: when neither has it.
        """
        content_hash, *rollbacks = reference.split("~")
        return self._base(content_hash, kept).expanded({}, rollbacks)

    def unknown(self, references: Iterable[str]) -> list[str]:
        """The content hashes among these references that are neither registered here nor known."""
        hashes = dict.fromkeys(reference.partition("~")[0] for reference in references)
        return [each for each in hashes if each not in self._known and definitions.by_hash(each) is None]

    def keep(self, content_hash: str, text: str) -> Definition:
        """Know a definition that the store keeps from now on."""
        while len(self._known) >= MAX_KNOWN:
            self._known.pop(next(iter(self._known)), None)
        known = self._known[content_hash] = Definition.from_json(text)
        return known

    def _base(self, content_hash: str, kept: Callable[[str], str | None]) -> Definition:
        if (local := definitions.by_hash(content_hash)) is not None:
            return local
        known = self._known.get(content_hash)
        if known is None:
            snapshot = kept(content_hash)
            if snapshot is None:
                raise WorkflowNotFoundError(
                    content_hash,
                    f"no definition with content hash {content_hash!r} is registered here or kept in the state store; "
                    f"the run that names it was started against another database, or is gone with all that followed it",
                )
            known = self.keep(content_hash, snapshot)
        return known
