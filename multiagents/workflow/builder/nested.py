"""What is run inside a workflow: steps, runs of other workflows, the items of maps; as fields of step definitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from multiagents.exceptions import DefinitionError, WorkflowNotFoundError
from multiagents.workflow.builder import validation as check
from multiagents.workflow.builder.elements import Child, Map, Step
from multiagents.workflow.builder.probe_options import check_options
from multiagents.workflow.definition.definition import Definition, definitions
from multiagents.workflow.definition.step import StepDefinition, StepKind

__all__ = ["check_child", "check_map", "child_fields", "map_fields", "step_fields"]

#: What fields of a `Step` become fields of a `StepDefinition` unchanged.
_COPIED = (
    "when",
    "inputs",
    "retry",
    "undo_retry",
    "timeout",
    "schedule_to_start",
    "schedule_to_close",
    "heartbeat_timeout",
    "cancel_safe",
    "external",
    "pivot",
    "on_unknown",
    "compensate_on_failure",
    "no_compensation",
    "local",
    "queue",
    "priority",
    "limit",
    "summary",
)
#: What an item of a map cannot say of itself: its map does.
_OF_THE_MAP = ("after", "when", "pivot")


def step_fields(step: Step) -> dict[str, Any]:
    """The fields of a step that a worker does."""
    return {
        "worker": check.worker_name(step.worker) or step.name,
        "compensation": check.worker_name(step.compensation),
        "resolve_with": check.worker_name(step.resolve_with),
        **{field: getattr(step, field) for field in _COPIED},
    }


def child_fields(workflow: str, child: Child) -> dict[str, Any]:
    """The fields of a step that is a run of another workflow.

    A child that has a point of no return is one, unless its parent has another way to undo it: behind it nothing could
    be undone as a whole any more.
    """
    definition = _definition(workflow, child.name, child.workflow)
    compensation = check.worker_name(child.compensation)
    return {
        "workflow": definition,
        "inputs": child.inputs,
        "compensation": compensation,
        "undo_retry": child.undo_retry,
        "no_compensation": child.no_compensation,
        "detached": child.detached,
        "on_failure": None if child.on_failure == "fail" else child.on_failure,
        "pivot": bool(definition.pivots) and not (compensation or child.detached or child.no_compensation),
    }


def map_fields(workflow: str, written: Map) -> dict[str, Any]:
    """The fields of a map: how it gets its items, and what each of them is."""
    compensation = check.worker_name(written.compensation)
    in_bulk = compensation is not None and not written.compensate_each
    item = _item(workflow, written)
    if compensation is not None and not in_bulk:
        undo_retry = written.undo_retry or item.undo_retry
        item = replace(item, compensation=compensation, undo_retry=undo_retry, pivot=False)
    if in_bulk:
        item = replace(item, no_compensation=f"the items are undone together, by {compensation}", pivot=False)
    if item.pivot:
        raise DefinitionError(
            f'workflow "{workflow}" map "{written.name}" runs workflow "{item.workflow.name}" for each item, which has '
            f"a pivot; the first item to pass it would leave no way back for the others: give the map a "
            f'compensation="worker", or the items a no_compensation="reason": Child("{written.name}", ..., '
            f"no_compensation=...)"
        )
    return {
        "over": written.over,
        "max_concurrency": written.max_concurrency,
        "item": item,
        "compensation": compensation if in_bulk else None,
        "undo_retry": written.undo_retry if in_bulk else None,
    }


def _item(workflow: str, written: Map) -> StepDefinition:
    if isinstance(written.worker, Definition | Child):
        child = written.worker if isinstance(written.worker, Child) else Child(written.name, written.worker)
        return StepDefinition(name=written.name, kind=StepKind.CHILD, **child_fields(workflow, child))
    step = written.worker if isinstance(written.worker, Step) else Step(written.name, written.worker)
    return StepDefinition(**{**step_fields(step), "name": written.name})


def _definition(workflow: str, step: str, given: Any) -> Definition:
    if isinstance(given, Definition):
        return given
    if isinstance(given, str):
        try:
            return definitions.get(given)
        except WorkflowNotFoundError as error:
            raise DefinitionError(
                f'workflow "{workflow}" step "{step}" is to run another workflow: {error} before it, or give what '
                f"build() returned"
            ) from None
    expected = "a definition, as build() returns it, or the name of a workflow that was built before"
    raise check.refusal(workflow, step, "workflow", given, expected)


def check_child(workflow: str, child: Child) -> None:
    """Refuse a child whose options do not fit."""
    _definition(workflow, child.name, child.workflow)
    check.code(workflow, child)
    check.worker(workflow, f'step "{child.name}"', "compensation", child.compensation)
    check.retry(workflow, child.name, "undo_retry", child.undo_retry)
    if not isinstance(child.detached, bool):
        raise check.refusal(workflow, child.name, "detached", child.detached, "True or False")
    if child.on_failure not in ("fail", "continue"):
        raise check.refusal(workflow, child.name, "on_failure", child.on_failure, "'fail' or 'continue'")
    if child.detached and child.compensation is not None:
        raise DefinitionError(
            f'workflow "{workflow}" step "{child.name}" is detached and has a compensation; a detached run is left '
            f"alone, whatever becomes of this one: remove one of the two"
        )
    if child.compensation is not None and child.no_compensation is not None:
        raise DefinitionError(
            f'workflow "{workflow}" step "{child.name}" has compensation and no_compensation; expected one of them'
        )


def check_map(workflow: str, written: Map) -> None:
    """Refuse a map whose list, items or way of undoing do not fit."""
    name = written.name
    check.code(workflow, written)
    if not callable(written.over) and (not isinstance(written.over, str) or not written.over):
        expected = 'a dotted path to a list in the context, such as "order.lines", or a function of the context'
        raise check.refusal(workflow, name, "over", written.over, expected)
    limit: Any = written.max_concurrency
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise check.refusal(workflow, name, "max_concurrency", limit, "a whole number from 1, or None for no limit")
    if not isinstance(written.compensate_each, bool):
        raise check.refusal(workflow, name, "compensate_each", written.compensate_each, "True or False")
    check.worker(workflow, f'step "{name}"', "compensation", written.compensation)
    check.retry(workflow, name, "undo_retry", written.undo_retry)
    if written.compensation is None and not written.compensate_each:
        raise DefinitionError(
            f'workflow "{workflow}" map "{name}" has compensate_each=False and no compensation; add '
            f'compensation="worker", which undoes all items in one go'
        )
    if isinstance(written.worker, Step):
        check.step_options(workflow, written.worker)
        check_options(workflow, written.worker)
        _check_item(workflow, name, written.worker, written)
    elif isinstance(written.worker, Child):
        check_child(workflow, written.worker)
        _check_item(workflow, name, written.worker, written)
    elif not isinstance(written.worker, Definition):
        check.worker(workflow, f'map "{name}"', "worker", written.worker)


def _check_item(workflow: str, name: str, item: Step | Child, written: Map) -> None:
    for option in _OF_THE_MAP:
        if getattr(item, option, None):
            raise DefinitionError(
                f'workflow "{workflow}" map "{name}" has items with {option}={getattr(item, option)!r}; all items run '
                f"when the map does: give it to the map, or leave it out"
            )
    if written.compensation is not None and item.no_compensation is not None:
        raise DefinitionError(
            f'workflow "{workflow}" map "{name}" has a compensation, and its items a no_compensation; remove one of '
            f"the two"
        )
    if item.compensation is not None and written.compensation is not None:
        raise DefinitionError(
            f'workflow "{workflow}" map "{name}" has a compensation, and so have its items; remove one of the two'
        )
