"""From what was laid out to the steps of a definition."""

from __future__ import annotations

from typing import Any

from multiagents.workflow.builder import validation as check
from multiagents.workflow.builder.elements import Child, Map, Step
from multiagents.workflow.builder.layout import Layout
from multiagents.workflow.builder.nested import child_fields, map_fields, step_fields
from multiagents.workflow.definition.step import StepDefinition, StepKind

__all__ = ["assembled"]

#: What fields of a node become fields of a `StepDefinition` unchanged.
_COPIED = (
    "when",
    "schema",
    "timeout",
    "on_timeout",
    "seconds",
    "chooser",
    "default",
    "retries",
    "key",
    "lease",
    "summary",
)


def assembled(layout: Layout) -> dict[str, StepDefinition]:
    """Resolve what each step waits for, and make the steps."""
    place = {name: number for number, name in enumerate(layout.placed)}
    steps = {}
    for name, each in layout.placed.items():
        step = each.step
        named = each.follows if step.after is None else step.after
        before = {b for other in check.after(layout.workflow, name, named) for b in layout.waited_for(other, name)}
        common: dict[str, Any] = {
            "name": name,
            "after": tuple(sorted(before, key=place.__getitem__)),
            "block": each.block,
            "cancel_siblings": each.cancel_siblings,
        }
        if isinstance(step, Step):
            steps[name] = StepDefinition(**step_fields(step), **common)
            continue
        own = {field: getattr(step, field) for field in _COPIED if hasattr(step, field)}
        match step:
            case Child():
                own |= child_fields(layout.workflow, step)
            case Map():
                own |= map_fields(layout.workflow, step)
        if step.kind in (StepKind.WAIT, StepKind.APPROVAL):
            own["signal"] = getattr(step, "signal", None) or name
        steps[name] = StepDefinition(kind=step.kind, branches=each.branches, **own, **common)
    return steps
