"""A definition as data: what is stored with each run, and hashed (rule S26).

What is data and what is code:

- All that `Definition.to_dict` returns is data. It is stored with each run, so that a run ends by the definition it
  started with, and hashed into `Definition.content_hash`.
- ``when``, callable ``inputs`` and the like are code. The data says only that they exist (``true``). A definition that
  was read from the store *lacks* that code (`Definition.lacks_code`) until `Definition.with_code_of` finds it in a
  definition built in this process.
- What equals its default is left out of the data, so that a field added by a later release changes no hash. A release
  that changes what existing data *means* raises `SCHEMA`; an older one then refuses to read it and says so.

The pieces, such as `StepDefinition`, have ``to_dict`` and ``from_dict`` of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, TypeVar

from multiagents.exceptions import DecodeError, DefinitionError
from multiagents.retry import RetryPolicy
from multiagents.workflow.definition.step import STEP_DEFAULTS, BlockDefinition, StepDefinition, plain

__all__ = ["OPTIONS", "SCHEMA", "as_json", "digest", "from_data", "has_unknown_keys", "to_data"]

_Definition = TypeVar("_Definition")

#: The newest shape of the data that this release reads and the one it writes.
SCHEMA = 1
#: What a definition may say beside its name, version, steps and blocks, and the defaults.
OPTIONS: dict[str, Any] = {
    "deadline": None,
    "retention": None,
    "strict": False,
    "compensate_in": None,
    "on_end": None,
    "model": None,
}
_KEYS = frozenset({"schema", "name", "version", "steps", "blocks", *OPTIONS})


def to_data(
    name: str,
    version: str,
    options: Mapping[str, Any],
    steps: Iterable[StepDefinition],
    blocks: Iterable[BlockDefinition],
) -> dict[str, Any]:
    """The JSON-ready data of a definition, without what equals the defaults."""
    data: dict[str, Any] = {"schema": SCHEMA, "name": name, "version": version}
    data |= {option: plain(value) for option, value in options.items() if value != OPTIONS[option]}
    data["steps"] = [step.to_dict() for step in steps]
    if written := [block.to_dict() for block in blocks]:
        data["blocks"] = written
    return data


def from_data(
    data: Mapping[str, Any], make: Callable[..., _Definition], child: Callable[[Mapping[str, Any]], Any]
) -> _Definition:
    """The inverse of `to_data`; keys that a later release added are passed over.

    Args:
        data: what to_data() returned.
        make: makes the definition of its fields.
        child: makes the definition of a child of its data.

    Raises:
        DecodeError: when the data was written in a newer schema, or is not a definition.
    """
    try:
        schema = data.get("schema", SCHEMA)
        if schema > SCHEMA:
            raise DecodeError(
                f"workflow {data.get('name')!r} was stored in schema {schema}, this process reads up to {SCHEMA}; "
                f"upgrade multiagents here, or leave the run to processes of the newer release"
            )
        steps = [StepDefinition.from_dict(step, child) for step in data["steps"]]
        blocks = [BlockDefinition.from_dict(block) for block in data.get("blocks", ())]
        return make(
            name=data["name"],
            version=data["version"],
            steps={step.name: step for step in steps},
            blocks={block.name: block for block in blocks},
            **{name: data[name] for name in OPTIONS if name in data},
        )
    except (KeyError, TypeError, ValueError, AttributeError, DefinitionError) as error:
        raise DecodeError(
            f"this is not a workflow definition ({type(error).__name__}: {error}); expected what to_dict() returns"
        ) from error


def has_unknown_keys(data: Mapping[str, Any]) -> bool:
    """Whether a later release has written something that this one does not know."""
    if not _KEYS.issuperset(data):
        return True
    policies = RetryPolicy.model_fields.keys()
    steps = [*data["steps"], *(step["item"] for step in data["steps"] if "item" in step)]
    return any(
        not STEP_DEFAULTS.keys() >= step.keys()
        or any(name in step and not policies >= step[name].keys() for name in ("retry", "undo_retry"))
        or has_unknown_keys(step.get("workflow", {"steps": ()}))
        for step in steps
    ) or any(not {"name", "branches", "on_failure"} >= block.keys() for block in data.get("blocks", ()))


def as_json(data: Mapping[str, Any]) -> str:
    """Data as canonical JSON: sorted keys, no blanks."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(data: Mapping[str, Any]) -> str:
    """The first 32 hex digits of the SHA-256 over the canonical JSON."""
    return sha256(as_json(data).encode()).hexdigest()[:32]
