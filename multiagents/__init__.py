"""Durable saga workflows and LLM agents on the Celery that teams already run.

Everything a user needs is here; it is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Where the public names are at home.
_HOMES = {
    "agents": ("Budget", "current_tool", "dspy_worker", "mcp_tools", "optimize", "tool"),
    "bootstrap": ("Orchestrator", "init_app"),
    "event_bus": ("RedisEventBus",),
    "events": ("CommandEvent", "CompensationEvent", "ErrorEvent", "ErrorInfo", "ResultEvent", "StatusEvent"),
    "exceptions": (
        "MultiAgentsError",
        "OutcomeUnknownError",
        "NeedsAttentionError",
        "TerminalError",
        "WorkflowAlreadyExistsError",
        "WorkflowFailedError",
        "WorkflowNotEndedError",
        "WorkflowNotFoundError",
    ),
    "orchestrator.api": ("BulkResult", "DeadLetter", "Run", "Schedule", "StreamEntry", "WorkflowState"),
    "orchestrator.engine": ("OnConflict", "SignalOutcome"),
    "retry": ("RetryPolicy",),
    "settings": ("Settings",),
    "worker_sdk": ("WorkerManager", "celery_task", "current_step"),
    "worker_sdk.worker": ("worker",),
    "workflow.builder": (
        "Approval",
        "Child",
        "Choice",
        "Lock",
        "Loop",
        "Map",
        "Parallel",
        "Savepoint",
        "Sleep",
        "Step",
        "Wait",
        "WorkflowBuilder",
    ),
    "workflow.decider": ("Resolution",),
    "workflow.definition": ("Definition", "Limit"),
    "workflow.state": ("RunStatus", "StepStatus"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

# The same for type checkers, which cannot read a table; a test compares the two.
if TYPE_CHECKING:
    from multiagents.agents import Budget as Budget
    from multiagents.agents import current_tool as current_tool
    from multiagents.agents import dspy_worker as dspy_worker
    from multiagents.agents import mcp_tools as mcp_tools
    from multiagents.agents import optimize as optimize
    from multiagents.agents import tool as tool
    from multiagents.bootstrap import Orchestrator as Orchestrator
    from multiagents.bootstrap import init_app as init_app
    from multiagents.event_bus import RedisEventBus as RedisEventBus
    from multiagents.events import CommandEvent as CommandEvent
    from multiagents.events import CompensationEvent as CompensationEvent
    from multiagents.events import ErrorEvent as ErrorEvent
    from multiagents.events import ErrorInfo as ErrorInfo
    from multiagents.events import ResultEvent as ResultEvent
    from multiagents.events import StatusEvent as StatusEvent
    from multiagents.exceptions import MultiAgentsError as MultiAgentsError
    from multiagents.exceptions import NeedsAttentionError as NeedsAttentionError
    from multiagents.exceptions import OutcomeUnknownError as OutcomeUnknownError
    from multiagents.exceptions import TerminalError as TerminalError
    from multiagents.exceptions import WorkflowAlreadyExistsError as WorkflowAlreadyExistsError
    from multiagents.exceptions import WorkflowFailedError as WorkflowFailedError
    from multiagents.exceptions import WorkflowNotEndedError as WorkflowNotEndedError
    from multiagents.exceptions import WorkflowNotFoundError as WorkflowNotFoundError
    from multiagents.orchestrator.api import BulkResult as BulkResult
    from multiagents.orchestrator.api import DeadLetter as DeadLetter
    from multiagents.orchestrator.api import Run as Run
    from multiagents.orchestrator.api import Schedule as Schedule
    from multiagents.orchestrator.api import StreamEntry as StreamEntry
    from multiagents.orchestrator.api import WorkflowState as WorkflowState
    from multiagents.orchestrator.engine import OnConflict as OnConflict
    from multiagents.orchestrator.engine import SignalOutcome as SignalOutcome
    from multiagents.retry import RetryPolicy as RetryPolicy
    from multiagents.settings import Settings as Settings
    from multiagents.worker_sdk import WorkerManager as WorkerManager
    from multiagents.worker_sdk import celery_task as celery_task
    from multiagents.worker_sdk import current_step as current_step
    from multiagents.worker_sdk.worker import worker as worker
    from multiagents.workflow.builder import Approval as Approval
    from multiagents.workflow.builder import Child as Child
    from multiagents.workflow.builder import Choice as Choice
    from multiagents.workflow.builder import Lock as Lock
    from multiagents.workflow.builder import Loop as Loop
    from multiagents.workflow.builder import Map as Map
    from multiagents.workflow.builder import Parallel as Parallel
    from multiagents.workflow.builder import Savepoint as Savepoint
    from multiagents.workflow.builder import Sleep as Sleep
    from multiagents.workflow.builder import Step as Step
    from multiagents.workflow.builder import Wait as Wait
    from multiagents.workflow.builder import WorkflowBuilder as WorkflowBuilder
    from multiagents.workflow.decider import Resolution as Resolution
    from multiagents.workflow.definition import Definition as Definition
    from multiagents.workflow.definition import Limit as Limit
    from multiagents.workflow.state import RunStatus as RunStatus
    from multiagents.workflow.state import StepStatus as StepStatus

__all__ = sorted(_HOME)  # noqa: PLE0605 - made of the table, too


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
