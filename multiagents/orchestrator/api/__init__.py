"""What people call, and what they hold: start, look, steer. Begin with `orchestrator.Orchestrator`, then `run.Run`.

Nothing is decided here; each verb loads, asks the engine, and says in words what came of it.
"""

from __future__ import annotations

from multiagents.orchestrator.api.bulk import BulkResult
from multiagents.orchestrator.api.dead_letters import DeadLetter
from multiagents.orchestrator.api.delete import Tombstone
from multiagents.orchestrator.api.following import Following
from multiagents.orchestrator.api.orchestrator import Orchestrator, RunPage
from multiagents.orchestrator.api.run import Run
from multiagents.orchestrator.api.schedule import Schedule
from multiagents.orchestrator.api.views import AttemptView, StepView, WorkflowState
from multiagents.state_store.records import StreamEntry

__all__ = [
    "AttemptView",
    "BulkResult",
    "DeadLetter",
    "Following",
    "Orchestrator",
    "Run",
    "RunPage",
    "Schedule",
    "StepView",
    "StreamEntry",
    "Tombstone",
    "WorkflowState",
]
