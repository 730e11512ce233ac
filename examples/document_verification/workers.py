"""The agents that look at a document, and the workers that read, archive and notify."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from examples._support.world import RefusedError, Service
from multiagents import RetryPolicy, TerminalError, current_step, dspy_worker, worker

DOCUMENTS = Path(__file__).with_name("documents")
UNLESS_REFUSED = RetryPolicy(max_attempts=3, initial_interval=0.2, non_retryable=(RefusedError,))
#: From here on a document is as good as classified, and as good as forged.
SURE = 0.7
FORGED = 0.6

# These stand for the clients of an archive and of a mail server.
archive = Service("archive", seconds=0.1)
mail = Service("mail")


class UnknownDocumentError(TerminalError):
    """It is no document of a kind that is verified here."""


class NotVerifiedError(TerminalError):
    """The document did not pass."""


@worker("read_document")
def read_document(context: dict[str, Any]) -> dict[str, Any]:
    """Read the text of a document; in your project, with OCR perhaps.

    Raises:
        UnknownDocumentError: when there is no such document.
    """
    path = DOCUMENTS / f"{context['document']}.txt"
    if path.parent != DOCUMENTS or not path.exists():
        raise UnknownDocumentError(f"there is no document {context['document']!r}")
    return {"document_text": path.read_text(encoding="utf-8")}


@dspy_worker(
    "classify_document",
    signature="document_text -> document_type: Literal['identity', 'financial', 'other'], confidence: float",
    instructions=(
        "Say what kind of document this is: identity (passport, licence), financial (invoice, statement), or other. "
        "The confidence is from 0 to 1; a document that cannot be read in parts has a low one."
    ),
)
async def classify_document(context: dict[str, Any]) -> None:
    """Refuse what is neither: a document that nobody here can check fails its run.

    Raises:
        UnknownDocumentError: when it is of another kind.
    """
    if context["document_type"] == "other":
        raise UnknownDocumentError(f"{context['document']!r} is neither an identity nor a financial document")


@dspy_worker(
    "check_identity",
    signature="document_text -> holder, valid_until: datetime.date",
    instructions="Read out the holder, and the day until which the document is valid.",
)
async def check_identity(context: dict[str, Any]) -> dict[str, Any]:
    """Compare the day with the calendar: a model reads, it does not know what day it is."""
    expired = context["valid_until"] < date.fromisoformat(context["today"])
    return {"problems": ["it has expired"] if expired else []}


@dspy_worker(
    "check_financial",
    signature="document_text -> issuer, amounts: list[Decimal], total: Decimal",
    instructions="Read out who issued it, the amount of each item, and the total, as they are. Compute nothing.",
)
async def check_financial(context: dict[str, Any]) -> dict[str, Any]:
    """Add up the amounts: a model reads, it does not calculate."""
    added = sum(context["amounts"], Decimal())
    wrong = [] if added == context["total"] else [f"the items come to {added}, the total says {context['total']}"]
    return {"problems": wrong}


@dspy_worker(
    "check_compliance",
    signature="document_text, document_type, problems: list[str] -> compliant: bool, missing: list[str]",
    instructions=(
        "Say whether the document has all that its kind has to have, and what is missing: an identity document a name, "
        "a day of birth, a number and a last day; a financial one an issuer, a recipient, items and a total. No more."
    ),
)
async def check_compliance(context: dict[str, Any]) -> None:
    """Look at what the rules ask for."""


@dspy_worker(
    "detect_fraud",
    signature="document_text, document_type, problems: list[str] -> fraud_score: float, signals: list[str]",
    instructions=(
        "Say from 0 to 1 how likely it is that the document was forged or changed, and what makes it so. A sum that is "
        "wrong is a strong signal; that parts cannot be read, or that it has expired, is none."
    ),
    reasoning="chain_of_thought",
)
async def detect_fraud(context: dict[str, Any]) -> None:
    """Look for what does not fit."""


@worker("decide")
def decide(context: dict[str, Any]) -> dict[str, Any]:
    """Decide by rule, so that it can be explained; what is in doubt goes to a person.

    Raises:
        NotVerifiedError: when the document has a flaw that is not in doubt.
    """
    doubts = []
    if context["confidence"] < SURE:
        doubts.append(f"its kind is uncertain ({context['confidence']:.2f})")
    if context["fraud_score"] >= FORGED:
        doubts.append(f"it may be forged ({context['fraud_score']:.2f}: {', '.join(context['signals'])})")
    flaws = [*context["problems"], *(f"{each} is missing" for each in context["missing"])]
    if flaws and not doubts:
        raise NotVerifiedError("; ".join(flaws), details={"flaws": flaws})
    return {"doubts": doubts}


@worker("archive_document", retry=UNLESS_REFUSED)
def archive_document(context: dict[str, Any]) -> dict[str, Any]:
    """Put it into the archive."""
    return {"archived": archive.do(current_step().idempotency_key, subject(context))}


@worker("revert_archive")
def revert_archive(context: dict[str, Any]) -> dict[str, Any]:
    """Take it out again."""
    return {"reverted": archive.undo(current_step().idempotency_key, subject(context))}


@worker("notify_holder", retry=UNLESS_REFUSED)
def notify_holder(context: dict[str, Any]) -> dict[str, Any]:
    """Tell the holder. What nobody was told of does not stay in the archive."""
    return {"notified": mail.do(current_step().idempotency_key, subject(context))}


@worker("summarize_documents")
def summarize_documents(context: dict[str, Any]) -> dict[str, Any]:
    """Count: ``context["verify"]`` is the list of what became of the documents, None for each that did not pass."""
    passed = [result is not None for result in context["verify"]]
    return {"summary": {"verified": passed.count(True), "refused": passed.count(False)}}


def subject(context: dict[str, Any]) -> str:
    """The document as those outside know it."""
    return f"{context['id']}/{context['document']}"
