"""A question on its way: answered at once; or clarified by a person, researched, computed and answered."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from examples.research_assistant.workers import (
    analyse,
    chat_at_once,
    coordinate_research,
    format_answer,
    research,
    synthesize,
)
from multiagents import Step, Wait, WorkflowBuilder


class Clarification(BaseModel):
    """What the person who has asked says to a question of ours; anything else is refused, and the run waits on."""

    meant: str


def branch(context: dict[str, Any]) -> str:
    """Which of the two ways is gone."""
    return "chat" if context["routing_decision"] == "chat" else "research"


def is_unclear(context: dict[str, Any]) -> bool:
    """Whether a person has to say what is meant."""
    return bool(context["requires_clarification"])


def has_figures(context: dict[str, Any]) -> bool:
    """Whether something is to be computed."""
    return bool(context["routing_decision"] == "research_and_analysis")


research_assistant = (
    WorkflowBuilder("research_assistant", version="1")
    .add_step("coordinate", coordinate_research)
    .add_choice(
        "route",
        branch,
        {
            "chat": Step("chat", chat_at_once),
            "research": [
                # No process waits meanwhile, and it goes on through any restart. Who says nothing for three days gets
                # an answer that says what is missing.
                Wait(
                    "clarification",
                    schema=Clarification,
                    timeout=timedelta(days=3),
                    on_timeout="continue",
                    when=is_unclear,
                ),
                Step("research", research),
                Step("analyse", analyse, when=has_figures),
                Step("synthesize", synthesize),
                Step("format", format_answer),
            ],
        },
    )
    .build()
)
