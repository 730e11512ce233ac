"""What a process runs attempts with. It is handed down from above: the workers' side knows no orchestrator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from multiagents.events import ErrorEvent, ResultEvent
    from multiagents.settings import Settings
    from multiagents.state_store import StateStore
    from multiagents.state_store.records import Claim, Settled


class Settle(Protocol):
    """Records an outcome."""

    def __call__(self, event: ResultEvent | ErrorEvent, claim: Claim, *, may_go_on: bool) -> Settled:
        """Record it; ``may_go_on`` says that a local step that follows may be held for this process."""


@dataclass(frozen=True, slots=True)
class WorkerRuntime:
    """What one process runs attempts with; a forked child has its own.

    Attributes:
        store: where attempts are claimed.
        new_store: makes the same store with connections of its own. Under gevent a connection belongs to the thread
            that made it, so coroutines and the renewing of leases, which run in other threads, get such stores.
        settings: the deployment's.
        settle: records what came of a claimed attempt.
        unclaimable: records the failure of an attempt whose claim, under a token, came to an error.
        came_late: records what came of something when it was not this worker's any more.
        limited: whether limits by key hold here; where all attempts run one after the other, they would only wait for
            themselves.
        time_limit: ``task_time_limit``: seconds that no attempt may exceed; None for any.
    """

    store: StateStore
    new_store: Callable[[], StateStore]
    settings: Settings
    settle: Settle
    unclaimable: Callable[[ErrorEvent, str], None]
    came_late: Callable[[ResultEvent], None]
    limited: bool
    time_limit: float | None = None
