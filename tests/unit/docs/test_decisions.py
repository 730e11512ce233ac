"""Each decision has a number of its own, and says the same one."""

from __future__ import annotations

from collections import Counter

from tests.support import ROOT


def test_each_decision_has_a_number_of_its_own_and_says_it() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))

    numbers = Counter(page.name[:4] for page in pages)
    said = [page.name for page in pages if not page.read_text(encoding="utf-8").startswith(f"# {page.name[:4]}: ")]

    assert [number for number, times in numbers.items() if times > 1] == []
    assert said == []
