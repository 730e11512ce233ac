"""A whole run as the store has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic_core import from_json

from multiagents.clock import from_ms
from multiagents.names import Correlation
from multiagents.state_store.records.attempt import Delivery, InFlight, attempt_key_of
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState, StepState


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run as the store has it: its whole state, and what is in flight."""

    state: RunState
    definition: Definition
    in_flight: Mapping[str, InFlight]
    version: int
    epoch: int
    #: the store's clock
    now: datetime
    #: 1, and one more for each run that it replaced
    generation: int = 1
    #: what it is found by, as `encode_attribute` writes it
    attributes: Mapping[str, str] = field(default_factory=dict)
    #: step -> ``<attempt key>|<text>``: how the worker of an attempt came to its end, as its parent saw it
    deaths: Mapping[str, str] = field(default_factory=dict)

    #: step -> what the last heartbeat of an attempt said, as JSON
    details: Mapping[str, str] = field(default_factory=dict)

    #: step -> the key of an attempt that was given back after it had been begun
    begun: Mapping[str, str] = field(default_factory=dict)

    def attempt(self, wanted: Correlation) -> InFlight | None:
        """The record of this very attempt, of this very run, if it is in flight (rule S32)."""
        found = self.in_flight.get(wanted.step)
        if found is None or wanted.nonce != self.state.nonce:
            return None
        return found if found.attempt_key == attempt_key_of(wanted.direction, wanted.attempt) else None

    def detail_of(self, step: str) -> Any:
        """What the last heartbeat of a step's attempts, or of those of its undo, said; None if none has."""
        said = self.details.get(step)
        return None if said is None else from_json(said)

    def is_begun(self, found: InFlight) -> bool:
        """Whether a worker has had an attempt before, and given it back: it may have taken effect."""
        return self.begun.get(found.step) == found.attempt_key

    def death_of(self, found: InFlight) -> str:
        """How the worker of an attempt came to its end; empty if nobody saw it."""
        attempt_key, _, why = self.deaths.get(found.step, "").partition("|")
        return why if attempt_key == found.attempt_key else ""

    @property
    def awaits_others(self) -> bool:
        """Whether it waits, as declared and without a limit, for somebody who is not asked."""
        return any(entry.delivery is Delivery.EXTERNAL and not entry.close_ms for entry in self.in_flight.values())

    @classmethod
    def decode(cls, transaction_id: str, fields: Mapping[str, str], definition: Definition, now: int) -> Snapshot:
        """Put a run together from the fields of its hash.

        Args:
            transaction_id: the run.
            fields: header fields, ``s:<step>`` states, ``l:<step>`` records, ``a:<name>`` attributes, ``x:<step>``
                deaths, ``h:<step>`` details, ``b:<step>`` what was begun, and others that are not read.
            definition: what it follows.
            now: the store's clock, in ms.
        """
        header: dict[str, str] = {}
        steps: dict[str, StepState] = {}
        in_flight: dict[str, InFlight] = {}
        attributes: dict[str, str] = {}
        deaths: dict[str, str] = {}
        details: dict[str, str] = {}
        begun: dict[str, str] = {}
        for name, value in fields.items():
            kind, _, step = name.partition(":")
            if not step:
                header[name] = value
            elif kind == "s":
                steps[step] = StepState.decode(value)
            elif kind == "l":
                in_flight[step] = InFlight.decode(step, value)
            elif kind == "a":
                attributes[step] = value
            elif kind == "x":
                deaths[step] = value
            elif kind == "h":
                details[step] = value
            elif kind == "b":
                begun[step] = value
        state = RunState.decode(transaction_id, header, steps)
        definition = definition.expanded(state.sizes, state.rollbacks, state.called)
        ordered = {name: steps[name] for name in definition.steps if name in steps}
        return cls(
            state._replace(steps=ordered),
            definition,
            in_flight,
            int(header["v"]),
            int(header["epoch"]),
            from_ms(now),
            int(header.get("generation", 1)),
            attributes,
            deaths,
            details,
            begun,
        )
