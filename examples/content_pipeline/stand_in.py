"""What the stand-in says in this example, where there is no key for a real model.

It forgets facts when it writes, and the reviewer asks for one of them at a time: so an article of three facts is
rewritten twice. What is written about kettles is never good enough.
"""

from __future__ import annotations

from typing import Any

from examples._support.stand_in import Asked, calls_for, says


@calls_for("key_facts")
def look_up(asked: Asked) -> tuple[str, dict[str, Any]] | None:
    """Read the notes, once."""
    return None if asked.calls else ("read_notes", {"topic": asked["topic"]})


@says("key_facts")
def key_facts(asked: Asked) -> dict[str, Any]:
    """The lines of the notes."""
    (_, _, notes), *_ = asked.calls
    return {"key_facts": [line.removeprefix("- ") for line in notes.splitlines() if line.startswith("- ")]}


@says("title", "article")
def write(asked: Asked) -> dict[str, Any]:
    """The first fact, for beginners; for experts all of them."""
    facts = asked.list("key_facts")
    return {
        "title": asked["topic"].title(),
        "article": " ".join(facts if asked["audience"] == "experts" else facts[:1]),
    }


@says("approved", "improvements")
def review(asked: Asked) -> dict[str, Any]:
    """Ask for the first fact that is missing."""
    missing = [fact for fact in asked.list("key_facts") if fact not in asked["article"]]
    improvements = [f"say this: {fact}" for fact in missing[:1]]
    if asked["topic"] == "kettles":
        improvements.append("make it exciting")
    return {"approved": not improvements, "improvements": improvements}


@says("article")
def rewrite(asked: Asked) -> dict[str, Any]:
    """Add what is asked for."""
    added = [line.removeprefix("say this: ") for line in asked.list("improvements") if line.startswith("say this: ")]
    return {"article": " ".join([asked["draft"], *added])}
