"""The agents of the research assistant, their tools, and the worker that lays out the answer."""

from __future__ import annotations

from typing import Any

from examples.research_assistant import calculator, library
from multiagents import dspy_worker, tool, worker

# -- tools: what the model is told of them is their name, their docstring and their annotations ------------------------


@tool("search_library", idempotent=True)
async def search_library(query: str) -> list[str]:
    """Find pages of the library by words in them; returns their titles, best first."""
    return library.find(query)


@tool("read_page", idempotent=True)
def read_page(title: str) -> str:
    """Read a page of the library."""
    return library.read(title)


@tool("calculate", idempotent=True)
def calculate(expression: str) -> str:
    """Compute an expression exactly: numbers without thousands separators, + - * / **, (), round(x, digits)."""
    return calculator.in_digits(calculator.compute(expression))


# -- agents ------------------------------------------------------------------------------------------------------------


@dspy_worker(
    "coordinate_research",
    signature=(
        "user_question, context -> routing_decision: Literal['chat', 'research', 'research_and_analysis'], "
        "coordination_plan: list[str], requires_clarification: bool"
    ),
    instructions=(
        "Decide who is to answer. 'chat' is for small talk; 'research' for what can be looked up in the library that "
        "the context describes; 'research_and_analysis' where figures are to be computed as well. Clarification is "
        "required where the question may mean different things, and only then: the first line of the plan is what the "
        "person is to be asked. Otherwise the plan has the steps of the research."
    ),
)
async def coordinate_research(context: dict[str, Any]) -> None:
    """Route the question."""


@dspy_worker("chat_at_once", signature="user_question -> chat_answer")
async def chat_at_once(context: dict[str, Any]) -> dict[str, Any]:
    """Answer small talk; what the run has to say lies in the same place, whichever way it went."""
    return {"formatted_answer": context["chat_answer"]}


@dspy_worker(
    "research",
    signature=(
        "user_question, coordination_plan: list[str], clarification: Optional[dict[str, str]] "
        "-> findings: list[str], sources: list[str]"
    ),
    instructions=(
        "Find what the question needs in the library. A finding is one figure or fact, with the page that has it, as "
        "it is there. Compute nothing. The sources are the titles of the pages that were of use."
    ),
    tools=[search_library, read_page],
    reasoning="react",
    max_iters=8,
)
async def research(context: dict[str, Any]) -> None:
    """Look things up."""


@dspy_worker(
    "analyse",
    signature="user_question, findings: list[str] -> analysis: list[str]",
    instructions="Compute what is asked for with the tool, never by yourself; state each result with its figures.",
    tools=[calculate],
    reasoning="react",
    max_iters=6,
)
async def analyse(context: dict[str, Any]) -> None:
    """Compute."""


@dspy_worker(
    "synthesize",
    signature="user_question, findings: list[str], analysis: Optional[list[str]] -> answer",
    instructions="Answer the question in a few sentences with what is given, and with nothing else.",
    reasoning="chain_of_thought",
)
async def synthesize(context: dict[str, Any]) -> None:
    """Put it together."""


# -- no agent ----------------------------------------------------------------------------------------------------------


@worker("format_answer")
def format_answer(context: dict[str, Any]) -> dict[str, Any]:
    """Lay the answer out."""
    lines = [f"Q: {context['user_question']}"]
    if context.get("clarification"):
        lines.append(f"   ({context['clarification']['meant']})")
    elif context["requires_clarification"]:
        lines.append("   (nobody said what was meant)")
    lines += [f"A: {context['answer']}", f"   Sources: {', '.join(context['sources']) or 'none'}"]
    return {"formatted_answer": "\n".join(lines)}
