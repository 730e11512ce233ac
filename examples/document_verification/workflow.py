"""A document: read, classify, one of two checks, compliance and fraud side by side, decide, archive, notify.

And a batch of them, where each is a run of its own.
"""

from __future__ import annotations

from typing import Any

from examples.document_verification.workers import (
    archive_document,
    check_compliance,
    check_financial,
    check_identity,
    classify_document,
    decide,
    detect_fraud,
    notify_holder,
    read_document,
    revert_archive,
    summarize_documents,
)
from multiagents import Child, Step, WorkflowBuilder

#: Seconds that a person has to look at a document.
TWO_DAYS = 2 * 86_400
#: How many documents of a batch are verified at once.
AT_ONCE = 3
#: Of the steps that only look.
LOOKS = "it only looks"


def kind(context: dict[str, Any]) -> str:
    """Which check is made: exactly one."""
    return str(context["document_type"])


def is_in_doubt(context: dict[str, Any]) -> bool:
    """Whether a person has to decide."""
    return bool(context["doubts"])


document_verification = (
    WorkflowBuilder("document_verification", version="1")
    .add_step("read", read_document, no_compensation=LOOKS)
    .add_step("classify", classify_document, no_compensation=LOOKS)
    .add_choice(
        "check",
        kind,
        {
            "identity": Step("identity", check_identity, no_compensation=LOOKS),
            "financial": Step("financial", check_financial, no_compensation=LOOKS),
        },
    )
    .add_parallel(
        "risk",
        [
            Step("compliance", check_compliance, no_compensation=LOOKS),
            Step("fraud", detect_fraud, no_compensation=LOOKS),
        ],
    )
    .add_step("decide", decide, no_compensation=LOOKS)
    .add_approval("person", timeout=TWO_DAYS, when=is_in_doubt)
    .add_step("archive", archive_document, compensation=revert_archive)
    .add_step("notify", notify_holder, no_compensation="nothing can fail behind it")
    .build()
)


def one_of_them(context: dict[str, Any]) -> dict[str, Any]:
    """What the run of one document of a batch begins with."""
    return {"id": context["id"], "today": context["today"], "document": context["item"]}


#: Each document is a run of its own: one that does not pass is passed over, and undoes what it did.
document_batch = (
    WorkflowBuilder("document_batch", version="1")
    .add_map(
        "verify",
        Child("verify", document_verification, inputs=one_of_them, on_failure="continue"),
        over="documents",
        max_concurrency=AT_ONCE,
    )
    .add_step("summary", summarize_documents, no_compensation="it only counts")
    .build()
)
