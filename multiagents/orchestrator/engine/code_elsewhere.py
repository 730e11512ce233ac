"""What this process has left to others, as it lacks the code, and for how long it may go on so (rules S26, S27)."""

from __future__ import annotations

from multiagents.clock import to_ms
from multiagents.settings import Settings
from multiagents.state_store.records import Snapshot

#: Of how many steps a process remembers that it has left them to others.
MAX_LEFT = 10_000


class LeftToOthers:
    """Remembers since when this process has seen steps wait for code that it lacks.

    Since when they have been due does not count: while a run was paused, or no worker was there, nobody could begin
    them.

    Args:
        settings: the deployment's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: (run, generation, step) -> when it was seen first, in ms of the store's clock
        self._since: dict[tuple[str, int, str], int] = {}

    def too_long(self, snapshot: Snapshot, step: str) -> bool:
        """Whether a step has waited for its ``schedule_to_start``, and a lease at least, since it was seen first."""
        if step not in snapshot.definition.steps:
            return False  # It is one of a pass, or of a map, that this very decision begins.
        now = to_ms(snapshot.now)
        since = self._since.setdefault((snapshot.state.transaction_id, snapshot.generation, step), now)
        if len(self._since) > MAX_LEFT:
            del self._since[next(iter(self._since))]
        limit = snapshot.definition.steps[step].schedule_to_start or self._settings.schedule_to_start
        return now - since >= max(limit, self._settings.lease) * 1000
