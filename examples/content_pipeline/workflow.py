"""An article: research and write, review and rewrite until it is approved, three reviews at most, publish."""

from __future__ import annotations

from typing import Any

from examples.content_pipeline.workers import (
    publish_article,
    research_topic,
    review_article,
    rewrite_article,
    write_article,
)
from multiagents import Step, WorkflowBuilder

#: How often an article is reviewed, at most.
REVIEWS = 3
#: What a rewrite is made of, and where that lies in the context.
WITH_IMPROVEMENTS = {"draft": "article", "key_facts": "key_facts", "improvements": "improvements"}


def is_approved(context: dict[str, Any]) -> bool:
    """Whether the reviewer is content."""
    return bool(context["approved"])


def is_not_approved(context: dict[str, Any]) -> bool:
    """Whether somebody has to decide what becomes of it."""
    return not context["approved"]


def has_improvements(context: dict[str, Any]) -> bool:
    """Whether a reviewer has asked for something."""
    return bool(context.get("improvements"))


content_pipeline = (
    WorkflowBuilder("content_pipeline", version="1")
    .add_step("research", research_topic)
    .add_step("write", write_article)
    .add_loop(
        "editing",
        [
            # Not in the first round: so what is published, or put to the editor, has always been reviewed.
            Step("rewrite", rewrite_article, inputs=WITH_IMPROVEMENTS, when=has_improvements),
            Step("review", review_article),
        ],
        until=is_approved,
        max_iterations=REVIEWS,
    )
    # What the reviewer never approved of is an editor's decision: a no, or a week without one, ends the run.
    .add_approval("editor", timeout=7 * 86_400, when=is_not_approved)
    .add_step("publish", publish_article)
    .build()
)
