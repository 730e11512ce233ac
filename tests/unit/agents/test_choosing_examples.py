"""Which examples an optimization learns from, and which it holds out; and what it may be told."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.agents.learning.options import Optimizer, Options, check_enough, chosen, parted
from multiagents.exceptions import ConfigurationError


def line(text: str, **more: Any) -> dict[str, Any]:
    return {"inputs": {"text": text}, "outputs": {"mood": "good"}, **more}


def texts(*lines: dict[str, Any], **options: Any) -> list[str]:
    return [one["inputs"]["text"] for one in chosen(lines, Options("exact", **options))]


def test_good_is_what_has_completed_or_what_somebody_has_found_good() -> None:
    lines = [
        line("completed", outcome="completed"),
        line("undone", outcome="compensated"),
        line("under way", outcome="running"),
        line("nobody knows", outcome=None),
        line("liked", outcome="failed", score=0.9),
        line("not liked", outcome="completed", score=0.1),
        line("given"),
    ]

    assert texts(*lines) == ["completed", "liked", "given"]
    assert texts(*lines, min_score=0.95) == ["completed", "given"]


def test_of_those_that_ask_the_same_the_newest_counts_and_there_are_so_many_at_most() -> None:
    lines = [line("a", outputs={"mood": "new"}), line("a", outputs={"mood": "old"}), *map(line, "bcdef")]

    assert chosen(lines, Options("exact"))[0]["outputs"] == {"mood": "new"}
    assert texts(*lines, max_examples=4) == ["a", "b", "c", "d"]


def test_what_has_no_answer_is_no_example() -> None:
    assert texts(line("a", outputs=None), line("b", outputs={}), {"inputs": None, "outputs": {"a": 1}}, line("c")) == [
        "c"
    ]


@pytest.mark.parametrize(("number", "held_out"), [(4, 2), (5, 2), (10, 3), (100, 30)])
def test_a_part_is_held_out_the_same_for_the_same_seed(number: int, held_out: int) -> None:
    examples = list(range(number))

    train, held = parted(examples, Options("exact", seed=3))

    assert (len(train), len(held)) == (number - held_out, held_out)
    assert sorted(train + held) == examples
    assert parted(examples, Options("exact", seed=3)) == (train, held)
    assert number == 4 or parted(examples, Options("exact", seed=4)) != (train, held)


def test_too_few_are_told_with_their_number() -> None:
    check_enough("ask", 4)
    with pytest.raises(ConfigurationError, match=r'worker "ask" has 3 examples .* at least 4'):
        check_enough("ask", 3)


@pytest.mark.parametrize(
    "given",
    [
        {"optimizer": "best"},
        {"budget": 0},
        {"budget": 1.5},
        {"threshold": 2},
        {"holdout": 0},
        {"seed": -1},
        {"min_score": "high"},
        {"max_examples": 3},
        {"canary_share": 1.1},
        {"canary_runs": -1},
        {"canary_timeout": 0},
        {"tolerance": True},
        {"model": 7},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_an_option_cannot_be_is_told_with_its_name(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(given))):
        Options("exact", **given)


def test_options_come_back_as_they_were_also_from_a_newer_release() -> None:
    options = Options("exact", optimizer="gepa", budget=100, canary_share=0.2)

    assert Options.read({**options.told, "added later": 1}) == options


@pytest.mark.parametrize(("share", "runs", "has"), [(0.1, 50, True), (0.1, 0, False), (0, 50, False), (1, 50, False)])
def test_a_canary_takes_a_share_and_runs(share: float, runs: int, has: bool) -> None:
    assert Options("exact", canary_share=share, canary_runs=runs).has_canary is has


def test_what_an_optimizer_needs_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "multiagents.agents.learning.options.find_spec", lambda name: None if name == "optuna" else name
    )

    Optimizer.GEPA.check_installed()
    with pytest.raises(ConfigurationError, match=r"needs optuna, which is not installed here, and nothing was asked"):
        Optimizer.MIPRO.check_installed()
