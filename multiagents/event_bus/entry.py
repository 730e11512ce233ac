"""What lies on the bus: an entry, a dead letter, and how an event becomes one and is read again.

On the wire an entry is one field, ``event``, with the event's JSON: what any language can write with a single ``XADD``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from multiagents.events import Event, event_from_json
from multiagents.exceptions import DecodeError, EventBusError
from multiagents.plain_json import plain

#: The field of a stream entry that holds the event's JSON.
FIELD = "event"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the bus, not yet decoded."""

    #: its id; also the cursor from which reading goes on after it
    id: str
    #: the event's JSON as it was written; all fields as a JSON object when the entry has no field ``event``
    raw: bytes
    #: how often a group has handed it out, this time included
    deliveries: int = 1
    #: names of the fields that the entry has
    fields: tuple[str, ...] = (FIELD,)

    def decode(self) -> Event:
        """Read the event.

        Raises:
            DecodeError: when there is none, or it is not one of the five.
        """
        if FIELD not in self.fields:
            raise DecodeError(
                f"bus entry {self.id} has no field {FIELD!r} (fields: {', '.join(self.fields) or 'none'}); write the "
                f"event's JSON into one field: XADD <stream> * {FIELD} '{{...}}'"
            )
        return event_from_json(self.raw)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that was set aside, so that it does not block the ones behind it."""

    #: the entry's id on the bus
    entry_id: str
    #: the entry's bytes, unchanged
    raw: bytes
    #: why it was set aside
    error: str
    #: the consumer group whose handler gave it up; None when nobody could read it
    group: str | None = None
    #: how often it was handed out
    deliveries: int = 1

    @property
    def id(self) -> str:
        """Its name among the dead letters: what nobody can read is set aside once, whoever meets it."""
        return self.entry_id if self.group is None else f"{self.group}/{self.entry_id}"

    def to_json(self) -> str:
        """The letter as JSON; bytes that are not UTF-8 come back unchanged from `from_json`."""
        return json.dumps(
            {
                "entry_id": self.entry_id,
                "group": self.group,
                "deliveries": self.deliveries,
                "why": self.error,
                "raw": self.raw.decode("utf-8", "surrogateescape"),
            }
        )

    @classmethod
    def from_json(cls, data: str | bytes) -> DeadLetter:
        """Read what `to_json` wrote."""
        mapping: Mapping[str, object] = json.loads(data)
        return cls(
            entry_id=str(mapping["entry_id"]),
            raw=str(mapping["raw"]).encode("utf-8", "surrogateescape"),
            error=str(mapping["why"]),
            group=None if mapping["group"] is None else str(mapping["group"]),
            deliveries=int(str(mapping["deliveries"])),
        )


def encode(event: Event) -> bytes:
    """Render an event for the wire, and make sure that whoever reads it there can.

    Raises:
        EventBusError: when its payload is not JSON, or it is not one of the five events.
    """
    what = f"event {event.id} of run {event.transaction_id!r} was not published: its payload"
    event = event.model_copy(update={"payload": plain(event.payload, what, error=EventBusError)})
    try:
        raw = event.to_json().encode()
        event_from_json(raw)
    except (ValueError, DecodeError) as error:
        raise EventBusError(
            f"event {event.id} of run {event.transaction_id!r} was not published: {error}; an event must be one of the "
            f"five, and its payload JSON: text, numbers, lists, mappings, null"
        ) from error
    return raw
