"""The orchestrator, and the builder of what it runs."""

from __future__ import annotations

from multiagents.orchestrator.api.orchestrator import Orchestrator, RunPage
from multiagents.orchestrator.api.run import Run
from multiagents.orchestrator.api.views import AttemptView, StepView, WorkflowState
from multiagents.workflow.builder.builder import WorkflowBuilder
from multiagents.workflow.builder.elements import Step

__all__ = ["AttemptView", "Orchestrator", "Run", "RunPage", "Step", "StepView", "WorkflowBuilder", "WorkflowState"]
