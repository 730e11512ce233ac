"""A question: retrieve, then answer and validate until the answer is approved, three times at most."""

from __future__ import annotations

from typing import Any

from examples.codebase_qa.workers import (
    answer_question,
    deliver_answer,
    plan_search,
    retrieve_code,
    validate_answer,
)
from multiagents import Loop, Step, WorkflowBuilder

#: How often an answer is written, at most.
ROUNDS = 3


def kind_of_question(context: dict[str, Any]) -> str:
    """Which branch is taken."""
    return "code" if context["is_about_code"] else "other"


def is_approved(context: dict[str, Any]) -> bool:
    """Whether the validator is content."""
    return bool(context["final_approved"])


codebase_qa = (
    WorkflowBuilder("codebase_qa", version="1")
    .add_step("plan", plan_search)
    .add_choice(
        "kind",
        kind_of_question,
        {
            "code": [
                Step("retrieve", retrieve_code),
                # What the validator suggests is in the context of the next round.
                Loop(
                    "approval",
                    [Step("answer", answer_question), Step("validate", validate_answer)],
                    until=is_approved,
                    max_iterations=ROUNDS,
                ),
            ],
            "other": [],
        },
    )
    .add_step("deliver", deliver_answer)
    .build()
)
