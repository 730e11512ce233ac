"""Probes as they may be written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiagents.exceptions import DefinitionError
from multiagents.workflow.builder.validation import worker_name

if TYPE_CHECKING:
    from multiagents.workflow.builder.elements import Step


def check_options(workflow: str, step: Step) -> None:
    """Refuse a step whose ``on_unknown`` and ``resolve_with`` do not fit together."""
    probe, where = worker_name(step.resolve_with), f'workflow "{workflow}" step "{step.name}"'
    if step.on_unknown == "resolve" and probe is None:
        raise DefinitionError(
            f'{where} has on_unknown="resolve" and no resolve_with; name the worker that finds out whether the step '
            f'took effect, or write on_unknown="park" to leave that to a person'
        )
    if probe is not None and step.on_unknown != "resolve":
        raise DefinitionError(
            f'{where} has resolve_with="{probe}" and on_unknown="{step.on_unknown}", so its probe would never be '
            f'asked; write on_unknown="resolve", or remove resolve_with'
        )
    if probe is not None and probe == (worker_name(step.worker) or step.name):
        raise DefinitionError(
            f'{where} has worker and resolve_with "{probe}"; a probe only looks whether the step took effect: expected '
            f"another worker"
        )
