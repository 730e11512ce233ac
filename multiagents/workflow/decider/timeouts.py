"""What silence means: nobody has answered for an attempt, and its time is over (rules S1a, S1b, S27).

The rules:

1. A claimed attempt that runs over its limit, or owes a heartbeat, has timed out; one whose lease was not renewed is
   lost. Both may have taken effect. Whoever reports from elsewhere and does not has timed out, too.
2. A wait, an approval or a lock whose time is over fails, counts as a no, or is passed over, as its step declares:
   nothing was done, so nothing is in doubt.
3. An attempt that nobody has begun in the time it may wait has failed for certain, and is not made again.

Times are milliseconds of the store's clock.
"""

from __future__ import annotations

from typing import NamedTuple

from multiagents.events import ErrorKind
from multiagents.workflow.definition import StepDefinition

__all__ = ["Silence", "in_claim", "not_registered", "not_reported", "not_started", "without_lock", "without_signal"]


class Silence(NamedTuple):
    """How an attempt ends that nobody has answered for.

    Attributes:
        kind: whether it may have taken effect.
        error: the type of its error.
        message: what happened, in words.
        final: no other attempt follows, whatever the policy says.
    """

    kind: ErrorKind
    error: str
    message: str
    final: bool = False


def in_claim(*, now: int, claimed: int, deadline: int, beat_until: int, worker: str) -> Silence:
    """Of an attempt that a worker has claimed, and whose lease is over.

    Args:
        now: the time.
        claimed: when it was claimed.
        deadline: when its time limit is over; 0 is none.
        beat_until: when its next heartbeat was due; 0 is none.
        worker: who has claimed it.
    """
    if deadline and now >= deadline:
        limit = (deadline - claimed) / 1000
        message = f"it took longer than its limit of {limit:g} s on {worker or 'its worker'}"
        return Silence(ErrorKind.TIMEOUT, "TimeLimitExceeded", message)
    if beat_until and now >= beat_until:
        return Silence(
            ErrorKind.TIMEOUT, "HeartbeatTimeout", f"it sent no heartbeat in time on {worker or 'its worker'}"
        )
    message = f"its worker {worker} stopped renewing its lease: killed, frozen, or cut off from the store"
    return Silence(ErrorKind.LOST, "WorkerLost", message)


def not_reported() -> Silence:
    """Of a step that is done elsewhere."""
    return Silence(ErrorKind.TIMEOUT, "TimeLimitExceeded", "nobody published its result within the time limit")


def without_signal(step: StepDefinition, waited: int) -> Silence | None:
    """Of a wait or an approval; None where the run goes on without the signal."""
    if step.on_timeout == "continue":
        return None
    message = f"no signal {step.signal!r} came within {round(waited / 1000, 1):g} s"
    if step.on_timeout == "reject":
        return Silence(ErrorKind.FAILED, "ApprovalRejected", f"{message}, which counts as a no", final=True)
    return Silence(ErrorKind.FAILED, "WaitTimeout", message, final=True)


def without_lock(step: StepDefinition, key: str, waited: int) -> Silence | None:
    """Of a step that waits for a lock; None where the run goes on without it."""
    if step.on_timeout == "continue":
        return None
    message = f"the lock on {key!r} was not to be had within {waited / 1000:g} s"
    return Silence(ErrorKind.FAILED, "LockTimeout", message, final=True)


def not_started(step: StepDefinition) -> Silence:
    """Of an attempt that waits for a worker longer than its step allows."""
    limit = step.schedule_to_start or 0
    message = f"no worker started it within its schedule_to_start of {limit:g} s"
    return Silence(ErrorKind.FAILED, "ScheduleToStartTimeout", message, final=True)


def not_registered(worker: str, queue: str, limit: float) -> Silence:
    """Of an attempt that only workers took which do not know its task.

    Args:
        worker: what its worker is called.
        queue: where it waited.
        limit: for how many seconds.
    """
    message = (
        f'no worker process that consumes queue "{queue}" has registered worker "{worker}" within {limit:g} s; import '
        f"the module that defines it there, or send the step to another queue"
    )
    return Silence(ErrorKind.FAILED, "multiagents.exceptions.WorkerNotFoundError", message, final=True)
