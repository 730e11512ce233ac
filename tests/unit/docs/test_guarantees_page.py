"""Every guarantee of docs/guarantees.md names a test that exists, and every test of the fault suite is named."""

from __future__ import annotations

import re

from tests.support import ROOT


def test_the_page_of_guarantees_and_the_fault_suite_name_the_same_tests() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    suite = "".join(path.read_text() for path in (ROOT / "tests" / "integration" / "faults").glob("test_faults_*.py"))

    named = set(re.findall(r"`(test_\w+)`", page))

    assert named == set(re.findall(r"^def (test_\w+)", suite, re.MULTILINE))
