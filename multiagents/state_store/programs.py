"""The part of the port that keeps what agents have learned: programs by worker and version, and which are in place.

A program is JSON, and so are its versions' notes. What it keeps to:

1. A version is never changed; which ones are in place is said beside them, by one placement for each worker.
2. A change of the placement is fenced by the revision that it was made from: of two at once, one is told to look again.
3. Whoever puts a program in twice, under one token, gets one version.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from multiagents.state_store.records import Placement, ProgramChange, ProgramRecord


class Programs(ABC):
    """The programs of workers. Every method is safe to call again, and safe to call from any thread."""

    @abstractmethod
    def add(self, worker: str, program: Any, about: Mapping[str, Any], *, token: str) -> int:
        """Keep a program; it is in place nowhere.

        The newest `records.MAX_PROGRAMS` are kept, and those that are in place or were before.

        Args:
            worker: whose it is.
            program: plain JSON.
            about: notes on it, which may be shown: plain JSON.
            token: of this very program: sent twice, it gets the same version.

        Returns:
            its version, from 1.
        """

    @abstractmethod
    def get(self, worker: str, version: int) -> Any:
        """A program, as it was put in; None if it is not kept."""

    @abstractmethod
    def records(self, worker: str) -> list[ProgramRecord]:
        """What is known of the programs that are kept, oldest first."""

    @abstractmethod
    def placement(self, worker: str) -> Placement:
        """Which programs are in place. One look."""

    @abstractmethod
    def place(self, worker: str, placement: Placement, about: Mapping[str, Any]) -> bool:
        """Put programs in place.

        Args:
            worker: whose.
            placement: which, made from one that `placement` has given: its revision says which one.
            about: what is done, by whom and why: plain JSON.

        Returns:
            whether it is so; not if somebody was faster, or one of the programs is not kept.
        """

    @abstractmethod
    def changes(self, worker: str) -> list[ProgramChange]:
        """The last changes of what is in place, oldest first; at most `records.MAX_PROGRAM_CHANGES`."""
