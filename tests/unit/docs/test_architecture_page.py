"""docs/architecture.md shows the rooms as they are."""

from __future__ import annotations

import runpy

from tests.support import ROOT


def test_the_rooms_and_the_arrows_on_the_page_are_those_of_the_code():
    made = runpy.run_path(str(ROOT / "docs" / "make_architecture.py"))["page"]()

    kept = (ROOT / "docs" / "architecture.md").read_text()
    assert kept == made, "run .venv/bin/python docs/make_architecture.py"
