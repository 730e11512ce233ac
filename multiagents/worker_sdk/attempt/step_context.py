"""What a worker may ask about the step it runs: `current_step`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any

from multiagents.exceptions import WorkerError
from multiagents.names import idempotency_key
from multiagents.state_store.records import check_attribute_count, plain_attributes
from multiagents.worker_sdk.attempt.streaming import Streaming

if TYPE_CHECKING:
    from multiagents.events import ErrorInfo, ResultEvent
    from multiagents.settings import Settings
    from multiagents.state_store import StateStore
    from multiagents.state_store.records import Claim, Lesson
    from multiagents.worker_sdk.attempt.leases import Lease
    from multiagents.worker_sdk.attempt.rate_limits import Slot


class StepContext:
    """The attempt that is running. Workers get it from `current_step`."""

    __slots__ = (
        "_claim",
        "_lease",
        "_results",
        "attributes",
        "came_late",
        "lesson",
        "limited",
        "said",
        "settings",
        "store_here",
        "usage",
    )

    def __init__(
        self,
        claim: Claim,
        lease: Lease,
        store_here: Callable[[], StateStore],
        settings: Settings,
        came_late: Callable[[ResultEvent], None],
        *,
        limited: bool = True,
    ) -> None:
        self._claim = claim
        self._lease = lease
        #: gives the store that the calling thread may use
        self.store_here = store_here
        self.settings = settings
        #: whether limits hold here: not where all attempts run one after the other
        self.limited = limited
        #: tells what came of a call of a tool, when the attempt was over
        self.came_late = came_late
        self._results: Results | None = None
        #: what `set_attributes` was given and the commit of the step writes; None is nothing
        self.attributes: dict[str, Any] | None = None
        #: what the attempt leaves to learn from, and the commit of the step writes
        self.lesson: Lesson | None = None
        #: what its calls have used, of an agent, for the event of its end
        self.usage: dict[str, Any] | None = None
        #: what it has said while it ran; None is nothing
        self.said: Streaming | None = None

    @property
    def transaction_id(self) -> str:
        """The run."""
        return self._claim.correlation.transaction_id

    @property
    def correlation_id(self) -> str:
        """The attempt: ``<transaction>/<step>/<do|undo>/<attempt>``; also the Celery task id."""
        return str(self._claim.correlation)

    @property
    def workflow(self) -> str:
        """The workflow's name."""
        return self._claim.definition.name

    @property
    def step(self) -> str:
        """The step's name."""
        return self._claim.correlation.step

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self._claim.correlation.attempt

    @property
    def failures(self) -> int:
        """How many attempts have failed before this one; lost ones, which are counted apart, not among them."""
        correlation = self._claim.correlation
        return self._claim.state.step(correlation.step).activity(correlation.direction).failures

    @property
    def direction(self) -> str:
        """``"do"``, or ``"undo"`` in a compensation."""
        return self._claim.correlation.direction.value

    @property
    def probing(self) -> bool:
        """Whether the worker is asked as the step's probe: not to do it, but to find out whether it took effect.

        ``step``, ``input`` and ``idempotency_key`` are those of the step then, and ``error`` is why nobody knows.
        """
        return self._claim.probing

    @property
    def idempotency_key(self) -> str:
        """The step's key: the same for all its attempts and for its undo (rule S25).

        A fork does its steps under keys of its own, and undoes what it took over under the key that it was done with.

        Never give a provider the same key for a charge and its refund: append ``direction``.
        """
        claim = self._claim
        transaction_id, step, *_ = claim.correlation
        return idempotency_key(transaction_id, step, claim.generation, claim.state.step(step).origin)

    @property
    def deadline(self) -> datetime | None:
        """When the attempt has to be over, by the store's clock; None for never."""
        return self._claim.deadline

    @property
    def input(self) -> Any:
        """The step's own input; in an undo, what the step had been given."""
        return self._claim.input

    @property
    def claim(self) -> Claim:
        """What the attempt was claimed with."""
        return self._claim

    def hold(self, slot: Slot) -> None:
        """Keep what a call has under a limit, with the lease of the attempt."""
        if self._lease.calls is None:
            self._lease.calls = set()
        self._lease.calls.add(slot)

    def let_go(self, slot: Slot, later_us: int = 0) -> None:
        """Give it back, and have the next one wait so much longer."""
        if self._lease.calls is not None:
            self._lease.calls.discard(slot)
        slot.free(later_us)

    @property
    def has_inputs(self) -> bool:
        """Whether the step narrows its context (``inputs``), so that `input` is made for its worker."""
        return self._claim.definition.own(self.step).inputs is not None

    @property
    def results(self) -> Mapping[str, Any]:
        """Step -> what it returned, of all steps that have succeeded, also of those that returned ``{}`` or None.

        It is read from the store when it is first looked into.
        """
        if self._results is None:
            self._results = Results(self.transaction_id, lambda run: self.store_here().results(run))
        return self._results

    @property
    def result(self) -> Any:
        """In an undo: what the step returned; None, too, when nobody knows: `outcome` tells."""
        return self._claim.result

    @property
    def outcome(self) -> str | None:
        """In an undo: how the step ended, ``"succeeded"``, ``"unknown"`` or ``"failed"`` (rule S4)."""
        return self._claim.outcome

    @property
    def error(self) -> ErrorInfo | None:
        """In an undo: the error that the run is undone for; in a probe: the error that left the outcome unknown."""
        if self.probing:
            return self._claim.state.step(self.step).do.error
        return self._claim.error

    def heartbeat(self, detail: Any = None) -> None:
        """Say that the step is alive and how far it is; the lease is renewed in the background.

        Args:
            detail: progress, shown with the run (``describe().steps[step].detail``): JSON, of which at most 16 KiB are
                kept; what is not JSON is shown as its text. It never makes the step fail.
        """
        self._lease.heartbeat(detail)

    def stream(self, item: Any) -> None:
        """Say something to whoever follows the run (`Run.stream`): how far the step is, a part of what it will return.

        It is written with what comes in the next moments, some times a second, and nobody waits for that. A run keeps
        the last ``multiagents_stream_length`` entries, about, for as long as it is kept itself. What an attempt says
        that is lost counts for nothing: readers are told when another one begins. It never makes the step fail, but
        for an item that cannot be written.

        Args:
            item: anything that can be written as JSON, of at most 64 KiB.

        Raises:
            WorkerError: when it cannot, or is larger.

        >>> current_step().stream({"file": 40, "of": 900})  # doctest: +SKIP
        """
        self.streaming.item(item)

    @property
    def streaming(self) -> Streaming:
        """What the attempt says while it runs."""
        if self.said is None:
            self.said = Streaming(self._claim, self.store_here, self.settings.stream_length)
        return self.said

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Say what the run is found by from now on; written with the outcome of this attempt, whatever it is.

        Nothing is asked of the store for it. The last value of a name counts; of an attempt that is lost or comes too
        late nothing is written. A run has at most 32 attributes; what a step sets beyond that is not kept.

        Args:
            attributes: name -> str (at most 256 characters, found as it is), int, float or datetime with a time zone
                (found by range), or None to remove it.

        Raises:
            WorkflowError: when a name or a value cannot be used.

        >>> current_step().set_attributes({"customer": "c-1", "amount": 12.5})  # doctest: +SKIP
        """
        merged = {**(self.attributes or {}), **plain_attributes(attributes)}
        check_attribute_count(len(merged), self.transaction_id)
        self.attributes = merged

    def is_cancelled(self) -> bool:
        """Whether there is no point in going on: the run is to stop, or the attempt is no longer this worker's.

        A cancelled run is undone (rule S20), so that a compensation is never asked to stop, and neither is a probe.
        """
        return self._lease.lost or (self._lease.cancelled and self.direction == "do" and not self.probing)

    def __repr__(self) -> str:
        return f"<StepContext {self.correlation_id} of {self.workflow!r}>"


class Results(Mapping[str, Any]):
    """The results of a run's steps, loaded when first needed."""

    def __init__(self, transaction_id: str, load: Callable[[str], Mapping[str, Any]]) -> None:
        self._transaction_id = transaction_id
        self._load = load
        self._loaded: Mapping[str, Any] | None = None

    def _all(self) -> Mapping[str, Any]:
        if self._loaded is None:
            self._loaded = self._load(self._transaction_id)
        return self._loaded

    def __getitem__(self, step: str) -> Any:
        return self._all()[step]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return f"{dict(self._all())!r}"


#: The attempt that runs in this context; set by the invocation.
running: ContextVar[StepContext | None] = ContextVar("multiagents_step", default=None)


def current_step() -> StepContext:
    """The attempt that the calling worker runs, also from its coroutines and from threads with a copied context.

    Raises:
        WorkerError: outside a step of a run, e.g. when the worker is called as a plain function.

    >>> current_step()
    Traceback (most recent call last):
    multiagents.exceptions.WorkerError: there is no current step: current_step() was called outside a run...
    """
    step = running.get()
    if step is None:
        raise WorkerError(
            "there is no current step: current_step() was called outside a run (in a plain call, in a .delay(), or in "
            "a thread that was started without contextvars.copy_context()); call it in a worker that a run has started"
        )
    return step
