"""The end of a run, or what comes next of it, that somebody waits for."""

from __future__ import annotations

from concurrent.futures import Future

from multiagents.state_store.records.stream import is_newer
from multiagents.workflow.state import RunStatus


class Ending(Future[RunStatus]):
    """What `StateStore.ending` gives: its result is the status at the end. Who waits no more cancels it.

    Threads wait with ``result(timeout)``, coroutines with ``asyncio.wrap_future``.

    Args:
        after: the version of the run that is known: a newer one is waited for, or the end. None: the end alone.
        poll: seconds between two looks at it, where the store has to look.
        entry: the last entry of its stream that is known: a newer one is waited for, or the end. None: no entry is.

    Attributes:
        seen: what the run was when somebody looked last; None if nobody has yet.
        version: its version then.
    """

    def __init__(self, after: int | None = None, poll: float = 1.0, entry: str | None = None) -> None:
        super().__init__()
        self.after = after
        self.poll = poll
        self.entry = entry
        self.seen: RunStatus | None = None
        self.version = 0

    def look(self, status: RunStatus, version: int, streamed: str = "") -> None:
        """Take in what was seen of the run, and the last entry of its stream."""
        self.seen, self.version = status, version
        if status.is_end or (self.after is not None and version != self.after):
            self.set_result(status)
        else:
            self.hear(streamed)

    def hear(self, streamed: str) -> None:
        """Take in that its stream has come to an entry."""
        if self.entry is not None and is_newer(streamed, self.entry):
            self.set_result(self.seen or RunStatus.RUNNING)
