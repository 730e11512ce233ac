"""The port behind which runs are kept, and the values that go through it.

What the store promises:

1. A `Commit` is applied whole or not at all: facts, state, timers and the next messages together (guarantee G1). It is
   fenced: by the attempt it answers, by the epoch of the run (which changes whenever the run changes direction), or by
   the run's version (which every commit raises).
2. Every call may be sent twice. The second finds the fence gone and changes nothing.
3. The store's clock is the only clock: leases and timers are set by it and compared with it.
4. Every attempt in flight has a *record*: dispatched, waiting for its time, or claimed under a lease. Whoever holds no
   record has no say. Every record has an entry in ``due`` or, while its message waits in a broker list, in ``sent``; so
   no run is ever without somebody who looks after it (guarantee G4).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from multiagents.events import ErrorInfo, Event
from multiagents.exceptions import WorkflowError
from multiagents.names import Correlation, Direction
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState, RunStatus, StepState

#: Grace between a time limit and the sweep acting on it: the worker itself reports first where it can.
LIMIT_GRACE_MS = 1_000
#: A linked undo that nobody claimed within this time has lost its link.
LINK_GRACE_MS = 2_000


class Via(StrEnum):
    """How an attempt gets to its worker; the values are what a record keeps."""

    #: the commit itself pushes the message to the broker's list
    PUSH = "s"
    #: not yet: a timer dispatches it
    TIMER = "w"
    #: the task of the undo before it carries it as its Celery link
    LINK = "l"
    #: another broker: published after the commit, and again while nobody claims it
    OUTBOX = "o"
    #: nobody is asked: a foreign producer answers
    EXTERNAL = "e"
    #: a worker holds it under a lease
    CLAIMED = "c"


def mark_of(direction: Direction, attempt: int) -> str:
    """The short name of an attempt within its step: ``d1``, ``u2``."""
    return f"{'u' if direction is Direction.UNDO else 'd'}{attempt}"


def parse_mark(mark: str) -> tuple[Direction, int]:
    """The inverse of `mark_of`."""
    return (Direction.UNDO if mark[0] == "u" else Direction.DO), int(mark[1:])


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One attempt that is to go out with a commit.

    Attributes:
        step: the step.
        mark: the attempt, as `mark_of` writes it.
        via: how it goes.
        target: the broker list (push) or queue (outbox).
        prefix: the rendered message up to its number, for a push.
        suffix: the rest of it.
        delay_ms: for a timer: how long to wait.
        first_ms: when the step was first dispatched; 0 is now.
        close_ms: the absolute time by which the step has to be over; 0 is none.
        start_within_ms: how long it may stay unclaimed; 0 is without limit.
    """

    step: str
    mark: str
    via: Via = Via.PUSH
    target: str = ""
    prefix: str = ""
    suffix: str = ""
    delay_ms: int = 0
    first_ms: int = 0
    close_ms: int = 0
    start_within_ms: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """One transition of a run.

    Attributes:
        transaction_id: the run.
        events: the facts, oldest first; they go into the history.
        header: changed fields of the header; an empty value removes the field.
        steps: changed steps.
        answers: (step, what its record has to start with): the attempt that this commit answers, and ends.
        unrenewed: refuse if the lease of that attempt was renewed since it was found due (`Due.seen_ms`).
        ends: (step, the exact record) of other attempts that this commit takes back.
        epoch: refuse if the run has changed direction since.
        version: refuse if anything was committed since.
        results: step -> its result.
        inputs: step -> what its ``inputs`` answered.
        context: what to merge into the stored context.
        dispatches: attempts that go out.
        joins: step -> how many steps it waits for; each gets one landing counted.
        landed: a decision is owed: leave a ``due`` entry for it.
        wake: (list, prefix, suffix) of an orchestrator message to push along with it.
        decided: this is that decision: remove the entry.
        moved: (workflow, status before, status after): the run changes its place in the indexes.
        retention_ms: the run is over; keep it that long. None while it is not.
    """

    transaction_id: str
    events: Sequence[Event]
    header: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, StepState] = field(default_factory=dict)
    answers: tuple[str, str] | None = None
    unrenewed: int | None = None
    ends: Sequence[tuple[str, str]] = ()
    epoch: int | None = None
    version: int | None = None
    results: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    dispatches: Sequence[Dispatch] = ()
    joins: Mapping[str, int] = field(default_factory=dict)
    landed: bool = False
    wake: tuple[str, str, str] | None = None
    decided: bool = False
    moved: tuple[str, str, str] | None = None
    retention_ms: int | None = None


class Verdict(StrEnum):
    """What became of a commit."""

    APPLIED = "applied"
    #: the attempt it answers is not the one in flight: a duplicate, or too late
    LATE = "late"
    #: the run has moved on: load it again and decide again
    CONFLICT = "conflict"
    #: the attempt that was to be given up is alive after all
    RENEWED = "renewed"
    #: there is no such run
    MISSING = "missing"


class Committed(NamedTuple):
    """The answer to a commit."""

    verdict: Verdict
    #: a join was completed: a decision over the whole run is owed
    joined: bool = False


class InFlight(NamedTuple):
    """The record of an attempt in flight, taken apart."""

    step: str
    mark: str
    via: Via
    #: the record as it is stored: what a fence compares with
    record: str
    #: dispatched, due or claimed at
    since_ms: int
    #: first dispatched at (0 for a claimed one)
    first_ms: int = 0
    #: by when the step has to be over, 0 for no limit
    close_ms: int = 0
    target: str = ""
    number: int = 0
    owner: str = ""
    deadline_ms: int = 0
    beat_until_ms: int = 0
    worker: str = ""

    @property
    def direction(self) -> Direction:
        """Whether the step is being done or undone."""
        return parse_mark(self.mark)[0]

    @property
    def attempt(self) -> int:
        """The number of the attempt."""
        return parse_mark(self.mark)[1]

    @classmethod
    def parse(cls, step: str, record: str) -> InFlight:
        """Take a record apart."""
        mark, via, rest = record.split("|", 2)
        kind = Via(via)
        if kind is Via.CLAIMED:
            owner, claimed, deadline, beat_until, _beat, worker = rest.split("|", 5)
            return cls(
                step,
                mark,
                kind,
                record,
                int(claimed),
                owner=owner,
                deadline_ms=int(deadline),
                beat_until_ms=int(beat_until),
                worker=worker,
            )
        since, first, close, number, target = rest.split("|", 4)
        return cls(step, mark, kind, record, int(since), int(first), int(close), target=target, number=int(number))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run as the store has it: its whole state, and what is in flight."""

    state: RunState
    definition: Definition
    in_flight: Mapping[str, InFlight]
    version: int
    epoch: int
    #: the store's clock
    now: datetime


@dataclass(frozen=True, slots=True)
class Payloads:
    """The data of a run.

    Attributes:
        input: what it was started with.
        context: what trunk steps returned, merged.
        results: step -> result.
        inputs: step -> what its ``inputs`` answered.
    """

    input: dict[str, Any]
    context: dict[str, Any]
    results: dict[str, Any]
    inputs: dict[str, Any]

    def merged(self, parts: Iterable[str]) -> dict[str, Any]:
        """The input, the stored context and these steps' results, in this order."""
        return merge({**self.input, **self.context}, self.results, parts)

    def of(self, definition: Definition, step: str) -> dict[str, Any]:
        """The context of a step: the input and the results of all its ancestors, in definition order."""
        return merge(dict(self.input), self.results, definition.ancestors(step))


def as_mapping(step: str, result: Any) -> dict[str, Any]:
    """What a result adds to the context: itself if it is a dict, else itself under the step's name."""
    if result is None:
        return {}
    return result if isinstance(result, dict) else {step: result}


def merge(context: dict[str, Any], results: Mapping[str, Any], steps: Iterable[str]) -> dict[str, Any]:
    """Merge the results of these steps into a context, in this order."""
    for step in steps:
        if step in results:
            context.update(as_mapping(step, results[step]))
    return context


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker needs to run one attempt, and to decide what follows from it.

    Attributes:
        correlation: the attempt.
        definition: what the run follows.
        context: what the function gets (in an undo: the step's context merged with its result).
        input: the step's own input: the context, or what its ``inputs`` answered.
        result: in an undo, what the step returned, if it did.
        outcome: in an undo, ``succeeded``, ``unknown`` or ``failed``.
        error: in an undo, the run's original error.
        deadline: when the attempt has to be over, by the store's clock.
        owner: the lease's token.
        cancelled: the run is to stop.
        state: the run, as a projection that holds this step.
        epoch: fences the commit.
        merged: the context as the store has it (before ``inputs``), for the steps that follow.
        parts: steps whose results are in ``merged`` and not yet in the stored context.
        now: the store's clock.
    """

    correlation: Correlation
    definition: Definition
    context: dict[str, Any]
    input: Any
    owner: str
    state: RunState
    epoch: int
    merged: dict[str, Any]
    now: datetime
    parts: Mapping[str, Any] = field(default_factory=dict)
    result: Any = None
    outcome: str | None = None
    error: ErrorInfo | None = None
    deadline: datetime | None = None
    cancelled: bool = False


class ClaimRefused(WorkflowError):  # noqa: N818 - not an error of anybody: the message came too late, or twice
    """The attempt is not to be run: somebody else has it, it is over, or the run is."""

    def __init__(self, correlation: Correlation, reason: str) -> None:
        self.correlation = correlation
        self.reason = reason
        super().__init__(f"attempt {correlation} is not run: {reason}")


class Renewal(NamedTuple):
    """The answer to a renewed lease."""

    #: False: the lease is no longer ours, and what the attempt does will be refused
    alive: bool
    #: the run is to stop
    cancelled: bool


class Due(NamedTuple):
    """Something whose time has come. It is leased to the caller, who removes it by the commit that handles it."""

    #: ``a`` an attempt, ``q`` an attempt that had to be claimed by now, ``r`` a run to decide, ``x`` a run to forget
    kind: str
    transaction_id: str
    step: str
    mark: str
    #: the entry itself
    member: str
    #: the time it is leased until; whoever else touches the entry changes it
    seen_ms: int


class Started(NamedTuple):
    """The answer to a start: whether the run is new, and if not, what it was started with."""

    created: bool
    workflow: str
    definition_hash: str
    input_digest: str


class Page(NamedTuple):
    """A page of a listing; ``cursor`` is None on the last one."""

    transaction_ids: list[str]
    cursor: str | None


class StateStore(ABC):
    """Where runs live. Every method is safe to call again, and safe to call from any thread."""

    @abstractmethod
    def start(self, definition: Definition, state: RunState, commit: Commit, input: Any, digest: str) -> Started:
        """Create a run with its first commit, unless it exists.

        Args:
            definition: kept as a snapshot by its content hash (rule S26).
            state: the run after the commit.
            commit: its first facts and dispatches.
            input: the run's input, a JSON object.
            digest: hash of the input, to tell a repeated start from a different one.
        """

    @abstractmethod
    def claim(
        self,
        correlation: Correlation,
        definition_hash: str,
        *,
        owner: str,
        worker: str,
        timeout: float | None,
        heartbeat_timeout: float | None = None,
    ) -> Claim:
        """Take an attempt under a lease, and get all that running and deciding it needs. One round trip.

        A re-sent claim with the same owner gets the same answer.

        Args:
            correlation: the attempt.
            definition_hash: which definition its run follows, as the message says.
            owner: a token of this very execution.
            worker: who runs it (a Celery node name).
            timeout: seconds from now to the time limit; None is none.
            heartbeat_timeout: seconds between two heartbeats; None asks for none.

        Raises:
            ClaimRefused: when it is not to be run.
        """

    @abstractmethod
    def renew(self, correlation: Correlation, owner: str, *, beat: bool = False, detail: Any = None) -> Renewal:
        """Extend a lease; with ``beat`` it counts as the worker's own heartbeat."""

    @abstractmethod
    def commit(self, commit: Commit) -> Committed:
        """Apply a transition, or refuse it whole."""

    @abstractmethod
    def dispatch(self, transaction_id: str, dispatch: Dispatch, expected: str) -> bool:
        """Send an attempt out (again), if its record is still the expected one; no fact comes of it."""

    @abstractmethod
    def postpone(self, entry: str, transaction_id: str, delay_ms: int) -> None:
        """Look at a due entry again later."""

    @abstractmethod
    def discard(self, entry: str, transaction_id: str) -> None:
        """Remove a due entry that asks for nothing any more."""

    @abstractmethod
    def expire(self, correlation: Correlation) -> bool:
        """Make the lease of an attempt due now: its worker is known to be dead."""

    @abstractmethod
    def take_due(self, *, limit: int = 100) -> tuple[list[Due], float]:
        """Lease what is due, over all partitions.

        Returns:
            the entries, and the seconds until the next one is due (at most the sweep interval).
        """

    @abstractmethod
    def load(self, transaction_id: str) -> Snapshot:
        """The whole state of a run.

        Raises:
            WorkflowNotFoundError: when there is no such run.
        """

    @abstractmethod
    def payloads(self, transaction_id: str) -> Payloads:
        """The data of a run."""

    @abstractmethod
    def results(self, transaction_id: str) -> dict[str, Any]:
        """Step -> result, of the steps that returned something."""

    @abstractmethod
    def history(self, transaction_id: str, after: int = 0) -> list[Event]:
        """The events of a run, oldest first, from the n-th on."""

    @abstractmethod
    def list_runs(
        self,
        *,
        statuses: Sequence[RunStatus],
        workflow: str | None = None,
        since: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """The runs in these statuses, newest first."""

    @abstractmethod
    def count(self, status: RunStatus, workflow: str | None = None) -> int:
        """How many runs are in a status."""

    @abstractmethod
    def wait_for_end(self, transaction_id: str, timeout: float | None) -> RunStatus:
        """Block until the run is over.

        Raises:
            TimeoutError: when it is not, after ``timeout`` seconds.
            WorkflowNotFoundError: when there is no such run.
        """

    @abstractmethod
    def forget(self, transaction_id: str) -> None:
        """Remove a run that is over, with everything that belongs to it."""

    @abstractmethod
    def bury(self, transaction_id: str, key: str, letter: Mapping[str, Any]) -> None:
        """Keep what could not be delivered or undone, with its payload."""

    @abstractmethod
    def dead_letters(self) -> dict[str, dict[str, Any]]:
        """What was buried, by key."""

    @abstractmethod
    def unattended(self) -> list[str]:
        """Runs that nothing looks after (guarantee G4 says that there are none)."""

    @abstractmethod
    def now(self) -> datetime:
        """The store's clock."""

    @abstractmethod
    def check(self) -> list[str]:
        """What is wrong with the server's version and settings, in words; it raises when it cannot be used at all."""

    def for_sweep(self) -> StateStore:
        """The same store, with a client that gives up at once: the sweep asks again at its next tick."""
        return self

    def close(self) -> None:  # noqa: B027 - most stores have nothing to close
        """Give connections back."""


def dumps(value: Any) -> str:
    """JSON as the store keeps it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def from_ms(milliseconds: int) -> datetime:
    """A time of the store's clock."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
