"""An attempt on its way: what sends it out, and the record that the store keeps of it while it is in flight.

The record is the field ``l:<step>`` of its run. The scripts read and write it, too (`redis/scripts`):

- unclaimed: ``<attempt key>|<delivery>|<since>|<first>|<close>|<number>|<target>``
- claimed: ``<attempt key>|c|<owner>|<claimed>|<deadline>|<beat until>|<beat>|<worker>``

Times are in ms of the store's clock, 0 where there is none. `InFlight` says what each of them is.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from multiagents.names import Direction
from multiagents.state_store.records.due import DueKind

#: Grace between a time limit and the sweep acting on it: the worker itself reports first where it can.
LIMIT_GRACE_MS = 1_000
#: A linked undo that nobody claimed within this time has lost its link.
LINK_GRACE_MS = 2_000
#: A step that waits for a lock is asked for first by who sent it, and from then on by the sweep.
LOCK_GRACE_MS = 1_000
#: An outbox entry that nobody claimed is published again after this long, unless its dispatch says sooner.
OUTBOX_GRACE_MS = 60_000


class Delivery(StrEnum):
    """How an attempt gets to its worker; the values are what a record keeps."""

    #: the commit itself pushes the message to the broker's list
    PUSH = "s"
    #: not yet: a timer dispatches it
    TIMER = "w"
    #: the task of the undo before it carries it as its Celery link
    LINK = "l"
    #: another broker: published after the commit, and again while nobody claims it
    OUTBOX = "o"
    #: a worker took its message and does not know the task: sent again after a pause (a rolling deploy)
    UNREGISTERED = "n"
    #: nobody is asked: it is done when its time has come
    SLEEP = "z"
    #: nobody is asked: a foreign producer answers, or a signal
    EXTERNAL = "e"
    #: a run of its own does it, and answers at its end
    CHILD = "k"
    #: nobody is asked: it is done when the run has the lock
    LOCK = "y"
    #: a worker holds it under a lease
    CLAIMED = "c"


#: How attempts go out whose message somebody has to claim; those of an undo's link aside.
MESSAGES = (Delivery.PUSH, Delivery.OUTBOX)


@lru_cache(maxsize=256)  # asked several times at every step
def attempt_key_of(direction: Direction, attempt: int) -> str:
    """The short name of an attempt within its step: ``d1``, ``u2``."""
    return f"{'u' if direction is Direction.UNDO else 'd'}{attempt}"


def parse_attempt_key(attempt_key: str) -> tuple[Direction, int]:
    """The inverse of `attempt_key_of`."""
    return (Direction.UNDO if attempt_key[0] == "u" else Direction.DO), int(attempt_key[1:])


class Dispatch(NamedTuple):
    """One attempt that is to go out with a commit.

    Attributes:
        step: the step.
        attempt_key: the attempt, as `attempt_key_of` writes it.
        delivery: how it goes.
        target: the broker list (push) or queue (outbox); of a lock, its business key.
        prefix: the rendered message up to its number, for a push.
        suffix: the rest of it.
        delay_ms: for a timer: how long to wait; for the outbox: when to publish it again if nobody has claimed it.
        first_ms: when the step was first dispatched; 0 is now.
        close_ms: the absolute time by which the step has to be over; 0 is none.
        start_within_ms: how long it may stay unclaimed; 0 is without limit.
        due_ms: for a timer or a sleep: the absolute time it is due, in place of a delay; 0 is none.
        sent: of a message: how often it has gone out with this; 0 where it is offered again because a worker did not
            know it.

    Where whoever commits it runs it himself (`Delivery.CLAIMED`), ``target`` is his token, ``prefix`` his name,
    ``delay_ms`` his lease and ``close_ms`` the time limit, from now.
    """

    step: str
    attempt_key: str
    delivery: Delivery = Delivery.PUSH
    target: str = ""
    prefix: str = ""
    suffix: str = ""
    delay_ms: int = 0
    first_ms: int = 0
    close_ms: int = 0
    start_within_ms: int = 0
    due_ms: int = 0
    sent: int = 1

    @property
    def look_after_ms(self) -> int:
        """In how many ms somebody has to look at it, where an entry in ``due`` says so."""
        return self.delay_ms or _GRACE_MS.get(self.delivery, 0)


_GRACE_MS = {Delivery.LINK: LINK_GRACE_MS, Delivery.OUTBOX: OUTBOX_GRACE_MS, Delivery.LOCK: LOCK_GRACE_MS}


def any_record(attempt_key: str) -> str:
    """What the record of an attempt begins with, however it is in flight: what an outcome with no claim expects.

    >>> any_record("d1")
    'd1|'
    """
    return f"{attempt_key}|"


def record_prefix(attempt_key: str, delivery: Delivery, owner: str) -> str:
    """What the record of a claimed attempt begins with, whatever its times are: what a commit that answers it expects.

    >>> record_prefix("d1", Delivery.CLAIMED, "5f0c")
    'd1|c|5f0c|'
    """
    return f"{attempt_key}|{delivery.value}|{owner}|"


class InFlight(NamedTuple):
    """The record of an attempt in flight, taken apart."""

    step: str
    attempt_key: str
    delivery: Delivery
    #: the record as it is stored: what a fence compares with
    record: str
    #: dispatched, due or claimed at
    since_ms: int
    #: first dispatched at (0 for a claimed one)
    first_ms: int = 0
    #: by when the step has to be over, 0 for no limit
    close_ms: int = 0
    target: str = ""
    #: of a message: how often it was sent, as `Dispatch.sent` says; of a timer or a sleep: the time it is due
    number: int = 0
    #: the token of whoever has claimed it
    owner: str = ""
    deadline_ms: int = 0
    #: its worker has to be heard of by then
    beat_until_ms: int = 0
    #: and after each heartbeat within this time; 0 asks for none
    beat_ms: int = 0
    worker: str = ""

    @property
    def direction(self) -> Direction:
        """Whether the step is being done or undone."""
        return parse_attempt_key(self.attempt_key)[0]

    @property
    def attempt(self) -> int:
        """The number of the attempt."""
        return parse_attempt_key(self.attempt_key)[1]

    @property
    def timer_ms(self) -> int:
        """When what it waits for is over by itself: a sleep, a pause before a retry, a time limit; 0 is never."""
        if self.delivery in (Delivery.TIMER, Delivery.SLEEP):
            return self.number
        return self.close_ms if self.delivery in (Delivery.EXTERNAL, Delivery.LOCK) else 0

    def member(self, identity: str) -> str:
        """The entry of this attempt with whoever looks after it."""
        return DueKind.ATTEMPT.entry(identity, self.step, self.attempt_key)

    def encode(self) -> str:
        """The record as it is to be stored."""
        if self.delivery is Delivery.CLAIMED:
            times = f"{self.since_ms}|{self.deadline_ms}|{self.beat_until_ms}|{self.beat_ms}"
            return f"{record_prefix(self.attempt_key, self.delivery, self.owner)}{times}|{self.worker}"
        times = f"{self.since_ms}|{self.first_ms}|{self.close_ms}|{self.number}"
        return f"{self.attempt_key}|{self.delivery.value}|{times}|{self.target}"

    @classmethod
    def decode(cls, step: str, record: str) -> InFlight:
        """Take a record apart."""
        attempt_key, delivery, rest = record.split("|", 2)
        kind = Delivery(delivery)
        if kind is Delivery.CLAIMED:
            owner, claimed, deadline, beat_until, beat, worker = rest.split("|", 5)
            return cls(
                step,
                attempt_key,
                kind,
                record,
                int(claimed),
                owner=owner,
                deadline_ms=int(deadline),
                beat_until_ms=int(beat_until),
                beat_ms=int(beat),
                worker=worker,
            )
        since, first, close, number, target = rest.split("|", 4)
        return cls(
            step, attempt_key, kind, record, int(since), int(first), int(close), target=target, number=int(number)
        )
