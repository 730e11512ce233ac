"""The chatbot, which is one agent; and the two workers beside it where it is a step of another workflow."""

from __future__ import annotations

from typing import Any

from examples._support.world import Service
from multiagents import current_step, dspy_worker, worker

#: It stands for the client of a help desk.
desk = Service("ticket")


@dspy_worker(
    "chat",
    # What was said before is one field: DSPy writes a `History` as messages, as the model knows them.
    signature="personality, conversation: dspy.History, message -> reply",
    instructions="Be who the personality says that you are, and reply to the message.",
    temperature=0.8,
)
async def chat(context: dict[str, Any]) -> None:
    """Answer one message."""


@worker("open_ticket")
def open_ticket(context: dict[str, Any]) -> dict[str, Any]:
    """Note what a customer has written."""
    return {"ticket": desk.do(current_step().idempotency_key, context["id"])}


@worker("drop_ticket")
def drop_ticket(context: dict[str, Any]) -> dict[str, Any]:
    """Take it back."""
    return {"dropped": desk.undo(current_step().idempotency_key, context["id"])}


@worker("send_reply")
def send_reply(context: dict[str, Any]) -> dict[str, Any]:
    """Lay out what the customer gets."""
    return {"sent": f"[{context['ticket']}] {context['reply']}"}
