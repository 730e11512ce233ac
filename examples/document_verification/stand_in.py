"""What the stand-in says in this example, where there is no key for a real model.

It reads lines such as ``Name: Ann``, and doubts where there are question marks.
"""

from __future__ import annotations

import re
from typing import Any

from examples._support.stand_in import Asked, says


def line(asked: Asked, name: str) -> str:
    """What a line of the document says."""
    found = re.search(rf"^{name}: (.*)$", asked["document_text"], re.MULTILINE)
    return found[1] if found else ""


@says("document_type", "confidence")
def classify(asked: Asked) -> dict[str, Any]:
    """By the lines that there are; question marks make it doubtful."""
    kind = "identity" if line(asked, "Valid until") else "financial" if line(asked, "Total") else "other"
    return {"document_type": kind, "confidence": max(0.1, 0.95 - 0.05 * asked["document_text"].count("?"))}


@says("holder", "valid_until")
def identity(asked: Asked) -> dict[str, Any]:
    """Read it out."""
    return {"holder": line(asked, "Name"), "valid_until": line(asked, "Valid until")}


@says("issuer", "amounts", "total")
def financial(asked: Asked) -> dict[str, Any]:
    """Read it out."""
    amounts = re.findall(r"^Item: .* ([\d.]+)$", asked["document_text"], re.MULTILINE)
    issuer = asked["document_text"].splitlines()[0].removeprefix("INVOICE").strip()
    return {"issuer": issuer, "amounts": amounts, "total": line(asked, "Total")}


@says("compliant", "missing")
def compliance(asked: Asked) -> dict[str, Any]:
    """Each kind has its lines."""
    needed = ["Name", "Number"] if asked["document_type"] == "identity" else ["To", "Total"]
    missing = [name for name in needed if not line(asked, name)]
    return {"compliant": not missing, "missing": missing}


@says("fraud_score", "signals")
def fraud(asked: Asked) -> dict[str, Any]:
    """A sum that is wrong is suspicious."""
    signals = [problem for problem in asked.list("problems") if "the total says" in problem]
    return {"fraud_score": 0.8 if signals else 0.1, "signals": signals}
