"""Every key that the library puts into Redis. What is in each: `state_store/redis/scripts/README.md`.

Every key begins with ``<prefix>:{<n>}:``. The prefix comes first, so that a user of the server who may touch
``~team:*`` may touch all keys of a deployment whose prefix is ``team``, and no other's. The number of the partition is
in braces, the hash tag, so that one script may touch a run and its partition's timers, indexes and bus together.
"""

from __future__ import annotations

from zlib import crc32

#: The number of the layout: what is in each key, and how it is written. A store that another release has begun with
#: another number is refused (decision 0034). 1 was never released.
SCHEMA = 2


class Keys:
    """The Redis keys of one deployment.

    Args:
        prefix: what every key starts with (``multiagents_key_prefix``).
        partitions: over how many tags runs are spread (``multiagents_partitions``).
    """

    def __init__(self, prefix: str = "ma", partitions: int = 1) -> None:
        self.prefix = prefix
        self.partitions = partitions
        self._partitions: dict[int, PartitionKeys] = {}
        self._last: tuple[str, RunKeys | None] = ("", None)

    def partition_of(self, name: str) -> int:
        """The partition of a run or of a business key: crc32 of its name, modulo the number of partitions."""
        return 0 if self.partitions == 1 else crc32(name.encode()) % self.partitions

    @property
    def of_the_first_layout(self) -> str:
        """A key that every store had that was begun before layouts had numbers."""
        return f"{{{self.prefix}:0}}:meta"

    def tag(self, partition: int) -> str:
        """What every key of a partition starts with; what is in its braces is the hash tag."""
        return f"{self.prefix}:{{{partition}}}"

    def of_run(self, transaction_id: str) -> RunKeys:
        """The keys of one run and of the partition it lives in."""
        last, run = self._last  # a step asks for the keys of its run several times
        if last != transaction_id or run is None:
            run = RunKeys(self.of_partition(self.partition_of(transaction_id)), transaction_id)
            self._last = transaction_id, run
        return run

    def of_partition(self, partition: int) -> PartitionKeys:
        """The keys that the runs of a partition share."""
        known = self._partitions.get(partition)
        if known is None:
            known = self._partitions[partition] = PartitionKeys(self.tag(partition))
        return known

    def of_key(self, key: str) -> PartitionKeys:
        """The keys of the partition in which a business key is locked and limited: runs of all partitions share it."""
        return self.of_partition(self.partition_of(key))

    def of_each_partition(self) -> list[PartitionKeys]:
        """The keys of one partition after the other."""
        return [self.of_partition(number) for number in range(self.partitions)]


class PartitionKeys:
    """What the runs of one partition share."""

    __slots__ = (
        "announced",
        "bus",
        "dead",
        "dead_since",
        "definitions",
        "deleted",
        "due",
        "due_before",
        "generations",
        "learners",
        "meta",
        "schedules",
        "sequence",
        "tag",
        "versions",
    )

    def __init__(self, tag: str) -> None:
        self.tag = tag
        #: sorted set: what has to be looked at, by time (ms, the server's clock)
        self.due = f"{tag}:due"
        #: sorted set: what was there when the server's clock went back, until all of it is back there
        self.due_before = f"{tag}:due.before"
        #: hash: content hash of a definition -> its JSON
        self.definitions = f"{tag}:definitions"
        #: hash: ``<workflow>|<version>`` -> content hash of the definition that the last run of it was started with
        self.versions = f"{tag}:versions"
        #: hash: broker list -> number of the last message pushed to it; '' -> the highest of forgotten lists
        self.sequence = f"{tag}:sequence"
        #: hash: what it is about (`records.letter_key`) -> what could not be delivered or undone, and why
        self.dead = f"{tag}:dead"
        #: sorted set: the same, by when they were buried
        self.dead_since = f"{self.dead}.since"
        #: sorted set: what is kept in place of deleted runs, by when they were deleted
        self.deleted = f"{tag}:deleted"
        #: sorted set: ids of runs that are gone, by when they went and how many runs have had them
        self.generations = f"{tag}:generations"
        #: stream: events of foreign producers
        self.bus = f"{tag}:bus"
        #: hash: number of partitions, times of the last sweep, the last fencing token of locks
        self.meta = f"{tag}:meta"
        #: hash, in the first partition: ``last:<schedule>`` its last tick (ms), ``paused:<schedule>`` who paused it
        self.schedules = f"{tag}:schedules"
        #: hash: the workers that have examples to learn from
        self.learners = f"{tag}:learners"
        #: hash, in the first partition: what worker processes announce: ``worker:``, ``queue:`` and ``node:<name>``
        self.announced = f"{tag}:announced"

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

    def programs(self, worker: str) -> str:
        """Hash: what a worker has learned, by version, and which versions are in place."""
        return f"{self.tag}:programs:{worker}"

    def examples(self, worker: str) -> str:
        """Sorted set of what the attempts of a worker have left to learn from, by when they did."""
        return f"{self.tag}:examples:{worker}"

    def example(self, worker: str) -> str:
        """Hash: the same, with ``x|`` before it -> what it is, ``o|`` how its run ended, ``f|`` what was said of it."""
        return f"{self.tag}:example:{worker}"

    def budget(self, key: str, period: str) -> str:
        """Hash: what is spent of the budget of a key in a day or a month, and what is set aside for calls under way."""
        return f"{self.tag}:budget:{period}:{key}"

    @property
    def runs(self) -> str:
        """What the names of the runs' own keys start with."""
        return f"{self.tag}:run:"


class RunKeys(PartitionKeys):
    """What belongs to one run, and what it shares with the other runs of its partition."""

    __slots__ = ("blobs", "channel", "context", "examples_of", "history", "journal", "results", "run", "stream")

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
        #: hash: the calls that the run's steps have made inside, to models and tools, with what they were answered
        self.journal = f"{tag}:journal:{transaction_id}"
        #: hash: what the run has left to learn from -> its worker; it outlives the run
        self.examples_of = f"{tag}:examples.of:{transaction_id}"
        #: stream: what the run's steps say while they run
        self.stream = f"{tag}:stream:{transaction_id}"
        #: Pub/Sub channel that wakes whoever waits for the end, or reads the stream
        self.channel = f"{tag}:ended:{transaction_id}"
