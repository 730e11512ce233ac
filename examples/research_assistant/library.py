"""What the researcher may look things up in: pages of text in a folder. In your project, a search engine."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).with_name("library")


def titles() -> list[str]:
    """The titles of all pages."""
    return sorted(path.stem for path in FOLDER.glob("*.md"))


def find(query: str, most: int = 5) -> list[str]:
    """The titles of the pages that have most of the words, best first."""
    words = set(re.findall(r"\w+", query.lower()))
    found = {title: len(words & set(re.findall(r"\w+", read(title).lower()))) for title in titles()}
    return sorted((title for title in found if found[title]), key=lambda title: (-found[title], title))[:most]


def read(title: str) -> str:
    """The text of a page.

    Raises:
        LookupError: when there is none of that title.
    """
    if title not in titles():
        raise LookupError(f"there is no page {title!r}; there are: {', '.join(titles())}")
    return (FOLDER / f"{title}.md").read_text(encoding="utf-8")
