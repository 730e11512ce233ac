"""The state of one step: two *tracks*, doing it and undoing it, which are the same small machine.

Two rules:

1. The machine is the table `TRACK`, and nothing else moves a track. What the table does not list changes nothing.
2. A track is as bad as the worst of its attempts (rule S1b). So a definite failure that follows an attempt in doubt
   moves the track as doubt does, and an attempt that is taken back leaves what the earlier ones amount to.

What users see of a step (rule S1) is derived from its two tracks, never stored beside them. Times are milliseconds of
the store's clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from multiagents.events import ErrorInfo
from multiagents.names import Direction

__all__ = ["TRACK", "Progress", "StepState", "StepStatus", "Track", "Trigger"]


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

    #: an attempt is dispatched, or due after a delay
    COMMAND = "command"
    RESULT = "result"
    #: a definite failure, and no earlier attempt is in doubt
    FAILURE = "failure"
    #: an attempt that may have taken effect: lost, timed out, abandoned, or not told
    DOUBT = "doubt"
    SKIP = "skip"
    #: a first attempt that nobody had claimed is taken back
    RECALL = "recall"


#: The whole machine of a track. The docs draw it from this table.
TRACK: Mapping[tuple[Progress, Trigger], Progress] = MappingProxyType(
    {
        (Progress.IDLE, Trigger.COMMAND): Progress.IN_FLIGHT,
        (Progress.IDLE, Trigger.SKIP): Progress.SKIPPED,
        # Its `when` or `inputs` raised: it failed before anybody was asked to do it.
        (Progress.IDLE, Trigger.FAILURE): Progress.FAILED,
        (Progress.IN_FLIGHT, Trigger.RESULT): Progress.SUCCEEDED,
        (Progress.IN_FLIGHT, Trigger.FAILURE): Progress.FAILED,
        (Progress.IN_FLIGHT, Trigger.DOUBT): Progress.UNKNOWN,
        (Progress.IN_FLIGHT, Trigger.RECALL): Progress.IDLE,
        (Progress.FAILED, Trigger.COMMAND): Progress.IN_FLIGHT,
        (Progress.UNKNOWN, Trigger.COMMAND): Progress.IN_FLIGHT,
        # Rule S5: an undo is run again when a late success may have come after it. No step is done twice.
        (Progress.SUCCEEDED, Trigger.COMMAND): Progress.IN_FLIGHT,
    }
)


_encode = json.JSONEncoder(separators=(",", ":")).encode


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
    def taken_back(self) -> Trigger:
        """What taking back the attempt in flight amounts to: the worst of the earlier ones (rule S1b)."""
        if self.in_doubt:
            return Trigger.DOUBT
        return Trigger.FAILURE if self.failures else Trigger.RECALL

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
        while len(row) > 1 and row[-1] == _DEFAULTS[len(row) - 1]:
            row.pop()
        return row

    @classmethod
    def decode(cls, row: list[Any]) -> Track:
        """The inverse of `encode`."""
        row = row + _DEFAULTS[len(row) :]
        return cls(
            progress=Progress(row[0]),
            attempt=row[1],
            failures=row[2],
            losses=row[3],
            in_doubt=bool(row[4]),
            retry_in=row[5],
            scheduled_at=row[6],
            started_at=row[7],
            finished_at=row[8],
            worker=row[9],
            error=ErrorInfo.model_validate(row[10]) if row[10] else None,
        )


_IDLE = Track()
#: a track's row before anything happened; what equals it at the end of a row is not kept
_DEFAULTS: list[Any] = [_IDLE.progress.value, 0, 0, 0, 0, None, None, None, None, None, None]


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
    def outcome(self) -> str | None:
        """What doing it came to, as its undo is told (rule S4): ``succeeded``, ``unknown`` or ``failed``; or None.

        A late success is no progress, and yet its effect is there.
        """
        return "succeeded" if self.late else _OUTCOMES.get(self.do.progress)

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
        return _encode(row)

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
_OUTCOMES = {Progress.SUCCEEDED: "succeeded", Progress.UNKNOWN: "unknown", Progress.FAILED: "failed"}
