"""Where an entry lies and where reading stands, on a bus of one or of many partitions.

With one partition an entry's id is the stream's own, ``<ms>-<seq>``. With more it is ``<partition>:<ms>-<seq>``; ids
that reading returns then name, after a comma, where reading stands in the other partitions, so that each of them is an
exact cursor. From an id that names one partition only, the others are read by the clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from multiagents.exceptions import EventBusError


def order(number: str) -> tuple[int, int]:
    """A stream's own id as what it is sorted by.

    >>> order("1700000000000-7"), order("0")
    ((1700000000000, 7), (0, 0))
    """
    milliseconds, _, sequence = number.partition("-")
    return int(milliseconds), int(sequence or 0)


class Cursors:
    """Write and read the ids of a bus with this many partitions.

    >>> cursors = Cursors(2)
    >>> cursors.place("1:5-0,0:4-2"), cursors.positions("1:5-0,0:4-2")
    ((1, '5-0'), {0: '4-2', 1: '5-0'})
    """

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def entry_id(self, partition: int, number: str) -> str:
        """The id of an entry: what is acknowledged."""
        return number if self.partitions == 1 else f"{partition}:{number}"

    def cursor(self, partition: int, positions: Mapping[int, str]) -> str:
        """The id of the entry that was read last, with the positions of the other partitions."""
        others = [self.entry_id(each, at) for each, at in positions.items() if each != partition]
        return ",".join([self.entry_id(partition, positions[partition]), *others])

    def place(self, entry_id: str) -> tuple[int, str]:
        """The partition and the stream's own id of an entry.

        Raises:
            EventBusError: when it is no id of this bus.
        """
        partition, colon, number = entry_id.partition(",")[0].rpartition(":")
        try:
            place = int(partition) if colon else 0
            order(number)
        except ValueError:
            place = -1
        if not 0 <= place < self.partitions:
            raise EventBusError(
                f"{entry_id!r} is not a place on the bus; expected '0', '$' or an id that publish() or read() returned "
                f"of a bus with {self.partitions} partition(s)"
            )
        return place, number

    def positions(self, cursor: str) -> dict[int, str]:
        """After which entry each partition is to be read.

        Raises:
            EventBusError: when it is no cursor of this bus.
        """
        named = dict(self.place(each) for each in cursor.split(","))
        # Entries of the same millisecond may lie on either side in another partition: rather twice than never.
        rest = str(max(order(next(iter(named.values())))[0] - 1, 0)) if ":" in cursor else named[0]
        return {each: named.get(each, rest) for each in range(self.partitions)}
