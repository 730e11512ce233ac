"""The data of a run: its input and results, and how they make up a context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from multiagents.exceptions import DecodeError
from multiagents.plain_json import dumps
from multiagents.workflow.decider import as_given, as_mapping, merge
from multiagents.workflow.definition import Definition, map_of

__all__ = ["Payloads", "as_given", "as_mapping", "dumps", "merge", "signal_field"]


@dataclass(frozen=True, slots=True)
class Payloads:
    """The data of a run.

    Attributes:
        input: what it was started with.
        context: what trunk steps returned, merged.
        results: step -> result.
        inputs: step -> what its ``inputs`` answered.
        signals: `signal_id` -> the data of the signals that have come.
    """

    input: dict[str, Any]
    context: dict[str, Any]
    results: dict[str, Any]
    inputs: dict[str, Any]
    signals: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def decode(cls, context: Mapping[str, str], stored: Mapping[str, str]) -> Payloads:
        """Read what is kept: the context by key, and ``i``, ``r:<step>``, ``n:<step>`` and ``g:<signal>``.

        Raises:
            DecodeError: when some of it is not JSON.
        """
        return cls(
            input=_read("i", stored["i"]),
            context={key: _read(key, value) for key, value in context.items()},
            results={name[2:]: _read(name, value) for name, value in stored.items() if name.startswith("r:")},
            inputs={name[2:]: _read(name, value) for name, value in stored.items() if name.startswith("n:")},
            signals={name[2:]: _read(name, value) for name, value in stored.items() if name.startswith("g:")},
        )

    def input_of(self, definition: Definition, step: str) -> Any:
        """What a step was given: what its ``inputs`` answered, an item of its map, or else its context."""
        if step not in self.inputs:
            return self.of(definition, step)
        name = None if step in definition.called else map_of(step)
        return self.inputs[step] if name is None else {**as_given(name, self.inputs[name]), **self.inputs[step]}

    def of(self, definition: Definition, step: str) -> dict[str, Any]:
        """The context of a step: the input and the results of all its ancestors, the later ones last."""
        return merge(definition, dict(self.input), self.results, definition.ancestors(step))


def _read(field: str, value: str) -> Any:
    try:
        return from_json(value)
    except ValueError as error:
        raise DecodeError(
            f"the field {field!r} of a run's stored data is not JSON ({error}); something else wrote there, or a newer "
            f"release"
        ) from error


def signal_field(identity: str) -> str:
    """The field of a run's data that keeps the data of a signal, by its `signal_id`."""
    return f"g:{identity}"
