"""What a fork takes over of the run that it is made of (rule S22).

The rules:

1. A fork begins at a step: that one, and all that comes after it, is done in the fork. Of the others it takes over, as
   done, what was skipped, and what had succeeded and whose effect is live. It takes that effect as its own: it undoes
   it, if it goes back.
2. What was undone is not there any more: it is done again, and so is all that comes after it. So a fork of a run that
   was compensated begins, in truth, at the first step that was undone, and its first fact says so.
3. What nobody knows is not built upon. Where a step's effect is in doubt, or its undo waits for a person, the fork is
   refused until that is settled.
4. A map is taken over with all its items, or not at all; so is a choice with all its branches.
5. A step is taken over with the calls of tools that it has made (rule S36), or not at all. Of a call it need not be
   known whether it took effect: nobody builds upon that, and it is undone in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from multiagents.exceptions import WorkflowError
from multiagents.workflow.definition import Definition, item_name, map_of
from multiagents.workflow.state import ActivityStatus, RunState

__all__ = ["Takeover", "takeover"]


@dataclass(frozen=True)
class Takeover:
    """What a fork takes over.

    Attributes:
        steps: what counts as done, in an order that keeps to "after"; items before their map.
        live: of these, the ones whose effect it takes as live.
        again: what had been done before its first step, and is done again.
        left: step -> ``live`` or ``unknown``: effects of the original that the fork does not take over.
    """

    steps: tuple[str, ...]
    live: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What the first fact of the fork says of it."""
        return {"live": list(self.live), "again": list(self.again), "left": dict(self.left)}


def takeover(definition: Definition, state: RunState, from_step: str, labels: Mapping[str, Any]) -> Takeover:
    """What a fork that begins at a step takes over.

    Args:
        definition: what the run follows.
        state: the run, which is over.
        from_step: where the fork begins.
        labels: choice -> what its chooser answered.

    Raises:
        UnknownStepError: when there is no such step.
        WorkflowError: when a fork cannot begin there, in words.
    """
    base, expanded = definition.expanded({}), definition.expanded(state.sizes, state.rollbacks, state.called)
    from_step = expanded.origins.get(from_step, from_step)
    if from_step not in base.steps and map_of(from_step) in base.steps:
        raise WorkflowError(
            f"a fork cannot begin at {from_step!r}, an item of a map: it takes the map over with all its items, or "
            f"not at all; fork from {map_of(from_step)!r}"
        )
    behind = {base.step(from_step).name}
    taken: dict[str, None] = {}  # in order, and quick to look into
    again: list[str] = []
    for name in base.order:
        before = base.steps[name].after
        if not behind.isdisjoint(before):
            behind.add(name)
        if name in behind:
            continue
        is_done = _is_standing(expanded, state, name)
        if is_done and all(each in taken for each in before):
            taken[name] = None
        elif state.step(name).do.attempt or state.step(name).is_done:
            again.append(name)
    for name in taken:
        _check_branch(base, name, from_step, labels)
    parts = [step for name in taken for step in (*_items(state, name), name)]
    steps = tuple(step for part in parts for step in (part, *expanded.calls.get(part, ())))
    counted = frozenset(steps)
    effects = {name: effect for name in expanded.steps if (effect := _effect(expanded, state, name)) is not None}
    return Takeover(
        steps=steps,
        live=tuple(name for name in steps if name in effects),
        again=tuple(again),
        left={name: effect for name, effect in effects.items() if effect != "undone" and name not in counted},
    )


def _items(state: RunState, name: str) -> Iterator[str]:
    return (item_name(name, index) for index in range(state.sizes.get(name, 0)))


def _effect(definition: Definition, state: RunState, name: str) -> str | None:
    """What is known of the effect of a step that may have one; items are undone with a map that is undone in one go."""
    if not definition.steps[name].may_have_effect:
        return None
    whole = map_of(name)
    if whole is not None and state.step(whole).effect == "undone":
        return "undone"
    return state.step(name).effect


def _is_standing(definition: Definition, state: RunState, name: str) -> bool:
    """Whether a step, with its items if it is a map, was done and is not undone.

    Raises:
        WorkflowError: when a person has to settle it first.
    """
    step = state.step(name)
    parts = [name, *_items(state, name)]
    parts += [call for part in parts for call in definition.calls.get(part, ())]
    for part in parts:
        own = state.step(part)
        waits = own.undo.is_over and not own.abandoned
        unknown = own.called is None and _effect(definition, state, part) == "unknown"
        if waits or unknown or own.undo.in_flight:
            why = "its undo waits for a person" if waits else "nobody knows whether its effect is there"
            raise WorkflowError(
                f"a fork of run {state.transaction_id!r} cannot build upon step {part!r}: {why}; settle it first "
                f"(retry, skip, supply or abandon), or begin the fork at that step or before it"
            )
    if step.do.status is ActivityStatus.SKIPPED:
        return True
    undone = any(state.step(part).effect == "undone" for part in parts)
    return step.do.status is ActivityStatus.SUCCEEDED and not undone


def _check_branch(definition: Definition, choice: str, from_step: str, labels: Mapping[str, Any]) -> None:
    for label, names in definition.steps[choice].branches.items():
        if from_step in names and label != labels.get(choice):
            raise WorkflowError(
                f"a fork cannot begin at {from_step!r}: it is in the branch {label!r} of {choice!r}, which the run did "
                f"not take; fork from {choice!r}, which is asked again then"
            )
