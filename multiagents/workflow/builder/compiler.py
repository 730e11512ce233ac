"""Compile elements, in their layout, to the steps of a definition.

An option that an element and a `StepDefinition` both have is taken over unchanged, so that a new one is written down
twice: there with its docstring for those who write workflows, here for those who run them.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from multiagents.exceptions import DefinitionError, WorkflowNotFoundError
from multiagents.workflow.builder.elements import Approval, Child, Map, Node, Step, Wait
from multiagents.workflow.builder.layout import Layout
from multiagents.workflow.builder.option_checks import names_after
from multiagents.workflow.builder.workers import worker_name
from multiagents.workflow.definition import Definition, StepDefinition, definitions

__all__ = ["compiled"]

_FIELDS = frozenset(each.name for each in fields(StepDefinition))


def compiled(layout: Layout) -> dict[str, StepDefinition]:
    """Resolve what each step waits for, and make the steps."""
    position = {name: number for number, name in enumerate(layout.placed)}
    steps = {}
    for name, placed in layout.placed.items():
        element = placed.element
        named = placed.follows if element.after is None else element.after
        before = {b for other in names_after(layout.workflow, name, named) for b in layout.waited_for(other, name)}
        steps[name] = _step(
            layout.workflow,
            element,
            after=tuple(sorted(before, key=position.__getitem__)),
            block=placed.block,
            cancel_siblings=placed.cancel_siblings,
            branches=placed.branches,
        )
    return steps


def _step(workflow: str, element: Step | Node, **place: Any) -> StepDefinition:
    """The step that an element is, in the place where it stands: what it waits for, and its block."""
    given = {each.name: getattr(element, each.name) for each in fields(element) if each.name in _FIELDS}
    made: dict[str, Any] = {}
    match element:
        case Step():
            made = _work(element)
        case Wait() | Approval():
            made = {"signal": element.signal or element.name}
        case Child():
            made = _child(workflow, element)
        case Map():
            made = _map(workflow, element)
    return StepDefinition(**{**given, **made, "kind": element.kind, "after": (), "branches": {}, **place})


def _work(step: Step) -> dict[str, Any]:
    return {
        "worker": worker_name(step.worker) or step.name,
        "on_failure": None if step.on_failure == "fail" else step.on_failure,
        "compensation": worker_name(step.compensation),
        "resolve_with": worker_name(step.resolve_with),
    }


def _child(workflow: str, child: Child) -> dict[str, Any]:
    """A child that has a point of no return is one, unless its parent has another way to undo it.

    Behind it nothing could be undone as a whole any more.
    """
    definition = child.workflow if isinstance(child.workflow, Definition) else _found(workflow, child)
    compensation = worker_name(child.compensation)
    return {
        "workflow": definition,
        "compensation": compensation,
        "on_failure": None if child.on_failure == "fail" else child.on_failure,
        "pivot": bool(definition.pivots) and not (compensation or child.detached or child.no_compensation),
    }


def _found(workflow: str, child: Child) -> Definition:
    try:
        return definitions.get(child.workflow)
    except WorkflowNotFoundError as error:
        raise DefinitionError(
            f'workflow "{workflow}" step "{child.name}" is to run another workflow: {error} before it, or give what '
            f"build() returned"
        ) from None


def _map(workflow: str, written: Map) -> dict[str, Any]:
    """How a map gets its items, what each of them is, and which of the two is undone."""
    compensation = worker_name(written.compensation)
    item = _item(workflow, written)
    if compensation is None:
        return {"item": item, "undo_retry": None}
    if written.compensate_each:
        undo_retry = written.undo_retry or item.undo_retry
        item = replace(item, compensation=compensation, undo_retry=undo_retry, pivot=False)
        return {"item": item, "compensation": None, "undo_retry": None}
    item = replace(item, no_compensation=f"the items are undone together, by {compensation}", pivot=False)
    return {"item": item, "compensation": compensation}


def _item(workflow: str, written: Map) -> StepDefinition:
    name, given = written.name, written.worker_or_workflow
    match given:
        case Step():
            return _step(workflow, given, name=name)
        case Child():
            # Its summary was never a part of the data, and would change the hash.
            return _step(workflow, given, name=name, summary=None)
        case Definition():
            return _step(workflow, Child(name, given))
    return _step(workflow, Step(name, given))
