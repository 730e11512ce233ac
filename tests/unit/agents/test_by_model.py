"""Which entry of a setting that is about models is for one of them."""

from __future__ import annotations

import pytest

from multiagents.agents.by_model import found_for

TABLE = {"gemini/*": 1, "gemini/*-flash": 2, "gemini/gemini-3.8-flash": 3, "openai/?": 4}


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("gemini/gemini-3.8-flash", ("gemini/gemini-3.8-flash", 3)),
        ("gemini/gemini-4-flash", ("gemini/*-flash", 2)),
        ("gemini/gemini-4-pro", ("gemini/*", 1)),
        ("openai/x", ("openai/?", 4)),
        ("openai/xy", None),
        ("Gemini/x", None),
    ],
)
def test_a_models_own_name_counts_then_the_longest_pattern(model: str, found: tuple[str, int] | None) -> None:
    assert found_for(model, TABLE) == found
