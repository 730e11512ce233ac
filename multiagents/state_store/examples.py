"""The part of the port that keeps what agents have done, to learn from (decision 0046).

What it keeps to:

1. An example is written by the commit that ends the attempt (`Commit.lesson`): it is there if and only if that is, once
   for each step of a run, and the last attempt's. Nothing else is asked of the store for it.
2. How its saga ended is looked up at the run as long as there is one, so it is right whoever dies, and also when a run
   is compensated a day after its end. Whatever takes the run away writes it down in the same moment.
3. It outlives its run. `StateStore.delete` takes the run's examples with it; `forget` does so of a run that is gone.
4. A worker has so many, for so long; the oldest go first. Over several partitions that is so many of each.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.records import Example, Experience, Feedback, StoredExample

logger = logging.getLogger(__name__)

#: How many examples one round trip reads.
READ_AT_ONCE = 100
#: How many go at once, of a worker and partition, where others come or time passes.
DROPPED_AT_ONCE = 100


class ExamplePage(NamedTuple):
    """Some of the examples of a worker, newest first, and the place before which the next ones are; None: no more."""

    examples: list[Example]
    before: int | None


class FeedbackGiven(NamedTuple):
    """Which steps feedback was given to, and which of the run have examples."""

    given: list[str]
    steps: list[str]


def readable(worker: str, stored: Sequence[StoredExample], policy: PayloadPolicy) -> list[Example]:
    """Examples as they may be used; one that cannot be read here is left out, and warned of."""
    found = []
    for one in stored:
        if not one.text:
            continue  # it goes at this moment
        try:
            found.append(Example.decode(worker, one, policy))
        except Exception as error:  # noqa: BLE001 - whatever is stored there
            what, kind = one.member.replace("|", "/"), type(error).__name__
            logger.warning("example %s of %s is left out, for it cannot be read: %s: %s", what, worker, kind, error)
    return found


class Examples(ABC):
    """What agents have done. Every method is safe to call again, and safe to call from any thread."""

    @abstractmethod
    def page(self, worker: str, keep_ms: int, *, limit: int = READ_AT_ONCE, before: int | None = None) -> ExamplePage:
        """Some of the examples of a worker, newest first. One that cannot be read here is left out, and warned of.

        Args:
            worker: the worker.
            keep_ms: none that is older.
            limit: how many; some more where several were written at once.
            before: those before this place (`Example.place`); None: the newest.
        """

    def all(self, worker: str, keep_ms: int, limit: int | None = None) -> Iterator[Example]:
        """The examples of a worker, newest first, page by page.

        Args:
            worker: the worker.
            keep_ms: none that is older.
            limit: so many of the newest; None: all.
        """
        before: int | None = None
        left = limit
        while left is None or left > 0:
            page = self.page(
                worker, keep_ms, limit=READ_AT_ONCE if left is None else min(left, READ_AT_ONCE), before=before
            )
            found = page.examples if left is None else page.examples[:left]
            yield from found
            if page.before is None:
                return
            before, left = page.before, None if left is None else left - len(found)

    @abstractmethod
    def of_step(self, identity: str, step: str) -> tuple[str, Experience] | None:
        """What a step has left, and its worker; None if it has left nothing that can be read here.

        Args:
            identity: the run, as `multiagents.names.identity_of` writes it.
            step: the step.
        """

    @abstractmethod
    def feedback(
        self, transaction_id: str, said: Feedback, *, step: str | None = None, nonce: str | None = None
    ) -> FeedbackGiven:
        """Note what somebody says of what a run's agents have done; what was said before is forgotten.

        Args:
            transaction_id: the run; it may be gone.
            said: what is said; when, is the store's to say.
            step: of this step alone; None: of all that have an example.
            nonce: which of those that have had the id; None: the one that has it, else the last one that had.
        """

    @abstractmethod
    def forget(self, transaction_id: str) -> int:
        """Drop the examples of runs that have had an id and are gone; how many there were."""

    @abstractmethod
    def tidy(self, keep_ms: int) -> None:
        """Drop what is older, of all workers."""
