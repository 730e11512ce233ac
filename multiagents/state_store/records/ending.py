"""The end of a run, or what comes next of it, that somebody waits for."""

from __future__ import annotations

from concurrent.futures import Future

from multiagents.workflow.state import RunStatus


class Ending(Future[RunStatus]):
    """What `StateStore.ending` gives: its result is the status at the end. Who waits no more cancels it.

    Threads wait with ``result(timeout)``, coroutines with ``asyncio.wrap_future``.

    Args:
        after: the version of the run that is known: a newer one is waited for, or the end. None: the end alone.
        poll: seconds between two looks at it, where the store has to look.

    Attributes:
        seen: what the run was when somebody looked last; None if nobody has yet.
        version: its version then.
    """

    def __init__(self, after: int | None = None, poll: float = 1.0) -> None:
        super().__init__()
        self.after = after
        self.poll = poll
        self.seen: RunStatus | None = None
        self.version = 0

    def look(self, status: RunStatus, version: int) -> None:
        """Take in what was seen of the run."""
        self.seen, self.version = status, version
        if status.is_end or (self.after is not None and version != self.after):
            self.set_result(status)
