"""Dead letters found by what they are about, whichever run has had the id."""

from __future__ import annotations

import re
from typing import Any

from multiagents import DeadLetter


def about(key: str) -> str:
    """What a letter is about: its key without the nonce of the run, and without what the outcome said."""
    return key if key.startswith("bus|") else re.sub(r"~[^/|]*", "", key).partition("|")[0]


def abouts(letters: dict[str, Any]) -> list[str]:
    """What these letters are about, in order."""
    return sorted(map(about, letters))


def letter_about(orchestrator: Any, attempt: str) -> DeadLetter:
    """The one dead letter that is about an attempt, or a run."""
    [letter] = [letter for key, letter in orchestrator.dead_letters().items() if about(key) == attempt]
    found: DeadLetter = letter
    return found
