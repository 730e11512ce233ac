"""The state of a run, without its payloads.

Two rules:

1. From which status a run may go to which is the table `RUN`. What the table does not list changes nothing.
2. A state may be a *projection*: a step that is missing from ``steps`` is taken as not started. As long as the run
   goes forward, whatever is decided from a projection is a part of what would be decided from the whole, never
   something else. That is what lets a worker advance a run of thousands of steps with only its own neighbourhood in
   hand. Going back needs the whole run: what is to be undone first depends on all that was done.

Times are milliseconds of the store's clock. Payloads (inputs, results) live in the run's context, once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from multiagents.events import ErrorInfo
from multiagents.names import DEFAULT_QUEUE, Correlation, Direction, identity_of
from multiagents.workflow.state.activity import CalledTool, StepState

__all__ = [
    "RUN",
    "Cause",
    "Parent",
    "RunState",
    "RunStatus",
    "Signal",
    "called_of",
    "parent_of",
    "rollbacks_of",
    "sizes_of",
]


class RunStatus(StrEnum):
    """Where a run stands. The last eight are end states (rule S18)."""

    #: announced, and not yet in the store (``start_on_commit``)
    PENDING = "pending"
    #: going forward
    RUNNING = "running"
    #: somebody has paused it, or a person has to decide (an unknown outcome that is to be parked)
    PAUSED = "paused"
    #: going back: in-flight steps settle, then finished ones are undone
    COMPENSATING = "compensating"
    #: every step succeeded or was skipped
    COMPLETED = "completed"
    #: a step failed, and every effect that has a compensation was undone
    COMPENSATED = "compensated"
    #: as compensated, but an operator skipped an undo
    COMPENSATED_PARTIALLY = "compensated_partially"
    #: an undo is parked: it failed for good, or nobody knows whether it took effect
    COMPENSATION_FAILED = "compensation_failed"
    #: cancelled on request, after undo
    CANCELLED = "cancelled"
    #: stopped on request, without undo
    TERMINATED = "terminated"
    #: its deadline passed, after undo
    TIMED_OUT = "timed_out"
    #: a step failed, and no succeeded or unknown step had a compensation
    FAILED = "failed"

    @property
    def is_end(self) -> bool:
        """Whether nothing more is dispatched for such a run."""
        return self not in _LIVE


_LIVE = frozenset({RunStatus.PENDING, RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.COMPENSATING})


class Cause(StrEnum):
    """Why a run compensates; it decides the end state."""

    FAILURE = "failure"
    CANCEL = "cancel"
    DEADLINE = "deadline"
    #: it was completed, and somebody asked to take it back (rule S24)
    REQUEST = "request"


#: From which status a run may go to which. The docs draw it from this table.
RUN: Mapping[RunStatus, frozenset[RunStatus]] = MappingProxyType(
    {
        RunStatus.PENDING: frozenset({RunStatus.RUNNING, RunStatus.TERMINATED}),
        RunStatus.RUNNING: frozenset(
            {RunStatus.COMPLETED, RunStatus.COMPENSATING, RunStatus.PAUSED, RunStatus.TERMINATED}
        ),
        RunStatus.PAUSED: frozenset({RunStatus.RUNNING, RunStatus.COMPENSATING, RunStatus.TERMINATED}),
        RunStatus.COMPENSATING: frozenset(
            {
                RunStatus.PAUSED,
                # Rule S12: its pivot succeeded while it was turning back.
                RunStatus.RUNNING,
                RunStatus.COMPENSATED,
                RunStatus.COMPENSATED_PARTIALLY,
                RunStatus.COMPENSATION_FAILED,
                RunStatus.CANCELLED,
                RunStatus.TERMINATED,
                RunStatus.TIMED_OUT,
                RunStatus.FAILED,
            }
        ),
        # Rule S24: a completed run is taken back on request.
        RunStatus.COMPLETED: frozenset({RunStatus.COMPENSATING}),
        # Rule S5: a late success reopens a run that went back, for its effect may have come after the undo.
        RunStatus.COMPENSATED: frozenset({RunStatus.COMPENSATING}),
        RunStatus.COMPENSATED_PARTIALLY: frozenset({RunStatus.COMPENSATING}),
        RunStatus.COMPENSATION_FAILED: frozenset({RunStatus.COMPENSATING}),
        RunStatus.CANCELLED: frozenset({RunStatus.COMPENSATING}),
        RunStatus.TIMED_OUT: frozenset({RunStatus.COMPENSATING}),
        RunStatus.FAILED: frozenset({RunStatus.COMPENSATING}),
    }
)


_NOT_STARTED = StepState()
_NO_MAPS: Mapping[str, int] = MappingProxyType({})
_NO_CALLS: Mapping[str, CalledTool] = MappingProxyType({})


class Signal(NamedTuple):
    """A signal that no step has taken yet; its data is kept in the run's data under its key."""

    name: str
    key: str
    #: what it says to an approval: ``yes``, ``no``, or neither
    answer: str = ""
    #: of a no that comes before it is asked for: who said it, and why; it is to be told with the error
    actor: str | None = None
    reason: str | None = None


class Parent(NamedTuple):
    """The attempt that waits for the end of this run."""

    correlation_id: str
    #: hash of the definition that the parent follows
    definition_hash: str
    #: of the parent: it tells it from another run that had its id before
    nonce: str = ""

    @property
    def correlation(self) -> Correlation:
        """The attempt, taken apart."""
        return Correlation.parse(self.correlation_id)._replace(nonce=self.nonce)

    def is_run(self, state: RunState) -> bool:
        """Whether it is an attempt of this very run."""
        return self.correlation.identity == state.identity


class RunState(NamedTuple):
    """A run: its header, and the steps that are known (rule 2 above)."""

    transaction_id: str
    workflow: str
    version: str = ""
    definition_hash: str = ""
    status: RunStatus = RunStatus.PENDING
    steps: Mapping[str, StepState] = MappingProxyType({})
    #: the error that turned the run back; errors of undos are attached as its causes (rule S19)
    error: ErrorInfo | None = None
    cause: Cause | None = None
    #: somebody asked to cancel
    cancel_requested: bool = False
    #: somebody has paused it
    paused: bool = False
    #: since when its timers stand still, while it is paused
    stopped_at: int | None = None
    #: when it is to be over, where that is not what its definition says
    deadline_at: int | None = None
    #: signals that no step has taken yet, oldest first
    signals: tuple[Signal, ...] = ()
    #: map -> how many items it has, where that is known
    sizes: Mapping[str, int] = _NO_MAPS
    #: the save-points that it has gone back to, oldest first
    rollbacks: tuple[str, ...] = ()
    #: the save-point that it is going back to
    back_to: str = ""
    #: the run is a child: who waits for its end
    parent: Parent | None = None
    #: the run that this one was forked from
    forked_from: str = ""
    #: losses after which a step's outcome is unknown; fixed when the run starts
    max_lost: int = 5
    started_at: int | None = None
    finished_at: int | None = None
    #: what tells it from other runs that have had its id
    nonce: str = ""
    #: the default queue of the app whose run it is; None where only a claim of it is known
    home: str | None = DEFAULT_QUEUE
    #: the steps that are calls of tools; each says so itself, and this is how it is known without a look at all of them
    called: Mapping[str, CalledTool] = _NO_CALLS

    @property
    def identity(self) -> str:
        """The run, told apart from others with its id."""
        return identity_of(self.transaction_id, self.nonce)

    def correlation(self, step: str, direction: Direction, attempt: int) -> Correlation:
        """An attempt of this very run."""
        return Correlation(self.transaction_id, step, direction, attempt, self.nonce)

    def step(self, name: str) -> StepState:
        """The state of a step; one that is not known is not started."""
        return self.steps.get(name, _NOT_STARTED)

    def is_probe(self, attempt: Correlation) -> bool:
        """Whether the attempt, which is the step's last one, asks its probe (rule S3)."""
        return attempt.direction is Direction.DO and self.step(attempt.step).do.probing

    def with_step(self, name: str, step: StepState) -> RunState:
        """The same run with one step replaced."""
        return self._replace(steps={**self.steps, name: step})

    def encode_header(self) -> dict[str, str]:
        """The header as the fields that the store keeps."""
        header = {
            "workflow": self.workflow,
            "version": self.version,
            "definition": self.definition_hash,
            "status": self.status.value,
            "nonce": self.nonce,
            "home": "" if self.home in (None, DEFAULT_QUEUE) else self.home,
            "max_lost": str(self.max_lost),
            "cause": self.cause.value if self.cause else "",
            "cancel": "1" if self.cancel_requested else "",
            "held": "1" if self.paused else "",
            "stopped": "" if self.stopped_at is None else str(self.stopped_at),
            "deadline": "" if self.deadline_at is None else str(self.deadline_at),
            "signals": json.dumps(self.signals) if self.signals else "",
            "sizes": json.dumps(dict(self.sizes)) if self.sizes else "",
            "rollbacks": json.dumps(self.rollbacks) if self.rollbacks else "",
            "back_to": self.back_to,
            "forked": self.forked_from,
            "parent": json.dumps(self.parent) if self.parent else "",
            "error": json.dumps(self.error.model_dump(mode="json", exclude_defaults=True)) if self.error else "",
            "started": "" if self.started_at is None else str(self.started_at),
            "finished": "" if self.finished_at is None else str(self.finished_at),
        }
        return {name: value for name, value in header.items() if value}

    @classmethod
    def decode(cls, transaction_id: str, header: Mapping[str, str], steps: Mapping[str, StepState]) -> RunState:
        """The inverse of `encode_header`, with the steps put back."""
        error = header.get("error")
        return cls(
            transaction_id=transaction_id,
            workflow=header["workflow"],
            version=header["version"],
            definition_hash=header["definition"],
            status=RunStatus(header["status"]),
            steps=steps,
            error=ErrorInfo.model_validate_json(error) if error else None,
            cause=Cause(header["cause"]) if header.get("cause") else None,
            cancel_requested=bool(header.get("cancel")),
            paused=bool(header.get("held")),
            stopped_at=int(header["stopped"]) if header.get("stopped") else None,
            deadline_at=int(header["deadline"]) if header.get("deadline") else None,
            signals=tuple(Signal(*signal) for signal in json.loads(header.get("signals") or "[]")),
            sizes=sizes_of(header.get("sizes")),
            rollbacks=rollbacks_of(header.get("rollbacks")),
            back_to=header.get("back_to", ""),
            parent=parent_of(header.get("parent")),
            forked_from=header.get("forked", ""),
            max_lost=int(header.get("max_lost", 5)),
            started_at=int(header["started"]) if header.get("started") else None,
            finished_at=int(header["finished"]) if header.get("finished") else None,
            nonce=header.get("nonce", ""),
            home=header.get("home", DEFAULT_QUEUE),
            called=called_of(steps),
        )


def sizes_of(text: str | None) -> Mapping[str, int]:
    """The sizes of a run's maps, as its header has them."""
    return json.loads(text) if text else _NO_MAPS


def called_of(steps: Mapping[str, StepState]) -> Mapping[str, CalledTool]:
    """Those of the steps that are calls of tools."""
    return {name: step.called for name, step in steps.items() if step.called is not None} or _NO_CALLS


def parent_of(text: str | None) -> Parent | None:
    """Who waits for a run, as its header has it."""
    return Parent(*json.loads(text)) if text else None


def rollbacks_of(text: str | None) -> tuple[str, ...]:
    """The save-points that a run has gone back to, as its header has them."""
    return tuple(json.loads(text)) if text else ()
