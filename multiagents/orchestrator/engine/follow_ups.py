"""What a commit leaves to be done by the process that has made it, as values.

A commit touches one run. What concerns others (children that are to be started or to stop, a parent that waits, a lock
to be asked for), and what did not fit into the commit, is done right after it. Each of these is looked after by an
entry of its run in ``due``, so if this process dies first, the sweep does it; each is safe to repeat.

They are values, and one loop carries them out (`multiagents.orchestrator.engine.engine`): whoever commits calls nobody,
and a chain of runs of any length needs the stack of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Advance", "AskForLock", "FollowUp", "Progressed", "TendChildren"]


class TendChildren(NamedTuple):
    """Steps that are runs of their own are in flight: have them started, or undone."""

    transaction_id: str
    steps: Sequence[str]


class AskForLock(NamedTuple):
    """A step waits for a lock: ask for it."""

    transaction_id: str
    step: str


class Advance(NamedTuple):
    """More is due of a run than its commit has said, or others have to be told of it.

    Attributes:
        transaction_id: the run.
        may_link: the task in which this is done may carry a single next undo as its link.
    """

    transaction_id: str
    may_link: bool = False


class Progressed(NamedTuple):
    """A run was moved on from outside; where runs are driven in this process, somebody has to drive it."""

    transaction_id: str


FollowUp = TendChildren | AskForLock | Advance | Progressed
