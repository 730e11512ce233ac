"""The part of the port that keeps what steps say while they run, for whoever follows a run (decision 0041).

1. A run has one stream, of bounded length, which goes with it. Another run of the same id begins a new one.
2. Only who holds the attempt writes. The first thing that another attempt of a step says is that it is another one.
3. Entries are numbered without holes. So a reader that comes back by offset gets each once, and learns what it missed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from multiagents.names import Correlation
from multiagents.state_store.records import Said, StreamPage


class Streams(ABC):
    """What steps say. Every method is safe to call again, and safe to call from any thread."""

    @abstractmethod
    def append(self, correlation: Correlation, owner: str, said: Sequence[Said], *, before: int, most: int) -> bool:
        """Write down what an attempt says. One round trip.

        Args:
            correlation: the attempt.
            owner: the token that holds it.
            said: what it says.
            before: how many entries it has written before these; who repeats a call repeats it.
            most: how many entries the run's stream keeps, about.

        Returns:
            whether the attempt is still ours; if not, nothing is written.
        """

    @abstractmethod
    def read(self, transaction_id: str, after: str = "") -> StreamPage:
        """What comes next in a run's stream. One round trip.

        Where entries behind ``after`` are not kept any more, an entry of kind ``gap`` says so.

        Args:
            transaction_id: the run.
            after: the last entry that is known, as `StreamPage.offset` has it; empty: from the beginning.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            DecodeError: when an entry cannot be read here.
        """
