"""Where branches meet: what arrives at a join, and what the stored context takes in there.

A *join* is a step that waits for more than one, or the end of a run with more than one exit. Nobody who finishes one of
its branches knows the others: each decision says how many of the join's members it brings (`FanIn.arrivals`), the store
adds them up, and whoever brings the last one has the join decided. So a join is decided once, however many finish at a
time.

Between joins, a branch's results are kept by step. A step of the *trunk*, which every way passes, folds in all that ran
beside the way to it (`FanIn.context`): from then on the context is one value again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from multiagents.events import StatusEvent
from multiagents.workflow.decider.context import as_mapping, merge, merge_note
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState, RunStatus, StepState

__all__ = ["FanIn", "changed_steps", "fan_in", "meets", "newly_done"]


class FanIn(NamedTuple):
    """What a decision brings to joins and to the stored context.

    Attributes:
        arrivals: join -> how many of its members arrive with this decision, and how many there are in all; ``""`` is
            the end of the run.
        context: what the stored context gains.
        forgotten: keys of it that go: the run went back to before they were there.
        notes: what the history has to say of results with the same key.
    """

    arrivals: Mapping[str, tuple[int, int]] = {}
    context: Mapping[str, Any] = {}
    forgotten: Sequence[str] = ()
    notes: Sequence[StatusEvent] = ()


_NOTHING = FanIn()


def changed_steps(before: RunState, after: RunState) -> dict[str, StepState]:
    """The steps that differ."""
    return {name: step for name, step in after.steps.items() if before.steps.get(name) is not step}


def newly_done(before: RunState, changed: Mapping[str, StepState]) -> list[str]:
    """Those of the changed steps after which others may start, and might not before."""
    return [name for name, step in changed.items() if step.is_done and not before.step(name).is_done]


def meets(definition: Definition, before: RunState, after: RunState, changed: Mapping[str, StepState]) -> bool:
    """Whether branches meet in a decision, so that `fan_in` needs the results of all steps."""
    if after.rollbacks is not before.rollbacks:
        return True
    if before.status is not after.status is RunStatus.COMPLETED and len(definition.exits) > 1:
        return True
    done = newly_done(before, changed)
    return any(definition.is_trunk(name) and definition.parts(name) for name in done)


def fan_in(
    definition: Definition,
    before: RunState,
    after: RunState,
    changed: Mapping[str, StepState],
    own: Mapping[str, Any],
    *,
    results: Mapping[str, Any],
    context: Mapping[str, Any] | None,
    now: datetime,
) -> FanIn:
    """What a decision brings to the joins behind it, and to the stored context.

    Args:
        definition: what the run follows, expanded as it is after the decision.
        before: the run, or the projection, that was decided upon.
        after: the same after the decision.
        changed: the steps that differ.
        own: step -> result, of what the decision brings.
        results: step -> result, of steps that finished before, where some have to be folded in.
        context: the stored context, where the run goes back to a save-point.
        now: the time of the decision.
    """
    done = newly_done(before, changed)
    if context is None and not done and not results:
        return _NOTHING
    found = _arrivals(definition, done)
    gained = _folded(definition, done, results, own)
    forgotten: tuple[str, ...] = ()
    if context is not None:
        gained |= _context_kept(definition, after, {**results, **own})
        forgotten = tuple(key for key in context if key not in gained)
        found |= _arrived_before(definition, after, len(before.rollbacks))
    notes: list[StatusEvent] = []
    if results:
        ended = before.status is not after.status is RunStatus.COMPLETED
        notes = _notes(definition, done, {**results, **own}, after, ended=ended, now=now)
    return FanIn(found, gained, forgotten, notes)


def _arrivals(definition: Definition, done: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The joins that these steps arrive at: step -> how many of them arrive, and how many steps it waits for in all.

    One decision may bring several: it may skip two branches at once.
    """
    found: dict[str, tuple[int, int]] = {}
    for name in done:
        if name in definition.called:
            continue
        for after in definition.successors[name]:
            if after not in definition.superseded and (members := len(definition.steps[after].after)) > 1:
                found[after] = (found.get(after, (0, 0))[0] + 1, members)
        if not definition.successors[name] and len(definition.exits) > 1:
            found[""] = (found.get("", (0, 0))[0] + 1, len(definition.exits))
    return found


def _folded(
    definition: Definition, done: Sequence[str], results: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """What the stored context gains: a finished trunk step takes in all that ran beside the way to it."""
    gained: dict[str, Any] = {}
    for name in done:
        if definition.is_trunk(name):
            merge(definition, gained, results, definition.parts(name))
            if name in own:
                gained.update(as_mapping(name, own[name], apart=name in definition.apart))
    return gained


def _context_kept(definition: Definition, after: RunState, results: Mapping[str, Any]) -> dict[str, Any]:
    """The stored context of a run that has gone back: what trunk steps have returned that were not undone."""
    done = [name for name in definition.graph.trunks if after.step(name).is_done]
    return merge(definition, {}, results, (*definition.ancestors(done[-1]), done[-1])) if done else {}


def _arrived_before(definition: Definition, after: RunState, known: int) -> dict[str, tuple[int, int]]:
    """How many of those that the joins of a new pass wait for are done already, beside what was undone."""
    passed = {f"#{number + 2}" for number in range(known, len(after.rollbacks))}
    found = {}
    for name, origin in definition.origins.items():
        step = definition.steps[name]
        if len(step.after) > 1 and name.removeprefix(origin) in passed:
            arrived = sum(after.step(before).is_done for before in step.after)
            found[name] = (arrived, len(step.after))
    return found


def _notes(
    definition: Definition,
    done: Sequence[str],
    results: Mapping[str, Any],
    after: RunState,
    *,
    ended: bool,
    now: datetime,
) -> list[StatusEvent]:
    """What the history has to say of results with the same key, of all that meet in this decision."""
    met: list[tuple[str | None, Sequence[str]]] = [
        (name, definition.parts(name)) for name in done if definition.is_trunk(name)
    ]
    if ended and len(definition.exits) > 1:
        met.append((None, definition.tail_parts()))
    notes = [
        merge_note(definition, steps, results, transaction_id=after.transaction_id, step=step, now=now)
        for step, steps in met
        if len(steps) > 1
    ]
    return [note for note in notes if note is not None]
