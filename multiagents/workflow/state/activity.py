"""The state of one step: two *activities*, doing it and undoing it, which are the same small machine.

Two rules:

1. The machine is the table `ACTIVITY`, and nothing else moves an activity. What the table does not list changes
   nothing.
2. An activity is as bad as the worst of its attempts (rule S1b). So a definite failure that follows an attempt in doubt
   moves it as doubt does, and an attempt that is revoked leaves what the earlier ones amount to. Only a probe, which
   has looked, clears the doubt (rule S3).

What users see of a step (rule S1) is derived from its two activities, never stored beside them. Times are
milliseconds of the store's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from multiagents.events import ErrorInfo
from multiagents.names import Direction

__all__ = ["ACTIVITY", "Activity", "ActivityStatus", "CalledTool", "StepState", "StepStatus", "Trigger"]


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
    #: a person has said that its effect may stay
    COMPENSATION_SKIPPED = "compensation_skipped"


class ActivityStatus(StrEnum):
    """Where an activity stands. The values are what the store keeps, hence short."""

    #: nobody was asked yet
    IDLE = "i"
    #: an attempt is dispatched, claimed, or due after a delay
    IN_FLIGHT = "f"
    SUCCEEDED = "s"
    #: the last attempt failed, and none may have taken effect
    FAILED = "x"
    #: an attempt may have taken effect
    UNKNOWN = "u"
    #: its ``when`` was false, or it failed and the run goes on
    SKIPPED = "k"


class Trigger(StrEnum):
    """What moves an activity."""

    #: an attempt is dispatched, or due after a delay
    COMMAND = "command"
    RESULT = "result"
    #: a definite failure, and no earlier attempt is in doubt; or a probe found that none took effect
    FAILURE = "failure"
    #: a definite failure that the definition says to go on from
    PASSED_OVER = "passed_over"
    #: an attempt that may have taken effect: lost, timed out, abandoned, or not told
    DOUBT = "doubt"
    SKIP = "skip"
    #: its chooser has answered, or its items are done
    CHOICE = "choice"
    #: some of its items are done, and are to be undone in one go
    PART = "part"
    #: a first attempt that nobody had claimed is revoked
    RECALL = "recall"
    #: the run it was forked from had done it
    TAKEOVER = "takeover"


#: The whole machine of an activity. The docs draw it from this table.
ACTIVITY: Mapping[tuple[ActivityStatus, Trigger], ActivityStatus] = MappingProxyType(
    {
        (ActivityStatus.IDLE, Trigger.COMMAND): ActivityStatus.IN_FLIGHT,
        (ActivityStatus.IDLE, Trigger.SKIP): ActivityStatus.SKIPPED,
        # Its `when` or `inputs` raised: it failed before anybody was asked to do it.
        (ActivityStatus.IDLE, Trigger.FAILURE): ActivityStatus.FAILED,
        # A map that is undone in one go, and of whose items only some were done.
        (ActivityStatus.IDLE, Trigger.PART): ActivityStatus.UNKNOWN,
        # The chooser of a choice has answered, or the items of a map are done: nobody is asked to do it.
        (ActivityStatus.IDLE, Trigger.CHOICE): ActivityStatus.SUCCEEDED,
        (ActivityStatus.IDLE, Trigger.TAKEOVER): ActivityStatus.SUCCEEDED,
        (ActivityStatus.IN_FLIGHT, Trigger.RESULT): ActivityStatus.SUCCEEDED,
        (ActivityStatus.IN_FLIGHT, Trigger.FAILURE): ActivityStatus.FAILED,
        # Rule S10: a child has failed, has undone what it did, and its parent goes on without it.
        (ActivityStatus.IN_FLIGHT, Trigger.PASSED_OVER): ActivityStatus.SKIPPED,
        (ActivityStatus.IN_FLIGHT, Trigger.DOUBT): ActivityStatus.UNKNOWN,
        (ActivityStatus.IN_FLIGHT, Trigger.RECALL): ActivityStatus.IDLE,
        (ActivityStatus.FAILED, Trigger.COMMAND): ActivityStatus.IN_FLIGHT,
        (ActivityStatus.UNKNOWN, Trigger.COMMAND): ActivityStatus.IN_FLIGHT,
        # Rule S5: an undo is run again when a late success may have come after it. No step is done twice.
        (ActivityStatus.SUCCEEDED, Trigger.COMMAND): ActivityStatus.IN_FLIGHT,
    }
)


#: Looked up rather than called: an enum's call is ten times slower.
_STATUSES = {status.value: status for status in ActivityStatus}


class Activity(NamedTuple):
    """How far doing, or undoing, a step has come."""

    status: ActivityStatus = ActivityStatus.IDLE
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
    #: the last attempt was the step's probe (rule S3); since the first one, failures and losses are the probe's
    probing: bool = False

    @property
    def in_flight(self) -> bool:
        """Whether an attempt is dispatched or due."""
        return self.status is ActivityStatus.IN_FLIGHT

    @property
    def will_retry(self) -> bool:
        """Whether the last attempt came to nothing and another one is to follow."""
        return self.retry_in is not None and self.status in (ActivityStatus.FAILED, ActivityStatus.UNKNOWN)

    @property
    def is_over(self) -> bool:
        """Whether it failed or is in doubt, for good."""
        return self.retry_in is None and self.status in (ActivityStatus.FAILED, ActivityStatus.UNKNOWN)

    @property
    def revoked(self) -> Trigger:
        """What taking back the attempt in flight amounts to: the worst of the earlier ones (rule S1b)."""
        if self.in_doubt:
            return Trigger.DOUBT
        return Trigger.FAILURE if self.failures else Trigger.RECALL

    def encode(self) -> list[Any]:
        """The activity as a short JSON-ready list."""
        row: list[Any] = [*self]
        row[0], row[4], row[11] = self.status.value, int(self.in_doubt), int(self.probing)
        if self.error is not None:
            row[10] = self.error.model_dump(mode="json", exclude_defaults=True)
        last = len(row) - 1
        while last and row[last] == _DEFAULTS[last]:
            last -= 1
        return row[: last + 1]

    @classmethod
    def decode(cls, row: list[Any]) -> Activity:
        """The inverse of `encode`."""
        row = row + _DEFAULTS[len(row) :]
        row[0], row[4], row[11] = _STATUSES[row[0]], bool(row[4]), bool(row[11])
        if row[10]:
            row[10] = ErrorInfo.model_validate(row[10])
        return cls._make(row)


_IDLE = Activity()
#: an activity's row before anything happened; what equals it at the end of a row is not kept
_DEFAULTS: list[Any] = [_IDLE.status.value, 0, 0, 0, 0, None, None, None, None, None, None, 0]


class CalledTool(NamedTuple):
    """Of a step that is the call of a tool (rule S36): what undoes it, and its place among the calls of its step."""

    compensation: str
    #: the how manieth it is of those that are to be undone, from 1
    number: int


class StepState(NamedTuple):
    """A step of a run: its two activities."""

    do: Activity = _IDLE
    undo: Activity = _IDLE
    #: do-attempts whose success came too late (rule S5)
    late: tuple[int, ...] = ()
    #: undo it, whatever came of it before: a late success may have come after the undo (rule S5), or a person has said
    #: that a parked outcome is to be undone (rule S3)
    undo_again: bool = False
    #: a person has given its undo up for good (rule S17)
    abandoned: bool = False
    #: the run that did it, where this one is a fork that took it over: what its idempotency key begins with
    origin: str = ""
    #: it is the call of a tool: being called is doing it
    called: CalledTool | None = None

    def activity(self, direction: Direction) -> Activity:
        """The activity of one direction."""
        return self.undo if direction is Direction.UNDO else self.do

    def with_activity(self, direction: Direction, activity: Activity) -> StepState:
        """The same step with one activity replaced."""
        return self._replace(undo=activity) if direction is Direction.UNDO else self._replace(do=activity)

    @property
    def is_done(self) -> bool:
        """Whether steps after this one may start."""
        return self.do.status in (ActivityStatus.SUCCEEDED, ActivityStatus.SKIPPED)

    def is_unsettled(self, *, forward: bool) -> bool:
        """Whether nobody knows if the step took effect, and nobody has decided what is to be done about it (rule S3).

        Args:
            forward: the run goes forward. A late success then settles nothing, as it is no progress; in a run that
                compensates it tells what is to be undone.
        """
        decided = self.undo_again or self.undo.status is not ActivityStatus.IDLE
        unknown = self.do.status is ActivityStatus.UNKNOWN if forward else self.outcome == "unknown"
        return self.do.is_over and unknown and not decided

    @property
    def outcome(self) -> str | None:
        """What doing it came to, as its undo is told (rule S4): ``succeeded``, ``unknown`` or ``failed``; or None.

        A late success is no progress, and yet its effect is there.
        """
        return "succeeded" if self.late else _OUTCOMES.get(self.do.status)

    @property
    def effect(self) -> str | None:
        """What is known of its effect (rule S28): ``live``, ``undone``, ``unknown``; None where there is none."""
        if self.undo.status is ActivityStatus.SUCCEEDED and not self.undo_again:
            return "undone"
        if self.do.in_flight and self.do.attempt:
            return "unknown"
        if self.undo.in_flight or self.undo.status is ActivityStatus.UNKNOWN:
            return "unknown"
        return {"succeeded": "live", "unknown": "unknown"}.get(self.outcome or "")

    @property
    def status(self) -> StepStatus:
        """What users see (rule S1)."""
        if self.undo.status is not ActivityStatus.IDLE:
            if self.undo.status is ActivityStatus.SUCCEEDED and not self.undo_again:
                return StepStatus.COMPENSATED
            if self.undo.status is ActivityStatus.SKIPPED and not self.undo_again:
                return StepStatus.COMPENSATION_SKIPPED
            return StepStatus.COMPENSATION_FAILED if self.undo.is_over else StepStatus.COMPENSATING
        return StepStatus.SCHEDULED if self.do.will_retry else _SHOWN[self.do.status]

    def encode(self) -> str:
        """The step as the JSON that the store keeps in one field."""
        row: list[Any] = [self.do.encode()]
        marked = self.abandoned or self.origin or self.called is not None
        if self.undo != _IDLE or self.late or self.undo_again or marked:
            row.append(self.undo.encode())
        if self.late or self.undo_again or marked:
            row += [list(self.late), int(self.undo_again)]
        if marked:
            row += [int(self.abandoned), self.origin]
        if self.called is not None:
            row.append(list(self.called))
        return to_json(row).decode()

    @classmethod
    def decode(cls, data: str) -> StepState:
        """The inverse of `encode`."""
        row = from_json(data)
        return cls(
            do=Activity.decode(row[0]),
            undo=Activity.decode(row[1]) if len(row) > 1 else _IDLE,
            late=tuple(row[2]) if len(row) > 2 else (),
            undo_again=bool(row[3]) if len(row) > 3 else False,
            abandoned=bool(row[4]) if len(row) > 4 else False,
            origin=row[5] if len(row) > 5 else "",
            called=CalledTool(*row[6]) if len(row) > 6 else None,
        )


_SHOWN = {
    ActivityStatus.IDLE: StepStatus.NOT_STARTED,
    ActivityStatus.IN_FLIGHT: StepStatus.SCHEDULED,
    ActivityStatus.SUCCEEDED: StepStatus.SUCCEEDED,
    ActivityStatus.FAILED: StepStatus.FAILED,
    ActivityStatus.UNKNOWN: StepStatus.UNKNOWN,
    ActivityStatus.SKIPPED: StepStatus.SKIPPED,
}
_OUTCOMES = {ActivityStatus.SUCCEEDED: "succeeded", ActivityStatus.UNKNOWN: "unknown", ActivityStatus.FAILED: "failed"}
