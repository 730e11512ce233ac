"""The agents of a small editorial office, and the worker that publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from examples._support.world import RefusedError, Service
from multiagents import RetryPolicy, TerminalError, current_step, dspy_worker, tool, worker

NOTES = Path(__file__).with_name("notes")
#: It stands for the client of a content management system.
site = Service("article")


class NothingKnownError(TerminalError):
    """There are no notes about the topic, and nothing is to be made up."""


@tool("read_notes", idempotent=True)
def read_notes(topic: str) -> str:
    """Read the office's notes about a topic: one word, in the plural where there is one."""
    path = NOTES / f"{topic.lower()}.md"
    if path.parent != NOTES or not path.exists():
        raise LookupError(
            f"no notes about {topic!r}; there are notes about: {', '.join(p.stem for p in NOTES.glob('*'))}"
        )
    return path.read_text(encoding="utf-8")


@dspy_worker(
    "research_topic",
    signature="topic -> key_facts: list[str]",
    instructions="Collect facts about the topic from the notes, as they stand there. Without notes there are no facts.",
    tools=[read_notes],
    reasoning="react",
    max_iters=4,
)
async def research_topic(context: dict[str, Any]) -> None:
    """Refuse a topic about which nothing is known: that fails the step, as it fails the article.

    Raises:
        NothingKnownError: when there are no facts.
    """
    if not context["key_facts"]:
        raise NothingKnownError(f"there are no notes about {context['topic']!r}")


@dspy_worker(
    "write_article",
    signature="topic, audience, key_facts: list[str] -> title, article",
    instructions="Write a short article for the audience, with the key facts and no other ones.",
    temperature=0.7,
)
async def write_article(context: dict[str, Any]) -> None:
    """Write the first version."""


@dspy_worker(
    "review_article",
    signature="topic, audience, key_facts: list[str], article -> approved: bool, improvements: list[str]",
    instructions=(
        "Approve of an article that has every key fact and no other ones, and suits its audience. Otherwise say what "
        "is to be improved, one thing a line."
    ),
    reasoning="chain_of_thought",
    temperature=0.0,
)
async def review_article(context: dict[str, Any]) -> dict[str, Any]:
    """An approval with improvements is none."""
    return {"approved": context["approved"] and not context["improvements"]}


@dspy_worker(
    "rewrite_article",
    signature="draft, key_facts: list[str], improvements: list[str] -> article",
    instructions="Rewrite the draft with all of the improvements, and leave what is good as it is.",
)
async def rewrite_article(context: dict[str, Any]) -> None:
    """Write another version, which takes the place of the one before."""


@worker("publish_article", retry=RetryPolicy(max_attempts=3, initial_interval=0.2, non_retryable=(RefusedError,)))
def publish_article(context: dict[str, Any]) -> dict[str, Any]:
    """Publish it."""
    return {"published": site.do(current_step().idempotency_key, context["id"], len(context["article"]))}
