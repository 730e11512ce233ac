"""The agents that answer questions about a code base, and the workers that find what they need and hand it out."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from examples.codebase_qa.index import Index
from multiagents import TerminalError, dspy_worker, worker

#: What is searched where a run's input names no ``root``: this project, without its tests and examples.
ROOT = Path(__file__).parents[2]
FOLDERS = ("multiagents", "docs")
#: A place in a file: ``shop/orders.py:12``.
CITATION = re.compile(r"[\w./-]+\.(?:py|md):\d+")


class NothingFoundError(TerminalError):
    """The code base has nothing about the question."""


@dspy_worker(
    "plan_search",
    signature="question -> is_about_code: bool, search_terms: list[str], direct_answer: Optional[str]",
    instructions=(
        "Decide whether the question is about the code base, a library for durable workflows. If it is, give the words "
        "to search it for; if it is not, answer it at once."
    ),
)
async def plan_search(context: dict[str, Any]) -> None:
    """Decide what is to be looked for."""


@worker("retrieve_code")
def retrieve_code(context: dict[str, Any]) -> dict[str, Any]:
    """Find the passages that fit best.

    Raises:
        NothingFoundError: when there are none.
    """
    folder = context.get("root")
    index = index_of(folder or str(ROOT), () if folder else FOLDERS)
    found = index.find(" ".join([*context["search_terms"], context["question"]]))
    if not found:
        raise NothingFoundError(f"none of {len(index.passages)} passages has any of {context['search_terms']}")
    return {
        "code_context": "\n\n".join(f"{each.source}  {each.name}\n{each.text}" for each in found),
        "sources": [each.source for each in found],
    }


@lru_cache(maxsize=8)
def index_of(root: str, folders: tuple[str, ...]) -> Index:
    """An index, made once a process."""
    return Index(Path(root), folders)


@dspy_worker(
    "answer_question",
    signature="question, code_context, improvement_suggestions: Optional[list[str]] -> response",
    instructions=(
        "Answer the question with what the code context shows, and with nothing else, in a few sentences. Cite each "
        "place in brackets as it is written there: [shop/orders.py:12]. Follow the suggestions, where there are any."
    ),
    reasoning="chain_of_thought",
)
async def answer_question(context: dict[str, Any]) -> None:
    """Write an answer; in a later round, a better one."""


@dspy_worker(
    "validate_answer",
    signature=(
        "question, response, code_context -> is_accurate: bool, is_complete: bool, improvement_suggestions: list[str], "
        "final_approved: bool"
    ),
    instructions=(
        "Judge the response strictly: accurate is what the code context shows, complete is what answers the whole "
        "question and cites a place for each claim. Approve only what is both."
    ),
)
async def validate_answer(context: dict[str, Any]) -> dict[str, Any]:
    """Overrule a validator that approves of citations that nobody can follow: that much is no matter of opinion."""
    cited = set(CITATION.findall(context["response"]))
    unknown = sorted(cited - set(context["sources"]))
    if cited and not unknown:
        return {}
    problem = f"these places were not found: {', '.join(unknown)}" if unknown else "cite the places, as [file:line]"
    suggestions = [problem, *context["improvement_suggestions"]]
    return {"final_approved": False, "is_accurate": not unknown, "improvement_suggestions": suggestions}


@worker("deliver_answer")
def deliver_answer(context: dict[str, Any]) -> dict[str, Any]:
    """Hand the answer out, with a warning where the validator was never content."""
    if not context["is_about_code"]:
        return {"answer": context["direct_answer"] or "That is not about the code.", "verified": False}
    if context["final_approved"]:
        return {"answer": context["response"], "verified": True}
    doubts = "; ".join(context["improvement_suggestions"]) or "no reasons given"
    return {"answer": f"{context['response']}\n(not verified: {doubts})", "verified": False}
