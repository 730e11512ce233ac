"""What silence means: nobody has answered for an attempt, and its time is over (rules S1a, S1b, S27).

The rules:

1. A claimed attempt that runs over its limit, or owes a heartbeat, has timed out; one whose lease was not renewed is
   lost. Both may have taken effect. Whoever reports from elsewhere and does not has timed out, too.
2. A wait, an approval or a lock whose time is over fails, counts as a no, or is passed over, as its step declares:
   nothing was done, so nothing is in doubt.
3. An attempt that nobody has begun in the time it may wait has failed for certain, and is not made again (rule S33).
   That time is its step's own. By default a queue may be as long as it likes, and only what shows that nobody will ever
   begin it starts the clock: a worker took it and does not know it; its message was taken `COUNTS_FROM` times and
   nobody claimed it; no worker has ever consumed its queue.

Times are milliseconds of the store's clock.
"""

from __future__ import annotations

from typing import NamedTuple

from multiagents.events import ErrorKind
from multiagents.workflow.definition import StepDefinition

__all__ = [
    "COUNTS_FROM",
    "Again",
    "Silence",
    "in_claim",
    "never_consumed",
    "not_claimed",
    "not_closed",
    "not_registered",
    "not_reported",
    "not_started",
    "sent_again",
    "without_lock",
    "without_signal",
]

#: From this send on it is no accident that nobody has claimed an attempt: the time it may wait begins.
COUNTS_FROM = 3
_NOT_FOUND = "multiagents.exceptions.WorkerNotFoundError"


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


def in_claim(*, now: int, claimed: int, deadline: int, beat_until: int, worker: str, death: str = "") -> Silence:
    """Of an attempt that a worker has claimed, and whose lease is over.

    Args:
        now: the time.
        claimed: when it was claimed.
        deadline: when its time limit is over; 0 is none.
        beat_until: when its next heartbeat was due; 0 is none.
        worker: who has claimed it.
        death: how its process came to its end, if anybody saw that.
    """
    if deadline and now >= deadline:
        limit = (deadline - claimed) / 1000
        message = f"it took longer than its limit of {limit:g} s on {worker or 'its worker'}"
        message = f"{message}, whose process {death}" if death else message
        return Silence(ErrorKind.TIMEOUT, "TimeLimitExceeded", message)
    if beat_until and now >= beat_until:
        return Silence(
            ErrorKind.TIMEOUT, "HeartbeatTimeout", f"it sent no heartbeat in time on {worker or 'its worker'}"
        )
    if death:
        return Silence(ErrorKind.LOST, "WorkerLost", f"its process on worker {worker} {death}")
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


class Again(NamedTuple):
    """How an attempt goes on whose message was taken and not claimed; times in ms.

    Attributes:
        in_ms: look again then, and do nothing now; 0 is to send it now.
        sent: how often it will have been sent, 0 where it is offered again (see `sent_again`).
        first: since when it counts as waiting; 0 is from now on.
    """

    in_ms: int
    sent: int
    first: int


def sent_again(*, sent: int, first: int, since: int, now: int, pause: int, limit: int) -> Again | None:
    """How an attempt goes on whose message is gone, and that nobody has claimed; None when it has waited long enough.

    Twice it is sent again at once: messages get lost with the workers that hold them. From the third send on something
    else takes them, and whatever that does with them is done again each time; so the pauses double.

    Args:
        sent: how often it was sent; 0 where it is offered again because a worker did not know it.
        first: since when it counts as waiting.
        since: when it was sent last.
        now: the time.
        pause: between the third send and the fourth, at least.
        limit: for how long it may count as waiting.

    >>> sent_again(sent=1, first=0, since=0, now=30_000, pause=30_000, limit=300_000)
    Again(in_ms=0, sent=2, first=0)
    >>> sent_again(sent=4, first=60_000, since=90_000, now=120_000, pause=30_000, limit=300_000)
    Again(in_ms=30000, sent=4, first=60000)
    """
    counts = not 0 < sent < COUNTS_FROM
    if counts and now - first >= limit:
        return None
    if sent == 0:
        return Again(0, 0, first)
    if counts:
        due = min(since + pause * 2 ** (sent - COUNTS_FROM), first + limit)
        if now < due:
            return Again(due - now, sent, first)
    return Again(0, sent + 1, 0 if sent + 1 == COUNTS_FROM else first)


def not_started(step: StepDefinition, worker: str, queue: str, near: str) -> Silence:
    """Of an attempt that waits for a worker longer than its step allows.

    Args:
        step: the step.
        worker: what its worker is called.
        queue: where it waited.
        near: what else may have been meant, as a clause; here and below.
    """
    limit = step.schedule_to_start or 0
    message = f"no worker started it within its schedule_to_start of {limit:g} s: {_where(worker, queue, near)}"
    return Silence(ErrorKind.FAILED, "ScheduleToStartTimeout", message, final=True)


def not_closed(step: StepDefinition, worker: str, queue: str, near: str) -> Silence:
    """Of an attempt that nobody has begun when its step has to be over."""
    limit = step.schedule_to_close or 0
    message = f"no worker has begun this attempt, and its schedule_to_close of {limit:g} s is over: "
    return Silence(ErrorKind.FAILED, "ScheduleToCloseTimeout", message + _where(worker, queue, near), final=True)


def not_registered(worker: str, queue: str, limit: float, near: str) -> Silence:
    """Of an attempt that only workers took which do not know its task.

    Args:
        worker: what its worker is called.
        queue: where it waited.
        limit: for how many seconds.
        near: what else may have been meant.
    """
    message = (
        f'no worker process that consumes queue "{queue}" has registered worker "{worker}" within {limit:g} s{near}; '
        f"import the module that defines it there, or send the step to another queue"
    )
    return Silence(ErrorKind.FAILED, _NOT_FOUND, message, final=True)


def not_claimed(worker: str, queue: str, sent: int, near: str) -> Silence:
    """Of an attempt whose message was taken again and again, by something that claims nothing."""
    message = (
        f'its message was sent {sent} times, and each time something took it from queue "{queue}" and nobody claimed '
        f'the attempt for worker "{worker}"{near}; stop what consumes that queue and is no worker of this store (an '
        f"app without init_app, or with another store or multiagents_key_prefix), or send the step to another "
        f"queue; if that has a task of this very name, it has called it with the ids of the step, each time"
    )
    return Silence(ErrorKind.FAILED, _NOT_FOUND, message, final=True)


def never_consumed(worker: str, queue: str, limit: float, near: str) -> Silence:
    """Of an attempt in a queue that no worker has ever consumed."""
    message = (
        f'no worker of this store has ever consumed queue "{queue}"{near}, where its message for worker "{worker}" has '
        f"waited for {limit:g} s; start a worker with -Q {queue}, or send the step to another queue"
    )
    return Silence(ErrorKind.FAILED, _NOT_FOUND, message, final=True)


def _where(worker: str, queue: str, near: str) -> str:
    return f'worker "{worker}" in queue "{queue}"{near}'
