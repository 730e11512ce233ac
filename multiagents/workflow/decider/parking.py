"""What only a person can settle: outcomes that nobody knows, and failures behind the point of no return.

The rules:

1. Once a pivot has succeeded nothing is undone any more (rule S12): whatever fails then waits for a person, who has it
   tried again, skips it or supplies its result. Neither a cancel nor the deadline turns the run back.
2. A pivot of unknown outcome waits for a person, too, and so does a step with ``on_unknown="park"`` (rules S3, S13).
   One with a probe is asked about first, and waits only if the probe cannot tell
   (`multiagents.workflow.decider.probes`).
"""

from __future__ import annotations

from multiagents.workflow.decider.probes import needs_probe
from multiagents.workflow.definition import Definition
from multiagents.workflow.state.run_state import ActivityStatus, RunState

__all__ = ["is_parked", "past_pivot"]


def past_pivot(definition: Definition, state: RunState) -> bool:
    """Whether there is no way back any more."""
    return any(state.step(name).do.status is ActivityStatus.SUCCEEDED for name in definition.pivots)


def is_parked(definition: Definition, state: RunState, name: str) -> bool:
    """Whether a person has to say what is to become of a step."""
    if name in definition.superseded:
        return False  # It is undone, and another pass has taken its place.
    step, own = state.step(name), definition.steps[name]
    if needs_probe(own, step, forward=state.cause is None):
        return False
    policy = "compensate" if own.on_unknown == "compensate" and not own.pivot else "park"
    if step.is_parked(policy, forward=state.cause is None):
        return True
    return step.do.is_over and past_pivot(definition, state)
