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
    from multiagents.orchestrator.bulk import BulkResult
    from multiagents.orchestrator.conflicts import OnConflict
    from multiagents.orchestrator.letters import DeadLetter
    from multiagents.orchestrator.orchestrator import Orchestrator
    from multiagents.orchestrator.run import Run, WorkflowState
    from multiagents.orchestrator.scheduling import Schedule
    from multiagents.orchestrator.signals import SignalOutcome
    from multiagents.retry import RetryPolicy
    from multiagents.settings import Settings
    from multiagents.worker_sdk.manager import WorkerManager
    from multiagents.worker_sdk.step_context import current_step
    from multiagents.worker_sdk.tasks import celery_task
    from multiagents.worker_sdk.worker import worker
    from multiagents.workflow.builder import WorkflowBuilder
    from multiagents.workflow.definition import Definition
    from multiagents.workflow.elements import (
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
    from multiagents.workflow.limit import Limit
    from multiagents.workflow.probing import Resolution
    from multiagents.workflow.state import RunStatus, StepStatus

__version__ = "0.1.0"

_HOME = {
    "Approval": "workflow.elements",
    "BulkResult": "orchestrator.bulk",
    "Child": "workflow.elements",
    "Choice": "workflow.elements",
    "CommandEvent": "events",
    "CompensationEvent": "events",
    "DeadLetter": "orchestrator.letters",
    "Definition": "workflow.definition",
    "ErrorEvent": "events",
    "ErrorInfo": "events",
    "Limit": "workflow.limit",
    "Lock": "workflow.elements",
    "Loop": "workflow.elements",
    "Map": "workflow.elements",
    "MultiAgentsError": "exceptions",
    "OnConflict": "orchestrator.conflicts",
    "Orchestrator": "bootstrap",
    "OutcomeUnknownError": "exceptions",
    "Parallel": "workflow.elements",
    "RedisEventBus": "event_bus",
    "Resolution": "workflow.probing",
    "ResultEvent": "events",
    "RetryPolicy": "retry",
    "Run": "orchestrator.run",
    "RunStatus": "workflow.state",
    "Savepoint": "workflow.elements",
    "Schedule": "orchestrator.scheduling",
    "Settings": "settings",
    "SignalOutcome": "orchestrator.signals",
    "Sleep": "workflow.elements",
    "StatusEvent": "events",
    "Step": "workflow.elements",
    "StepStatus": "workflow.state",
    "TerminalError": "exceptions",
    "Wait": "workflow.elements",
    "WorkerManager": "worker_sdk.manager",
    "WorkflowAlreadyExistsError": "exceptions",
    "WorkflowBuilder": "workflow.builder",
    "WorkflowFailedError": "exceptions",
    "WorkflowNotEndedError": "exceptions",
    "WorkflowNotFoundError": "exceptions",
    "WorkflowState": "orchestrator.run",
    "celery_task": "worker_sdk.tasks",
    "current_step": "worker_sdk.step_context",
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
