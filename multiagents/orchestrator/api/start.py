"""Starting a run: what is looked at before the engine is asked, and after it has answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from multiagents.exceptions import WorkflowError
from multiagents.orchestrator.api.run import Run
from multiagents.orchestrator.engine import OnConflict, digest, identity_of
from multiagents.orchestrator.runtime import Runtime
from multiagents.state_store.payloads import dumps
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
    definition = definitions.get(workflow) if isinstance(workflow, str) else workflow
    identity = identity_of(definition.name, transaction_id, idempotency_key) or uuid4().hex
    policy = OnConflict.of(on_conflict)
    given = {} if input is None else input
    _check_input(definition.name, given)
    runtime.check_store()
    started = runtime.engine.start(
        definition, identity, given, on_conflict=policy, attributes=encode_attributes(attributes)
    )
    policy.check(started, identity, definition.name, digest(given))
    return Run(runtime, identity)


def _check_input(workflow: str, given: Any) -> None:
    if not isinstance(given, dict):
        raise WorkflowError(
            f'workflow "{workflow}" was started with {type(given).__name__} {given!r:.80}; expected a dict: it is the '
            f"first context of its steps"
        )
    try:
        dumps(given)
    except (TypeError, ValueError) as error:
        raise WorkflowError(
            f'workflow "{workflow}" was started with an input that cannot be written as JSON: {error}; use str, int, '
            f"float, bool, None, lists and dicts (of a Pydantic model: model_dump(mode='json'))"
        ) from None
