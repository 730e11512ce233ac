"""The port of a store for large payloads.

Without one, a large payload lies in a key of its own beside its run, written by the very script that refers to it. With
one, it is put there *before* the commit that refers to it. So a reference never points to nothing; but a commit that is
refused, or a process that dies in between, leaves a payload that nothing refers to. Hence the one rule:

What is put must be there until its run is forgotten, and must be gone by itself some time after, even if `forget` is
never called: at the latest when the store's own lifetime of data is over. That lifetime has to be longer than the
longest run and its retention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class PayloadStore(Protocol):
    """Keep large payloads. Every call may come twice, and from any thread.

    Whatever a method raises counts as the store being away: the caller tries again.
    """

    @property
    def name(self) -> str:
        """What references to payloads in this store say: 1 to 32 characters of ``A-Z a-z 0-9 . _ -``, for ever."""

    def put(self, transaction_id: str, payloads: Mapping[str, str]) -> None:
        """Keep payloads of a run; when this returns, they are durable.

        Args:
            transaction_id: the run; it may not exist yet, and may never.
            payloads: name -> text. A name is a hash of its text, so what is there already need not be written again.
        """

    def get(self, transaction_id: str, names: Sequence[str]) -> Mapping[str, str]:
        """The payloads of a run by name; what is not there is left out."""

    def forget(self, transaction_id: str) -> None:
        """Remove all payloads of a run, those of refused commits included."""
