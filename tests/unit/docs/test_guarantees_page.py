"""The page of guarantees names tests that there are."""

from __future__ import annotations

import re

from tests.support import ROOT


def written_in(folder: str, pattern: str) -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests" / folder).rglob(pattern))
    return {name for text in texts for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}


def test_the_page_of_guarantees_names_every_test_of_the_fault_suite_and_none_that_there_is_not() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")

    named = set(re.findall(r"`(test_\w+)`", page))

    assert written_in("integration/faults", "test_faults_*.py") - named == set()
    assert named - written_in("", "test_*.py") == set()
