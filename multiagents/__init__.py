"""Durable saga workflows and LLM agents on the Celery that teams already run.

Everything a user needs is here; it is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiagents.bootstrap import init_app
    from multiagents.event_bus import RedisEventBus
    from multiagents.events import CommandEvent, CompensationEvent, ErrorEvent, ErrorInfo, ResultEvent, StatusEvent
    from multiagents.exceptions import (
        MultiAgentsError,
        OutcomeUnknownError,
        TerminalError,
        WorkflowAlreadyExistsError,
        WorkflowFailedError,
        WorkflowNotEndedError,
        WorkflowNotFoundError,
    )
    from multiagents.orchestrator.api import BulkResult, DeadLetter, Orchestrator, Run, Schedule, WorkflowState
    from multiagents.orchestrator.engine.conflict_policy import OnConflict
    from multiagents.orchestrator.engine.signals import SignalOutcome
    from multiagents.retry import RetryPolicy
    from multiagents.settings import Settings
    from multiagents.worker_sdk.attempt.step_context import current_step
    from multiagents.worker_sdk.manager import WorkerManager
    from multiagents.worker_sdk.worker import celery_task, worker
    from multiagents.workflow.builder.builder import WorkflowBuilder
    from multiagents.workflow.builder.elements import (
        Approval,
        Child,
        Choice,
        Lock,
        Loop,
        Map,
        Parallel,
        Savepoint,
        Sleep,
        Step,
        Wait,
    )
    from multiagents.workflow.decider.probes import Resolution
    from multiagents.workflow.definition.definition import Definition
    from multiagents.workflow.definition.rate_limit import Limit
    from multiagents.workflow.state.run_state import RunStatus, StepStatus

__version__ = "0.1.0"

_HOME = {
    "Approval": "workflow.builder.elements",
    "BulkResult": "orchestrator.api",
    "Child": "workflow.builder.elements",
    "Choice": "workflow.builder.elements",
    "CommandEvent": "events",
    "CompensationEvent": "events",
    "DeadLetter": "orchestrator.api",
    "Definition": "workflow.definition.definition",
    "ErrorEvent": "events",
    "ErrorInfo": "events",
    "Limit": "workflow.definition.rate_limit",
    "Lock": "workflow.builder.elements",
    "Loop": "workflow.builder.elements",
    "Map": "workflow.builder.elements",
    "MultiAgentsError": "exceptions",
    "OnConflict": "orchestrator.engine.conflict_policy",
    "Orchestrator": "bootstrap",
    "OutcomeUnknownError": "exceptions",
    "Parallel": "workflow.builder.elements",
    "RedisEventBus": "event_bus",
    "Resolution": "workflow.decider.probes",
    "ResultEvent": "events",
    "RetryPolicy": "retry",
    "Run": "orchestrator.api",
    "RunStatus": "workflow.state.run_state",
    "Savepoint": "workflow.builder.elements",
    "Schedule": "orchestrator.api",
    "Settings": "settings",
    "SignalOutcome": "orchestrator.engine.signals",
    "Sleep": "workflow.builder.elements",
    "StatusEvent": "events",
    "Step": "workflow.builder.elements",
    "StepStatus": "workflow.state.run_state",
    "TerminalError": "exceptions",
    "Wait": "workflow.builder.elements",
    "WorkerManager": "worker_sdk.manager",
    "WorkflowAlreadyExistsError": "exceptions",
    "WorkflowBuilder": "workflow.builder.builder",
    "WorkflowFailedError": "exceptions",
    "WorkflowNotEndedError": "exceptions",
    "WorkflowNotFoundError": "exceptions",
    "WorkflowState": "orchestrator.api",
    "celery_task": "worker_sdk.worker",
    "current_step": "worker_sdk.attempt.step_context",
    "init_app": "bootstrap",
    "worker": "worker_sdk.worker",
}

__all__ = [
    "Approval",
    "BulkResult",
    "Child",
    "Choice",
    "CommandEvent",
    "CompensationEvent",
    "DeadLetter",
    "Definition",
    "ErrorEvent",
    "ErrorInfo",
    "Limit",
    "Lock",
    "Loop",
    "Map",
    "MultiAgentsError",
    "OnConflict",
    "Orchestrator",
    "OutcomeUnknownError",
    "Parallel",
    "RedisEventBus",
    "Resolution",
    "ResultEvent",
    "RetryPolicy",
    "Run",
    "RunStatus",
    "Savepoint",
    "Schedule",
    "Settings",
    "SignalOutcome",
    "Sleep",
    "StatusEvent",
    "Step",
    "StepStatus",
    "TerminalError",
    "Wait",
    "WorkerManager",
    "WorkflowAlreadyExistsError",
    "WorkflowBuilder",
    "WorkflowFailedError",
    "WorkflowNotEndedError",
    "WorkflowNotFoundError",
    "WorkflowState",
    "celery_task",
    "current_step",
    "init_app",
    "worker",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
