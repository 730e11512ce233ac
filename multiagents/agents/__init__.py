"""Agents: workers that ask a language model, and the tools they call. Begin with `worker.dspy_worker`.

Every call of a model and of a tool is written into the run's journal before it is made and when it is answered, so an
agent whose worker is killed in its seventh call goes on at its seventh call (rule S35). What needs DSPy is in `dspy`,
which the first step of an agent loads.
"""

from __future__ import annotations

from multiagents.agents.agent_task import AgentTask
from multiagents.agents.budget import Budget
from multiagents.agents.optimizing import optimize
from multiagents.agents.servers import mcp_tools
from multiagents.agents.tools import current_tool, tool
from multiagents.agents.worker import dspy_worker

__all__ = ["AgentTask", "Budget", "current_tool", "dspy_worker", "mcp_tools", "optimize", "tool"]
