"""The port through which attempts go out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from multiagents.names import DEFAULT_QUEUE, Correlation
from multiagents.retry import RetryPolicy
from multiagents.state_store.records import OUTBOX_GRACE_MS, Announced, Dispatch
from multiagents.workflow.definition import Definition, StepDefinition


def outbox_grace_ms(lease: float) -> int:
    """After how long (ms) an attempt that nobody claimed is published again, for a lease in seconds: two of them."""
    return min(OUTBOX_GRACE_MS, round(2 * lease * 1000))


def task_of(definition: Definition, correlation: Correlation, *, probe: bool) -> tuple[StepDefinition, str]:
    """The step that an attempt belongs to, and the worker that makes it."""
    step = definition.steps[correlation.step]
    return step, step.worker_of(correlation.direction, probe=probe)


class Dispatcher(ABC):
    """Gets attempts to workers. ``atomic`` says whether the commit itself can push the message."""

    #: the broker is the store's own Redis database: messages go out inside the commit
    atomic: bool
    #: it asks other processes, which may be there or not
    asks_others: bool = True
    #: the default queue of the app
    home: str = DEFAULT_QUEUE
    #: the Celery node of the worker that this process belongs to; empty where it is none
    node: str = ""

    @property
    def start_suffix(self) -> str:
        """What names of broker lists end with in which starts wait behind all else; empty where there are none."""
        return ""

    def raise_starts(self, has_waited: Callable[[Correlation], bool]) -> None:  # noqa: B027 - the store may see to it
        """Have starts that have waited long in a broker that is not the store go on among what is consumed before them.

        Args:
            has_waited: whether an attempt, or (without a step) a run that is to be decided, has waited long enough, or
                is waited for by nobody.
        """

    @abstractmethod
    def address(
        self,
        definition: Definition,
        correlation: Correlation,
        *,
        losses: int = 0,
        probe: bool = False,
        first: bool = False,
        home: str | None = None,
    ) -> Dispatch:
        """An attempt as a dispatch that goes out at once: pushed by the commit, or through the outbox.

        Args:
            definition: what the run follows.
            correlation: the attempt.
            losses: how many attempts of the step were lost; from two on the quarantine queue takes it, if consumed.
            probe: it goes to the step's probe in the place of its worker; so it is wherever that is asked here.
            first: it starts a run, and may wait behind what runs under way have to send.
            home: the default queue of the app whose run it is; there goes what names no queue, if that app has the
                worker. None where that is not known.
        """

    @abstractmethod
    def retry_policy(
        self, definition: Definition, correlation: Correlation, *, probe: bool = False
    ) -> RetryPolicy | None:
        """The policy of the attempt's worker, where it is known here: for attempts that end without their worker."""

    def has_worker(self, worker: str) -> bool:  # noqa: ARG002 - of none is it known
        """Whether this process can run a worker."""
        return False

    def can_call(self, worker: str) -> bool:  # noqa: ARG002 - as above
        """Whether a name is that of a Celery task of this process, worker or not."""
        return False

    def timeout_of(self, worker: str) -> float | None:  # noqa: ARG002 - as above
        """The time limit that a worker has of its own, where it is known here: seconds, 0 is none."""
        return None

    def announced(self, *, fresh: bool = False) -> Announced:  # noqa: ARG002 - nobody announces anything
        """What worker processes have announced of themselves, as it was known some seconds ago.

        Args:
            fresh: as it was known a second ago.
        """
        return Announced()

    def queue_of(self, target: str) -> str:
        """The queue that a broker list holds messages of; a queue is its own."""
        return target

    def queue_for(self, worker: str, queue: str | None) -> str:  # noqa: ARG002 - nothing is known of it
        """The queue that a worker's messages go to, where a step names that one, or none; empty where that is open."""
        return queue or ""

    def is_consumed(self, queue: str) -> bool | None:  # noqa: ARG002 - of none is it known
        """Whether some worker, of this store or not, listens to a queue; None when nobody has answered."""
        return None

    def workers_here(self) -> dict[str, dict[str, Any]]:
        """What a worker process announces of its workers, for those who send steps and have not imported them."""
        return {}

    @abstractmethod
    def publish(
        self,
        definition: Definition,
        correlation: Correlation,
        target: str,
        *,
        probe: bool = False,
        first: bool = False,
    ) -> None:
        """Publish an attempt through the broker's own client (the outbox)."""

    @abstractmethod
    def backlog(self, target: str) -> int:
        """How many messages wait in a queue; -1 when the broker cannot tell."""

    @abstractmethod
    def is_deserted(self, target: str) -> bool:
        """Whether a broker list or queue is a quarantine to which no worker listens any more, as far as is known."""

    @abstractmethod
    def link(
        self, definition: Definition, correlation: Correlation, *, probe: bool = False, home: str | None = None
    ) -> Any:
        """The attempt as a Celery signature, for the task of the undo before it to carry as its link."""

    @abstractmethod
    def orchestration(self, transaction_id: str, *, first: bool = False) -> tuple[str, str, str] | None:
        """The orchestrator's message for a run, to be pushed by a commit; None where commits cannot push."""

    @abstractmethod
    def send_orchestration(self, transaction_id: str, *, first: bool = False) -> None:
        """Publish the orchestrator's message through the broker's own client."""

    @abstractmethod
    def orchestration_link(self, transaction_id: str) -> Any:
        """The orchestrator's message as a Celery signature."""
