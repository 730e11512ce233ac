"""The orchestrator, and the builder of what it runs.

`api` is what people call, over `runtime`: what all the runs of an app have in common. Beneath it `schedules` says when
runs start by the clock, `recovery` finds what has no owner, `engine` advances runs and `dispatch` gets attempts to
their workers. `tasks` are the Celery tasks.
"""

from __future__ import annotations

from multiagents.orchestrator.api import AttemptView, Orchestrator, Run, RunPage, StepView, WorkflowState
from multiagents.workflow.builder import Step, WorkflowBuilder

__all__ = ["AttemptView", "Orchestrator", "Run", "RunPage", "Step", "StepView", "WorkflowBuilder", "WorkflowState"]
