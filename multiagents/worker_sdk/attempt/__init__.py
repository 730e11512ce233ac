"""One attempt of a step, from its claim to its report. Begin with `invocation.Invocation`.

What a process runs attempts with is its `runtime`. Beside the call: the lease that is renewed meanwhile, the slots that
limits grant, what the user's function can ask (`step_context`), and what becomes of what it raises (`failure`).
"""

from __future__ import annotations

from multiagents.worker_sdk.attempt.asked import TaskFailed
from multiagents.worker_sdk.attempt.in_hand import broken_off, in_hand
from multiagents.worker_sdk.attempt.invocation import MESSAGE_KEYS, Invocation, call_outside_run
from multiagents.worker_sdk.attempt.runtime import Settle, WorkerRuntime
from multiagents.worker_sdk.attempt.step_context import StepContext, current_step, running

__all__ = [
    "MESSAGE_KEYS",
    "Invocation",
    "Settle",
    "StepContext",
    "TaskFailed",
    "WorkerRuntime",
    "broken_off",
    "call_outside_run",
    "current_step",
    "in_hand",
    "running",
]
