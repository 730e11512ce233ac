"""The one agent of this example. The other two steps are plain workers, in the project's ``workers/``."""

from __future__ import annotations

from typing import Any

from multiagents import dspy_worker


@dspy_worker(
    "compose_message",
    signature="greeting, sum -> message",
    instructions="Write one friendly sentence that has both the greeting and the sum in it.",
)
async def compose_message(context: dict[str, Any]) -> dict[str, Any]:
    """Count the words: what the model has answered is in the context by now."""
    return {"words": len(context["message"].split())}
