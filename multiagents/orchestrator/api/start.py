"""Starting a run: what is looked at before the engine is asked, and after it has answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from multiagents.exceptions import WorkflowError
from multiagents.orchestrator.api.run import Run
from multiagents.orchestrator.engine import OnConflict, identity_of
from multiagents.orchestrator.runtime import Runtime
from multiagents.plain_json import digest, plain
from multiagents.settings import Settings
from multiagents.state_store.records import encode_attributes
from multiagents.workflow.definition import Definition, definitions


def start(
    runtime: Runtime,
    workflow: Definition | str,
    input: dict[str, Any] | None,
    transaction_id: str | None,
    *,
    idempotency_key: str | None = None,
    on_conflict: OnConflict | str,
    attributes: Mapping[str, Any] | None,
) -> Run:
    """Start a run, or find the one that exists; all of it is told at `Orchestrator.start`."""
    definition = definitions.meant(workflow, "start()")
    identity = identity_of(definition.name, transaction_id, idempotency_key) or uuid4().hex
    policy = OnConflict.of(on_conflict)
    given = plain_input(f'the input that workflow "{definition.name}" was started with', input, runtime.settings)
    runtime.check_store()
    started = runtime.engine.start(
        definition, identity, given, on_conflict=policy, attributes=encode_attributes(attributes)
    )
    policy.check(started, identity, definition.name, digest(given))
    return Run(runtime, identity)


def plain_input(what: str, given: Any, settings: Settings) -> dict[str, Any]:
    """An input as it is kept; None is an empty one.

    Raises:
        WorkflowError: when it is no mapping, cannot be written as JSON, or is too large.
    """
    read = {} if given is None else plain(given, what, max_bytes=settings.max_payload_bytes)
    if not isinstance(read, dict):
        raise WorkflowError(
            f"{what} is {type(given).__name__} {given!r:.80}; expected a dict: it is the first context of the steps"
        )
    return read
