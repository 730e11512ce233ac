"""What a run is at a moment, as frozen values and two tables of transitions. Begin with `run_state.RunState`.

`run_state` has the run as a whole, `activity` one step in one direction (its work or its undo). Both tables are drawn
in docs/states.md. Only `multiagents.workflow.decider` makes new states.
"""

from __future__ import annotations

from multiagents.workflow.state.activity import (
    ACTIVITY,
    Activity,
    ActivityStatus,
    CalledTool,
    StepState,
    StepStatus,
    Trigger,
)
from multiagents.workflow.state.run_state import (
    RUN,
    Cause,
    Parent,
    RunState,
    RunStatus,
    Signal,
    called_of,
    parent_of,
    rollbacks_of,
    sizes_of,
)

__all__ = [
    "ACTIVITY",
    "RUN",
    "Activity",
    "ActivityStatus",
    "CalledTool",
    "Cause",
    "Parent",
    "RunState",
    "RunStatus",
    "Signal",
    "StepState",
    "StepStatus",
    "Trigger",
    "called_of",
    "parent_of",
    "rollbacks_of",
    "sizes_of",
]
