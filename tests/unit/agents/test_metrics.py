"""What says how good an answer is: how it is found, called and understood."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from multiagents import worker
from multiagents.agents.learning.metric import Judged, judged, metric_of, named
from multiagents.exceptions import ConfigurationError

HERE = __name__


def with_trace(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(example == prediction)


def without_trace(example: Any, prediction: Any) -> float:
    return 0.5


def with_predictor(gold: Any, pred: Any, trace: Any, pred_name: Any, pred_trace: Any) -> dict[str, Any]:
    return {"score": 0.25, "feedback": f"of {pred_name}"}


async def asked(example: Any, prediction: Any) -> bool:
    return True


@worker("agrees_with")
async def agrees_with(example: dict[str, Any], prediction: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    return {"score": float(example["mood"] == prediction["mood"] == answer["mood"])}


def test_a_function_is_found_by_its_path_and_given_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "metrics_of_a_test", SimpleNamespace(**globals()))  # type: ignore[arg-type]
    found = {name: metric_of(f"metrics_of_a_test:{name}") for name in ("with_trace", "without_trace", "with_predictor")}

    assert found["with_trace"]("a", "a", [], "ask", []) == Judged(1.0)
    assert found["without_trace"]("a", "b", []) == Judged(0.5)
    assert found["with_predictor"]("a", "b", [], "ask", []) == Judged(0.25, "of ask")
    assert metric_of("metrics_of_a_test.asked")("a", "b") == Judged(1.0)


def test_a_worker_is_found_by_its_name() -> None:
    good, bad = {"mood": "good"}, {"mood": "bad"}

    assert named(agrees_with) == named("agrees_with") == "agrees_with"
    assert metric_of("agrees_with")(good, good) == Judged(1.0)
    assert metric_of("agrees_with")(good, bad) == Judged(0.0)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("nowhere:exact", 'metric "nowhere:exact" was not found: ModuleNotFoundError'),
        ("math:nothing", 'metric "math:nothing" was not found: AttributeError'),
        ("agrees", 'metric "agrees" was not found'),
        ("math:pi", 'metric "math:pi" is 3.14.*; expected a function'),
        (lambda example, prediction: True, "cannot be imported by the workers"),
    ],
)
def test_one_that_is_not_there_is_told(metric: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        named(metric)


@pytest.mark.parametrize("answer", [None, "good", {"feedback": "none"}, float("nan"), []])
def test_an_answer_that_is_no_score_is_told(answer: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'metric "exact" answered .*; expected a number from 0 to 1'):
        judged("exact", answer)


def test_a_score_may_come_with_words() -> None:
    assert judged("exact", SimpleNamespace(score=1, feedback=None)) == Judged(1.0, "")
    assert judged("exact", {"score": 0.5, "feedback": "too long"}) == Judged(0.5, "too long")
