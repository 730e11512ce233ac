"""A turn of a conversation is a run of one step; and the same agent is a step of what a help desk does."""

from __future__ import annotations

from typing import Any

from examples.chatbot.conversation import Conversation
from examples.chatbot.workers import chat, drop_ticket, open_ticket, send_reply
from multiagents import WorkflowBuilder

chat_turn = WorkflowBuilder("chat_turn", version="1").add_step("chat", chat).build()


def first_reply(context: dict[str, Any]) -> dict[str, Any]:
    """What the chatbot is asked about a ticket: nobody has talked with it before."""
    return Conversation(personality="librarian").asked(f"A customer writes: {context['complaint']}")


help_desk = (
    WorkflowBuilder("help_desk", version="1")
    .add_step("open", open_ticket, compensation=drop_ticket)
    .add_step("chat", chat, inputs=first_reply, no_compensation="a text that nobody has seen")
    .add_step("send", send_reply, no_compensation="nothing can fail behind it")
    .build()
)
