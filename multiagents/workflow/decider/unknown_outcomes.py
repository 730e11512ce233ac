"""Outcomes that nobody knows, and failures behind a pivot: who finds out, and what only a person settles.

The rules:

1. A step with ``on_unknown="resolve"`` whose outcome is unknown for good is asked about at once by its *probe*,
   whichever way the run goes. What a person has decided is not asked about; nor, in a run that compensates, what a late
   success has told.
2. Asking is one more attempt to do the step, which its probe runs in the place of its worker: with the retry policy and
   the limits of the probe. It is never revoked, as compensating has to know.
3. A pivot of unknown outcome waits for a person, and so does a step with ``on_unknown="park"`` (rules S3, S13). One
   with a probe waits only if the probe cannot tell.
4. A definite failure waits for a person where its step says so (``on_failure="park"``) or its worker did, as long as
   the run goes forward. Nothing is in doubt then, so a cancel and the deadline turn it back.
5. Once a pivot has succeeded nothing is undone any more (rule S12): whatever fails then waits for a person, who has it
   tried again, skips it or supplies its result. Neither a cancel nor the deadline turns the run back.
"""

from __future__ import annotations

from multiagents.workflow.definition import Definition, StepDefinition
from multiagents.workflow.state import ActivityStatus, RunState, StepState

__all__ = ["asks_probe", "is_parked", "needs_attention", "needs_probe", "past_pivot"]


def needs_probe(own: StepDefinition, step: StepState, *, forward: bool) -> bool:
    """Whether a step's probe has to be asked, and has not been yet.

    Args:
        own: the step's definition.
        step: its state.
        forward: the run goes forward. A late success then settles nothing, as it is no progress.
    """
    return own.resolve_with is not None and not step.do.probing and step.is_unsettled(forward=forward)


def asks_probe(own: StepDefinition, step: StepState, *, forward: bool) -> bool:
    """Whether the next attempt to do a step is its probe's: the first one, or one more after it failed or was lost."""
    return (step.do.probing and step.do.will_retry) or needs_probe(own, step, forward=forward)


def past_pivot(definition: Definition, state: RunState) -> bool:
    """Whether there is no way back any more."""
    return bool(definition.pivots) and any(
        state.step(name).do.status is ActivityStatus.SUCCEEDED for name in definition.pivots
    )


def is_parked(definition: Definition, state: RunState, name: str) -> bool:
    """Whether a person has to say what is to become of a step."""
    if name in definition.superseded:
        return False  # It is undone, and another pass has taken its place.
    step, own = state.step(name), definition.steps[name]
    if not step.do.is_over or step.called is not None:
        return False
    forward = state.cause is None
    if needs_probe(own, step, forward=forward):
        return False
    parks = own.pivot or own.on_unknown != "compensate"
    if (parks and step.is_unsettled(forward=forward)) or past_pivot(definition, state):
        return True
    return forward and not state.cancel_requested and needs_attention(own, step)


def needs_attention(own: StepDefinition, step: StepState) -> bool:
    """Whether a step has failed for certain, and it, or its worker, asks for a person before anything follows."""
    asked = own.on_failure == "park" or (step.do.error is not None and step.do.error.attention)
    return asked and step.do.status is ActivityStatus.FAILED
