"""`mcp_tools`, and the agents that are given them: what they take, and what they make."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

from multiagents import RetryPolicy, dspy_worker, mcp_tools
from multiagents.agents.agent_task import AgentTask
from multiagents.agents.servers import MCPTools


async def search_web(query: str) -> list[str]:
    return [query]


@dspy_worker(
    "researcher",
    signature="question -> answer: str, sources: list[str]",
    tools=[
        search_web,
        mcp_tools(command=["shop", "--quiet"], env={"KEY": "x"}, only=["price"], prefix="shop_", timeout=5),
        mcp_tools(url="https://shop.example/mcp", headers={"Authorization": "x"}, approval=lambda arguments: True),
    ],
    reasoning="react",
    model=["gemini/gemini-3.8-flash", {"model": "openai/gpt-5"}],
    lm_retry=RetryPolicy(max_attempts=3),
    timeout=timedelta(minutes=5),
)
async def researcher(context: dict[str, Any]) -> dict[str, Any]:
    return context


assert_type(researcher, AgentTask)
assert_type(mcp_tools(url="https://shop.example/mcp"), MCPTools)


def what_is_refused() -> None:
    mcp_tools("shop")  # type: ignore[call-arg]
    mcp_tools(command=["shop"], env={"KEY": 1})  # type: ignore[dict-item]
    mcp_tools(command=["shop"], limit=3)  # type: ignore[call-arg]
