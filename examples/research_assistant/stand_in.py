"""What the stand-in says in this example, where there is no key for a real model.

It knows the words of this example's questions, and nothing else; look at `workers.py` for what a model is asked.
"""

from __future__ import annotations

import re
from typing import Any

from examples._support.stand_in import Asked, calls_for, says

SHOPS = ("Graz", "Linz")
YEARS = ("2024", "2025")
FINDING = re.compile(r"(\w+) (\d{4}): revenue ([\d.]+) €, costs ([\d.]+) €")


def pages(asked: Asked) -> list[str]:
    """The pages that a question, with what was said about it, is about."""
    text = asked["user_question"] + asked.get("clarification")
    shops = [shop for shop in SHOPS if shop in text]
    return [f"{shop}-{year}" for shop in shops for year in YEARS if year in text or not any(y in text for y in YEARS)]


@says("routing_decision", "coordination_plan", "requires_clarification")
def coordinate(asked: Asked) -> dict[str, Any]:
    """Small talk has few words; figures are asked for with some words; a shop that is not named is not known."""
    question = asked["user_question"]
    if len(question.split()) < 3:
        return {"routing_decision": "chat", "coordination_plan": [], "requires_clarification": False}
    figures = re.search(r"grow|per person|difference|together|per cent", question)
    plan = [f"read {page}" for page in pages(asked)] or [f"Which shop do you mean, {' or '.join(SHOPS)}?"]
    return {
        "routing_decision": "research_and_analysis" if figures else "research",
        "coordination_plan": plan,
        "requires_clarification": not pages(asked),
    }


@says("chat_answer")
def chat(asked: Asked) -> dict[str, Any]:
    """Be polite."""
    return {"chat_answer": f"{asked['user_question'].rstrip('!.')} to you! Ask me about our shops."}


@calls_for("findings", "sources")
def look_up(asked: Asked) -> tuple[str, dict[str, Any]] | None:
    """Search, then read one page after the other."""
    todo = [("search_library", {"query": asked["user_question"]})]
    todo += [("read_page", {"title": title}) for title in pages(asked)]
    return todo[len(asked.calls)] if len(asked.calls) < len(todo) else None


@says("findings", "sources")
def findings(asked: Asked) -> dict[str, Any]:
    """What the pages say."""
    found, sources = [], []
    for name, arguments, page in asked.calls:
        if name == "read_page" and (figures := re.findall(r"([\d.]+) €", page)):
            shop, year = arguments["title"].split("-")
            found.append(f"{shop} {year}: revenue {figures[0]} €, costs {figures[1]} €")
            sources.append(arguments["title"])
    return {"findings": found, "sources": sources}


@calls_for("analysis")
def compute(asked: Asked) -> tuple[str, dict[str, Any]] | None:
    """The growth of the revenue, and the margin of the last year."""
    (_, _, before, _), (_, _, after, costs) = FINDING.findall(asked["findings"])[:2]
    todo = [f"({after} - {before}) / {before} * 100", f"round(({after} - {costs}) / {after} * 100, 2)"]
    return ("calculate", {"expression": todo[len(asked.calls)]}) if len(asked.calls) < len(todo) else None


@says("analysis")
def analysis(asked: Asked) -> dict[str, Any]:
    """What was computed."""
    (_, first, growth), (_, second, margin) = asked.calls
    return {
        "analysis": [
            f"revenue grew by {growth} per cent: {first['expression']}",
            f"the margin is {margin} per cent: {second['expression']}",
        ]
    }


@says("answer")
def answer(asked: Asked) -> dict[str, Any]:
    """All of it, one after the other."""
    return {"answer": "; ".join([*asked.list("findings"), *asked.list("analysis")]) + "."}
