"""The state of a run, without its payloads.

Two rules:

1. A step has two *tracks*, doing it and undoing it, and both are the same small machine: `TRACK`. What users see of a
   step (rule S1) is derived from the two, never stored beside them.
2. A state may be a *projection*: a step that is missing from ``steps`` is taken as not started. Whatever is decided from
   a projection is therefore a part of what would be decided from the whole, never something else. That is what lets a
   worker advance a run of thousands of steps with only its own neighbourhood in hand.

Times are milliseconds of the store's clock. Payloads (inputs, results) live in the run's context, once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from multiagents.events import ErrorInfo
from multiagents.names import Direction

__all__ = [
    "TRACK",
    "Cause",
    "Progress",
    "RunState",
    "RunStatus",
    "StepState",
    "StepStatus",
    "Track",
    "Trigger",
]


class RunStatus(StrEnum):
    """Where a run stands. The last eight are end states (rule S18)."""

    #: announced, and not yet in the store (``start_on_commit``)
    PENDING = "pending"
    #: going forward
    RUNNING = "running"
    #: held: a person has to decide (an unknown outcome that is to be parked)
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


class StepStatus(StrEnum):
    """What users see of a step: rule S1, and how far its undo is."""

    NOT_STARTED = "not_started"
    #: dispatched, or waiting for its next attempt
    SCHEDULED = "scheduled"
    #: claimed by a worker
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: it may have taken effect
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    COMPENSATION_FAILED = "compensation_failed"


class Cause(StrEnum):
    """Why a run goes back; it decides the end state."""

    FAILURE = "failure"
    CANCEL = "cancel"
    DEADLINE = "deadline"


class Progress(StrEnum):
    """Where a track stands. The values are what the store keeps, hence short."""

    #: nobody was asked yet
    IDLE = "i"
    #: an attempt is dispatched, claimed, or due after a delay
    IN_FLIGHT = "f"
    SUCCEEDED = "s"
    #: the last attempt failed, and none may have taken effect
    FAILED = "x"
    #: an attempt may have taken effect
    UNKNOWN = "u"
    #: its ``when`` was false
    SKIPPED = "k"


class Trigger(StrEnum):
    """What moves a track."""

    COMMAND = "command"
    RESULT = "result"
    #: a definite failure
    FAILURE = "failure"
    #: an attempt that may have taken effect: lost, timed out, or not told
    DOUBT = "doubt"
    SKIP = "skip"
    #: an attempt that nobody had claimed is taken back
    RECALL = "recall"


#: The whole machine of a track. What is not here does not change it. A failure after an attempt in doubt, and a recall,
#: lead to the worst of the earlier attempts (rule S1b): see `Track.settled`.
TRACK: Mapping[tuple[Progress, Trigger], Progress] = MappingProxyType(
    {
        (Progress.IDLE, Trigger.COMMAND): Progress.IN_FLIGHT,
        (Progress.IDLE, Trigger.SKIP): Progress.SKIPPED,
        (Progress.IDLE, Trigger.FAILURE): Progress.FAILED,
        (Progress.IN_FLIGHT, Trigger.RESULT): Progress.SUCCEEDED,
        (Progress.IN_FLIGHT, Trigger.FAILURE): Progress.FAILED,
        (Progress.IN_FLIGHT, Trigger.DOUBT): Progress.UNKNOWN,
        (Progress.IN_FLIGHT, Trigger.RECALL): Progress.IDLE,
        (Progress.FAILED, Trigger.COMMAND): Progress.IN_FLIGHT,
        (Progress.UNKNOWN, Trigger.COMMAND): Progress.IN_FLIGHT,
        # Rule S5: an undo is run again when a late success may have come after it.
        (Progress.SUCCEEDED, Trigger.COMMAND): Progress.IN_FLIGHT,
    }
)


@dataclass(frozen=True, slots=True)
class Track:
    """How far doing, or undoing, a step has come."""

    progress: Progress = Progress.IDLE
    #: number of the last attempt, lost ones included
    attempt: int = 0
    #: attempts that failed or timed out: what the retry policy counts
    failures: int = 0
    #: attempts that were lost: what ``max_lost`` counts (rule S1a)
    losses: int = 0
    #: an attempt may have taken effect and no success followed
    in_doubt: bool = False
    #: seconds until the next attempt is due, or None when there is to be none
    retry_in: float | None = None
    #: when the first attempt was dispatched
    scheduled_at: int | None = None
    #: when the attempt that settled it began
    started_at: int | None = None
    finished_at: int | None = None
    worker: str | None = None
    error: ErrorInfo | None = None

    @property
    def in_flight(self) -> bool:
        """Whether an attempt is dispatched or due."""
        return self.progress is Progress.IN_FLIGHT

    @property
    def will_retry(self) -> bool:
        """Whether the last attempt came to nothing and another one is to follow."""
        return self.retry_in is not None and self.progress in (Progress.FAILED, Progress.UNKNOWN)

    @property
    def is_over(self) -> bool:
        """Whether it failed or is in doubt, for good."""
        return self.retry_in is None and self.progress in (Progress.FAILED, Progress.UNKNOWN)

    @property
    def settled(self) -> Progress:
        """What the attempts so far add up to when the one in flight is left out (rule S1b)."""
        if self.in_doubt:
            return Progress.UNKNOWN
        return Progress.FAILED if self.failures else Progress.IDLE

    def encode(self) -> list[Any]:
        """The track as a short JSON-ready list."""
        error = self.error.model_dump(mode="json", exclude_defaults=True) if self.error else None
        row = [
            self.progress.value,
            self.attempt,
            self.failures,
            self.losses,
            int(self.in_doubt),
            self.retry_in,
            self.scheduled_at,
            self.started_at,
            self.finished_at,
            self.worker,
            error,
        ]
        while row and not row[-1]:
            row.pop()
        return row

    @classmethod
    def decode(cls, row: list[Any]) -> Track:
        """The inverse of `encode`."""
        row = row + [None] * (11 - len(row))
        return cls(
            progress=Progress(row[0]),
            attempt=row[1] or 0,
            failures=row[2] or 0,
            losses=row[3] or 0,
            in_doubt=bool(row[4]),
            retry_in=row[5],
            scheduled_at=row[6],
            started_at=row[7],
            finished_at=row[8],
            worker=row[9],
            error=ErrorInfo.model_validate(row[10]) if row[10] else None,
        )


_IDLE = Track()


@dataclass(frozen=True, slots=True)
class StepState:
    """A step of a run: its two tracks."""

    do: Track = _IDLE
    undo: Track = _IDLE
    #: do-attempts whose success came too late (rule S5)
    late: tuple[int, ...] = ()
    #: a late success may have come after the undo: undo once more
    undo_again: bool = False

    def track(self, direction: Direction) -> Track:
        """The track of one direction."""
        return self.undo if direction is Direction.UNDO else self.do

    def with_track(self, direction: Direction, track: Track) -> StepState:
        """The same step with one track replaced."""
        return replace(self, undo=track) if direction is Direction.UNDO else replace(self, do=track)

    @property
    def is_done(self) -> bool:
        """Whether steps after this one may start."""
        return self.do.progress in (Progress.SUCCEEDED, Progress.SKIPPED)

    @property
    def status(self) -> StepStatus:
        """What users see (rule S1)."""
        if self.undo.progress is not Progress.IDLE:
            if self.undo.progress is Progress.SUCCEEDED and not self.undo_again:
                return StepStatus.COMPENSATED
            return StepStatus.COMPENSATION_FAILED if self.undo.is_over else StepStatus.COMPENSATING
        return StepStatus.SCHEDULED if self.do.will_retry else _SHOWN[self.do.progress]

    def encode(self) -> str:
        """The step as the JSON that the store keeps in one field."""
        row: list[Any] = [self.do.encode()]
        if self.undo != _IDLE or self.late or self.undo_again:
            row.append(self.undo.encode())
        if self.late or self.undo_again:
            row += [list(self.late), int(self.undo_again)]
        return json.dumps(row, separators=(",", ":"))

    @classmethod
    def decode(cls, data: str) -> StepState:
        """The inverse of `encode`."""
        row = json.loads(data)
        return cls(
            do=Track.decode(row[0]),
            undo=Track.decode(row[1]) if len(row) > 1 else _IDLE,
            late=tuple(row[2]) if len(row) > 2 else (),
            undo_again=bool(row[3]) if len(row) > 3 else False,
        )


_SHOWN = {
    Progress.IDLE: StepStatus.NOT_STARTED,
    Progress.IN_FLIGHT: StepStatus.SCHEDULED,
    Progress.SUCCEEDED: StepStatus.SUCCEEDED,
    Progress.FAILED: StepStatus.FAILED,
    Progress.UNKNOWN: StepStatus.UNKNOWN,
    Progress.SKIPPED: StepStatus.SKIPPED,
}

_NOT_STARTED = StepState()


@dataclass(frozen=True, slots=True)
class RunState:
    """A run: its header, and the steps that are known (rule 2 above)."""

    transaction_id: str
    workflow: str
    version: str = ""
    definition_hash: str = ""
    status: RunStatus = RunStatus.PENDING
    steps: Mapping[str, StepState] = field(default_factory=dict)
    #: the error that turned the run back; errors of undos are attached as its causes (rule S19)
    error: ErrorInfo | None = None
    cause: Cause | None = None
    #: somebody asked to cancel
    cancel_requested: bool = False
    #: losses after which a step's outcome is unknown; fixed when the run starts
    max_lost: int = 5
    started_at: int | None = None
    finished_at: int | None = None

    def step(self, name: str) -> StepState:
        """The state of a step; one that is not known is not started."""
        return self.steps.get(name, _NOT_STARTED)

    def with_step(self, name: str, step: StepState) -> RunState:
        """The same run with one step replaced."""
        return replace(self, steps={**self.steps, name: step})

    def encode_header(self) -> dict[str, str]:
        """The header as the fields that the store keeps."""
        header = {
            "workflow": self.workflow,
            "version": self.version,
            "definition": self.definition_hash,
            "status": self.status.value,
            "max_lost": str(self.max_lost),
            "cause": self.cause.value if self.cause else "",
            "cancel": "1" if self.cancel_requested else "",
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
            max_lost=int(header.get("max_lost") or 5),
            started_at=int(header["started"]) if header.get("started") else None,
            finished_at=int(header["finished"]) if header.get("finished") else None,
        )
