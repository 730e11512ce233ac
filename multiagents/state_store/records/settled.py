"""What recording an outcome leaves to whoever recorded it: the one value that engine and worker SDK pass each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from multiagents.state_store.records.claim import Claim


class Settled(NamedTuple):
    """What a commit leaves to the task that made it.

    Attributes:
        links: Celery signatures that the task is to carry as its links.
        local: an attempt that this process is to run now.
    """

    links: Sequence[Any] = ()
    local: Claim | None = None
