"""What is to be undone of a run that compensates, in which order, and in which end state that results."""

from __future__ import annotations

from multiagents.workflow.definition import Definition, StepDefinition, item_name, map_of
from multiagents.workflow.state import ActivityStatus, Cause, RunState, RunStatus, StepState

__all__ = [
    "end_of",
    "is_clear",
    "is_done_in_part",
    "is_late_in_part",
    "is_told_to_stop",
    "needs_undo",
    "stops_others",
    "turn_of",
    "undone_in_bulk",
]


def needs_undo(definition: StepDefinition, step: StepState) -> bool:
    """Whether the step's effect is, or may be, live, and something is there to undo it (rule S3)."""
    if not definition.is_undoable or step.outcome is None:
        return False
    # A step that failed before anybody was asked to do it had no effect, whatever is declared.
    return step.outcome != "failed" or (definition.compensate_on_failure and step.do.attempt > 0)


def is_clear(definition: StepDefinition, step: StepState) -> bool:
    """Whether nothing (more) is to be done about this step's effect; a parked undo is left to a person (rule S17)."""
    if not needs_undo(definition, step):
        return True
    settled = step.undo.status in (ActivityStatus.SUCCEEDED, ActivityStatus.SKIPPED) and not step.undo_again
    return settled or step.undo.is_over


def is_done_in_part(definition: Definition, state: RunState, name: str) -> bool:
    """Whether some items of a map are to be undone that is undone in one go (rule S8), and this is not on record."""
    if definition.steps[name].compensation is None or state.step(name).do.status is not ActivityStatus.IDLE:
        return False
    items = (state.step(item_name(name, index)) for index in range(definition.sizes[name]))
    return any(item.outcome in ("succeeded", "unknown") for item in items)


def is_late_in_part(definition: Definition, state: RunState, name: str) -> bool:
    """Whether an item succeeded late of a map that is undone in one go (rules S5, S8)."""
    step = state.step(name)
    again = step.undo_again and not is_clear(definition.steps[name], step)
    return again or is_done_in_part(definition, state, name)


def undone_in_bulk(definition: Definition, state: RunState, item: str) -> RunState:
    """What undoes the items of a map in one go does so again for one that succeeded late (rules S5, S8)."""
    whole = map_of(item)
    if whole is None or whole not in definition.steps or definition.steps[whole].compensation is None:
        return state
    step = state.step(whole)
    if step.undo.status is ActivityStatus.IDLE:
        return state
    return state.with_step(whole, step._replace(undo_again=True))


def is_told_to_stop(definition: Definition, state: RunState, name: str) -> bool:
    """Rule S7: a failed step stops the other branches of its block where that is declared; a cancel stops them all."""
    if state.back_to and name not in definition.behind(state.back_to):
        return False
    if state.cause is not Cause.FAILURE:
        return True
    return any(
        step.do.is_over
        and failed not in definition.superseded
        and definition.steps[failed].cancel_siblings
        and definition.steps[failed].block == definition.steps[name].block
        for failed, step in state.steps.items()
    )


def stops_others(definition: Definition, before: RunState, after: RunState) -> bool:
    """Whether steps in flight are to be told that the run is to stop: on a cancel, or as a failed step's block says."""
    if after.status is RunStatus.TERMINATED or (after.cancel_requested and not before.cancel_requested):
        return True
    if before.status is RunStatus.COMPENSATING or after.status is not RunStatus.COMPENSATING or after.back_to:
        return False
    if after.cause is not Cause.FAILURE:
        return True
    return any(
        definition.steps[name].cancel_siblings
        for name, step in after.steps.items()
        if step.do.is_over and name not in definition.superseded
    )


def turn_of(definition: Definition, state: RunState) -> list[str]:
    """The steps that are to be undone and whose turn has come: all that depends on them is clear (rule S6)."""
    for name in definition.compensate_in or ():
        if due := _next_of(definition, state, name):
            return due
    turn = []
    unwound: dict[str, bool] = {}
    for name in reversed(definition.order):
        free = all(map(unwound.__getitem__, definition.successors[name]))
        if definition.calls:
            due = _next_of(definition, state, name)
        else:
            clear = name not in state.steps or is_clear(definition.steps[name], state.steps[name])
            due = [] if clear else [name]
        unwound[name] = free and not due
        if free:
            turn += due
    return turn


def _next_of(definition: Definition, state: RunState, name: str) -> list[str]:
    """What is to be undone next of a step and of the calls that it has made: the calls newest first, then the step.

    A map that is undone in one go has made those of its items.
    """
    due = []
    for maker in _makers(definition, name):
        calls = reversed(definition.calls.get(maker, ()))
        newest = next((call for call in calls if not is_clear(definition.steps[call], state.step(call))), None)
        if newest is not None:
            due.append(newest)
    return due or ([] if is_clear(definition.steps[name], state.step(name)) else [name])


def _makers(definition: Definition, name: str) -> list[str]:
    if definition.steps[name].compensation is None or name not in definition.sizes:
        return [name]
    return [item_name(name, index) for index in range(definition.sizes[name])]


def end_of(state: RunState) -> RunStatus:
    """Which end state a run that went back has reached (rule S18)."""
    undos = [step.undo for step in state.steps.values()]
    if any(undo.is_over for undo in undos):
        return RunStatus.COMPENSATION_FAILED
    if any(undo.status is ActivityStatus.SKIPPED for undo in undos):
        return RunStatus.COMPENSATED_PARTIALLY
    if state.cause is Cause.CANCEL:
        return RunStatus.CANCELLED
    if state.cause is Cause.DEADLINE:
        return RunStatus.TIMED_OUT
    undone = any(undo.status is ActivityStatus.SUCCEEDED for undo in undos) or state.cause is Cause.REQUEST
    return RunStatus.COMPENSATED if undone else RunStatus.FAILED
