"""What is refused of a workflow as a saga: pivots, an order of undoing, and steps that leave open how they are undone.

These rules are about steps together, so they look at the steps as they were compiled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from multiagents.exceptions import DefinitionError, did_you_mean
from multiagents.workflow.builder.workers import is_listing
from multiagents.workflow.definition import Definition, StepDefinition

__all__ = ["check_depth", "check_passes", "check_saga", "quoted", "steps_left_live", "undo_order"]

#: How deep workflows may lie in each other: JSON that is nested further cannot be read by everybody.
MAX_DEPTH = 40


def check_saga(definition: Definition) -> None:
    """Refuse a definition whose steps do not fit its pivots, or that is not as strict as it says (rules S12, S14)."""
    for name, step in definition.steps.items():
        if step.item is not None and step.item.pivot:
            raise DefinitionError(
                f'workflow "{definition.name}" map "{name}" runs workflow "{step.item.workflow.name}" for each item, '
                f"which has a pivot; the first item to pass it would leave no way back for the others: give the map a "
                f'compensation="worker", or the items a no_compensation="reason": Child("{name}", ..., '
                f"no_compensation=...)"
            )
    for pivot in definition.pivots:
        _check_pivot(definition, pivot)
    if definition.strict:
        _check_strictness(definition)


def check_depth(definition: Definition) -> None:
    """Refuse workflows in workflows beyond what can be stored as one piece of data."""
    if definition.depth > MAX_DEPTH:
        raise DefinitionError(
            f'workflow "{definition.name}" runs workflows in workflows, {definition.depth} deep; expected {MAX_DEPTH} '
            f"at most, as each definition is stored with all that it runs: have a step of a lower one start the rest "
            f"as a run of its own (orchestrator.start), or use a loop"
        )


def steps_left_live(definition: Definition) -> list[str]:
    """The steps that stay as they are when the run goes back, and do not say that this is meant.

    A workflow that undoes nothing says nothing. Behind a pivot nothing is undone, so nothing need be said.
    """
    if not any(map(_is_undoable, definition.steps.values())):
        return []
    return list(dict.fromkeys(name.partition("#")[0] for name in _left_open(definition)))  # of rounds, what was written


def check_passes(definition: Definition) -> None:
    """Refuse names that the steps of a later pass would have, too: a run that goes back knows its steps by them."""
    savepoints = [name for name, step in definition.steps.items() if step.retries is not None]
    passes = 1 + sum(definition.steps[name].retries or 0 for name in savepoints)
    for name in definition.steps if savepoints else ():
        origin, _, number = name.rpartition("#")
        behind = next((each for each in savepoints if origin in definition.behind(each)), None)
        if behind is not None and 1 < int(number) <= passes:
            raise DefinitionError(
                f'workflow "{definition.name}" has step "{origin}" behind save-point "{behind}", whose pass {number} '
                f'would be called "{name}", as a round of a loop is called already; rename the step, or what the loop '
                f"runs"
            )


def undo_order(workflow: str, steps: Mapping[str, StepDefinition], given: Any) -> tuple[str, ...] | None:
    """The order of undoing that was asked for, or an error where it does not name each step to be undone once."""
    if given is None:
        return None
    what = f'workflow "{workflow}": compensate_in'
    names = tuple(given) if is_listing(given) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise DefinitionError(f"{what} is {given!r}; expected a list of step names, the one to be undone first first")
    compensable = [step.name for step in steps.values() if _is_undoable(step)]
    for name in names:
        if name not in steps:
            raise DefinitionError(
                f'{what} names step "{name}", which is not defined{did_you_mean(name, compensable)} (steps with a '
                f"compensation: {', '.join(compensable) or 'none'})"
            )
        if name not in compensable:
            raise DefinitionError(
                f'{what} names step "{name}", which has no compensation; give it one, or leave it out of the order'
            )
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DefinitionError(f"{what} names {quoted(twice)} more than once; a step is undone once: name it once")
    if missing := [name for name in compensable if name not in names]:
        raise DefinitionError(
            f"{what} leaves out {quoted(missing)}, which must be undone too; name every step that has a compensation"
        )
    return names


def _check_pivot(definition: Definition, pivot: str) -> None:
    workflow, steps = definition.name, definition.steps
    if steps[pivot].compensation is not None:
        raise DefinitionError(
            f'workflow "{workflow}" step "{pivot}" is a pivot and has a compensation; behind a pivot there is no way '
            f"back, so it would never run: remove one of the two"
        )
    before = definition.ancestors(pivot)
    if other := [name for name in before if steps[name].pivot]:
        raise DefinitionError(
            f'workflow "{workflow}" has two pivots on one path, "{other[0]}" and "{pivot}"; behind the first there is '
            f"no way back already: keep one of them"
        )
    if silent := [name for name in before if _is_silent(steps[name])]:
        raise DefinitionError(
            f'workflow "{workflow}" has a pivot, "{pivot}", and {quoted(silent)} before it does not say how to undo '
            f'what was done; give each a compensation="worker" or a no_compensation="reason" (rule S14)'
        )
    for name, step in steps.items():
        endless = step.retry is not None and step.retry.max_attempts == 0
        undone = step.compensation or (step.item and step.item.compensation)
        if undone and definition.graph.is_before(pivot, name) and not endless:
            raise DefinitionError(
                f'workflow "{workflow}" step "{name}" has a compensation and comes behind the pivot "{pivot}", where '
                f"nothing is undone any more; have it tried again without limit (retry=RetryPolicy(max_attempts=0)), "
                f"or remove the compensation (rule S12)"
            )


def _check_strictness(definition: Definition) -> None:
    if silent := _left_open(definition):
        raise DefinitionError(
            f'workflow "{definition.name}" is strict, and {quoted(silent)} of it '
            f"{'does' if len(silent) == 1 else 'do'} not say how to undo what was done; give each a "
            f'compensation="worker" or a no_compensation="reason" (rule S14)'
        )


def _left_open(definition: Definition) -> list[str]:
    """A pivot has said how it is undone by being one, and so has what comes behind it."""
    pivots, is_before = definition.pivots, definition.graph.is_before
    silent = [name for name, step in definition.steps.items() if _is_silent(step)]
    return [name for name in silent if not any(name == pivot or is_before(pivot, name) for pivot in pivots)]


def _is_undoable(step: StepDefinition) -> bool:
    return step.is_undoable or (step.item is not None and step.item.is_undoable)


def _is_silent(step: StepDefinition) -> bool:
    return (step.is_work or step.item is not None) and not step.says_how_undone


def quoted(names: Iterable[str]) -> str:
    """Names as a message has them: ``step "a"``, ``steps "a", "b"``."""
    names = list(names)
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"steps {quoted}" if len(names) > 1 else f"step {quoted}"
