"""Every name the library puts into Redis, into Celery or on the wire, in one place.

Two rules hold here:

1. Every Redis key of a run carries the tag of its partition, ``{<prefix>:<n>}``, so that one script may touch the run
   and its partition's timers, indexes, dead letters and bus together, also on a cluster.
2. A correlation id is ``<transaction>/<step>/<do|undo>/<attempt>``. It names one attempt, is the Celery task id of that
   attempt, and is the only thing replies are matched by.
"""

from __future__ import annotations

import re
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple
from zlib import crc32

from multiagents.exceptions import DecodeError, WorkflowError

#: A transaction id: what a key, a URL and a shell take without quoting.
TRANSACTION_ID = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
#: A step's name. ``[3]`` and ``#2`` are reserved for the items of a map and the rounds of a loop.
STEP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,127}")
#: A workflow's name.
WORKFLOW_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,127}")

#: The message header that marks the engine's own messages (and only them).
HEADER = "multiagents"
#: The Celery task that advances a run: the saga orchestrator.
ORCHESTRATOR_TASK = "multiagents.orchestrate"
#: The Celery task that beat sends for a tick of a schedule.
TICK_TASK = "multiagents.tick"
#: Steps that killed their worker twice go to ``<queue>.quarantine`` where such a queue is consumed.
QUARANTINE_SUFFIX = ".quarantine"


class Direction(StrEnum):
    """Which way an attempt goes: ``do`` runs the step's worker, ``undo`` its compensation."""

    DO = "do"
    UNDO = "undo"


class Correlation(NamedTuple):
    """One attempt of a step, taken apart; ``str()`` of it is the correlation id."""

    transaction_id: str
    step: str
    direction: Direction
    attempt: int

    def __str__(self) -> str:
        return f"{self.transaction_id}/{self.step}/{self.direction.value}/{self.attempt}"

    @classmethod
    def parse(cls, correlation_id: str) -> Correlation:
        """Take a correlation id apart.

        Raises:
            DecodeError: when it is not ``<transaction>/<step>/<do|undo>/<attempt>``.
        """
        try:
            transaction_id, step, direction, attempt = correlation_id.split("/")
            return cls(transaction_id, step, Direction(direction), int(attempt))
        except ValueError:
            raise DecodeError(
                f"correlation id {correlation_id!r} was not understood: expected "
                f"'<transaction>/<step>/<do|undo>/<attempt>'; send back the id that came with the command"
            ) from None


def check_transaction_id(transaction_id: str) -> str:
    """Return the id unchanged, or raise `WorkflowError` that says which characters are allowed."""
    if not isinstance(transaction_id, str) or not TRANSACTION_ID.fullmatch(transaction_id):
        raise WorkflowError(
            f"transaction id {transaction_id!r} cannot be used: expected 1 to 128 characters of A-Z a-z 0-9 . _ : @ -; "
            f"choose another id or replace the other characters"
        )
    return transaction_id


def idempotency_key(transaction_id: str, step: str, generation: int = 1, origin: str = "") -> str:
    """The key of a step of a run: the same for every attempt and for its undo (rule S25).

    Args:
        transaction_id: the run.
        step: the step.
        generation: 1; one more for each run before it with this id that it replaced, for it is another run.
        origin: of a step that a fork has taken over: the run that did it, as `origin_of` writes it.

    >>> idempotency_key("order-1", "charge"), idempotency_key("order-1", "charge", 2)
    ('order-1/charge', 'order-1~2/charge')
    """
    return f"{origin or origin_of(transaction_id, generation)}/{step}"


def origin_of(transaction_id: str, generation: int) -> str:
    """A run as the idempotency keys of its steps begin.

    >>> origin_of("order-1", 2), parse_origin("order-1~2")
    ('order-1~2', ('order-1', 2))
    """
    return transaction_id if generation == 1 else f"{transaction_id}~{generation}"


def parse_origin(origin: str) -> tuple[str, int]:
    """The inverse of `origin_of`."""
    transaction_id, _, generation = origin.partition("~")
    return transaction_id, int(generation or 1)


def transaction_id_of(workflow: str, idempotency_key: str) -> str:
    """The id of the run that a caller's own key stands for: always the same for the same workflow and key.

    Args:
        workflow: the definition's name.
        idempotency_key: any characters, of any length.

    >>> transaction_id_of("order", "basket 7/ü")
    'order:key:e10b08d7731ef7401ed7fedd4c3edff2'
    """
    told_apart = f"{workflow}\0{idempotency_key}".encode(errors="surrogatepass")
    return f"{workflow[:90]}:key:{sha256(told_apart).hexdigest()[:32]}"


def child_id(transaction_id: str, step: str, generation: int = 1) -> str:
    """The id of the run that a step of a run is.

    >>> child_id("order-1", "payment"), child_id("album-1", "resize[3]")
    ('order-1:payment', 'album-1:resize:3')
    """
    told_apart = "" if generation == 1 else f":g{generation}"
    name = re.sub(r"[^A-Za-z0-9._:@-]", ":", step).rstrip(":")
    full = f"{transaction_id}{told_apart}:{name}"
    if len(full) <= 128:
        return full
    return f"{full[:90]}:{sha256(f'{transaction_id}/{generation}/{step}'.encode()).hexdigest()[:32]}"


class Keys:
    """The Redis keys of one deployment.

    Args:
        prefix: what every key's tag starts with (``multiagents_key_prefix``).
        partitions: over how many tags runs are spread (``multiagents_partitions``).
    """

    def __init__(self, prefix: str = "ma", partitions: int = 1) -> None:
        self.prefix = prefix
        self.partitions = partitions
        self._partitions: dict[int, PartitionKeys] = {}

    def partition_of(self, transaction_id: str) -> int:
        """The partition that holds a run: crc32 of its id, modulo the number of partitions."""
        return 0 if self.partitions == 1 else crc32(transaction_id.encode()) % self.partitions

    def tag(self, partition: int) -> str:
        """The hash tag that every key of a partition starts with."""
        return f"{{{self.prefix}:{partition}}}"

    def of_run(self, transaction_id: str) -> RunKeys:
        """The keys of one run and of the partition it lives in."""
        return RunKeys(self.of_partition(self.partition_of(transaction_id)), transaction_id)

    def of_partition(self, partition: int) -> PartitionKeys:
        """The keys that the runs of a partition share."""
        known = self._partitions.get(partition)
        if known is None:
            known = self._partitions[partition] = PartitionKeys(self.tag(partition))
        return known


class PartitionKeys:
    """What the runs of one partition share."""

    __slots__ = (
        "bus",
        "dead",
        "definitions",
        "deleted",
        "due",
        "meta",
        "schedules",
        "sequence",
        "tag",
        "versions",
        "workers",
    )

    def __init__(self, tag: str) -> None:
        self.tag = tag
        #: sorted set: what has to be looked at, by time (ms, the server's clock)
        self.due = f"{tag}:due"
        #: hash: content hash of a definition -> its JSON
        self.definitions = f"{tag}:definitions"
        #: hash: ``<workflow>|<version>`` -> content hash of the definition that the last run of it was started with
        self.versions = f"{tag}:versions"
        #: hash: broker list -> number of the last message pushed to it by a commit
        self.sequence = f"{tag}:sequence"
        #: hash: correlation id -> what could not be delivered or undone, and why
        self.dead = f"{tag}:dead"
        #: sorted set: what is kept in place of deleted runs, by when they were deleted
        self.deleted = f"{tag}:deleted"
        #: stream: events of foreign producers
        self.bus = f"{tag}:bus"
        #: hash: number of partitions, schema, time of the last sweep
        self.meta = f"{tag}:meta"
        #: hash, in the first partition: ``last:<schedule>`` its last tick (ms), ``paused:<schedule>`` who paused it
        self.schedules = f"{tag}:schedules"
        #: hash, in the first partition: worker -> what whoever sends its steps has to know (queue, limits)
        self.workers = f"{tag}:workers"

    def sent(self, broker_list: str) -> str:
        """Sorted set of the attempts that wait in a broker list, by the number of their message."""
        return f"{self.tag}:sent:{broker_list}"

    def index(self, status: str, workflow: str | None = None) -> str:
        """Sorted set of the runs in a status (of one workflow), by the time they started."""
        return f"{self.tag}:index:{status}" if workflow is None else f"{self.tag}:index:{status}:{workflow}"

    @property
    def indexes(self) -> str:
        """What the names of all these indexes start with."""
        return self.index("")

    @property
    def attributes(self) -> str:
        """What the names of the indexes by attribute start with."""
        return f"{self.tag}:attribute:"

    def by_attribute(self, name: str, kind: str, text: str = "") -> str:
        """Sorted set of the runs that have a text, by the time they started, or that have a number, by it."""
        return f"{self.attributes}{kind}:{name}:{text}" if kind == "s" else f"{self.attributes}{kind}:{name}"

    def lock(self, key: str) -> str:
        """Hash: who holds the lock on a business key, under which fencing token, until when."""
        return f"{self.tag}:lock:{key}"

    def lock_line(self, key: str) -> str:
        """Sorted set of who waits for the lock, by the time they came (µs)."""
        return f"{self.tag}:lock.line:{key}"

    def lock_asking(self, key: str) -> str:
        """Sorted set of the same, by the time until which they count as waiting."""
        return f"{self.tag}:lock.asking:{key}"

    def slots(self, key: str) -> str:
        """Sorted set of the attempts that run under a limit, by when they count as gone."""
        return f"{self.tag}:limit:{key}"

    def next_start(self, key: str) -> str:
        """When the next attempt under a limited rate is expected (µs, the server's clock)."""
        return f"{self.tag}:limit.next:{key}"

    def limited(self, key: str) -> str:
        """Sorted set of the attempts that a limit has turned away, by when they come again."""
        return f"{self.tag}:limit.away:{key}"

    @property
    def runs(self) -> str:
        """What the names of the runs' own keys start with."""
        return f"{self.tag}:run:"


class RunKeys(PartitionKeys):
    """What belongs to one run, and what it shares with the other runs of its partition."""

    __slots__ = ("blobs", "channel", "context", "history", "results", "run")

    def __init__(self, shared: PartitionKeys, transaction_id: str) -> None:
        # Made for every step: what is the partition's is taken over, not put together again.
        for name in PartitionKeys.__slots__:
            setattr(self, name, getattr(shared, name))
        tag = shared.tag
        #: hash: the header, one field a step, one field an attempt in flight
        self.run = f"{tag}:run:{transaction_id}"
        #: hash: what trunk steps have returned so far, merged, by key (the context is the input with this on top)
        self.context = f"{tag}:context:{transaction_id}"
        #: hash: ``i`` the run's input, ``r:<step>`` a step's result, ``n:<step>`` what its ``inputs`` answered
        self.results = f"{tag}:results:{transaction_id}"
        #: list: every event of the run, oldest first
        self.history = f"{tag}:history:{transaction_id}"
        #: hash: name (a hash of it) -> a payload that is too large for the others, which have a reference in its place
        self.blobs = f"{tag}:blobs:{transaction_id}"
        #: Pub/Sub channel that wakes whoever waits for the end
        self.channel = f"{tag}:ended:{transaction_id}"
