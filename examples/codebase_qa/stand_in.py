"""What the stand-in says in this example, where there is no key for a real model.

Its first answers forget their citations, so that there is something to improve. Those about money it never learns to
cite, so that there is one that is never approved.
"""

from __future__ import annotations

from typing import Any

from examples._support.stand_in import Asked, says
from examples.codebase_qa.index import words_of
from examples.codebase_qa.workers import CITATION

#: Words that nothing is found by.
COMMON = frozenset(
    words_of("a an and are be by can does how in is it of on or the there this to what where which who why")
)


@says("is_about_code", "search_terms", "direct_answer")
def plan(asked: Asked) -> dict[str, Any]:
    """Questions with fewer than three words that mean something are small talk."""
    terms = [word for word in words_of(asked["question"]) if word not in COMMON]
    if len(terms) < 2:
        return {"is_about_code": False, "search_terms": [], "direct_answer": "Ask me about the code of this project."}
    return {"is_about_code": True, "search_terms": terms, "direct_answer": None}


@says("response")
def response(asked: Asked) -> dict[str, Any]:
    """Point at the best passage; with its place only when told so."""
    place, _, name = asked["code_context"].splitlines()[0].partition("  ")
    says = f"Look at {name}, which fits the question best."
    wants_places = "cite" in asked.get("improvement_suggestions")
    if wants_places and "refund" not in asked["question"]:
        says += f" [{place}]"
    return {"response": says}


@says("is_accurate", "is_complete", "improvement_suggestions", "final_approved")
def validate(asked: Asked) -> dict[str, Any]:
    """Content with what cites a place."""
    cites = bool(CITATION.search(asked["response"]))
    suggestions = [] if cites else ["cite the place of each claim"]
    return {
        "is_accurate": True,
        "is_complete": cites,
        "improvement_suggestions": suggestions,
        "final_approved": cites,
    }
