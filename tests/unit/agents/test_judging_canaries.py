"""Whether a canary does as well as what it is to replace, and what the workflow that asks this consists of."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from multiagents.agents.optimizing.canary import Ruling, ruling, tallied
from multiagents.agents.optimizing.steps import definition
from multiagents.state_store.records import Example, Experience, Feedback

WAIT, GOOD, WORSE = Ruling.WAIT, Ruling.GOOD, Ruling.WORSE


def example(run: str, program: str, outcome: str | None = "completed", score: float | None = None) -> Example:
    said = None if score is None else Feedback(score)
    experience = Experience(program=program)
    return Example("ask", run, "", "it", datetime.now(UTC), 0, experience, outcome, False, said)


def runs(program: str, completed: int, failed: int = 0) -> list[Example]:
    ends = ["completed"] * completed + ["compensated"] * failed
    return [example(f"{program}-{number}", program, outcome) for number, outcome in enumerate(ends)]


@pytest.mark.parametrize(
    ("canary", "others", "expected"),
    [
        ((9, 0), (90, 0), WAIT),
        ((10, 0), (90, 0), GOOD),
        ((9, 1), (94, 6), GOOD),  # 90 % against 94 %
        ((9, 1), (96, 4), WORSE),  # against 96 %: more than five points
        ((0, 2), (90, 10), WORSE),  # what is still to come cannot save it: at best 80 %
        ((0, 1), (90, 10), WAIT),
        ((5, 5), (0, 0), GOOD),  # there is nothing to compare it with
        ((3, 0), (0, 0), WAIT),
    ],
)
def test_a_canary_is_judged_by_how_runs_have_ended(
    canary: tuple[int, int], others: tuple[int, int], expected: Ruling
) -> None:
    tallies = tallied([*runs("2", *canary), *runs("1", *others)], version=2, current=1)

    assert ruling(*tallies, wanted=10, tolerance=0.05) is expected


def test_only_runs_that_have_ended_count_once_and_by_their_worst_step() -> None:
    found = [
        example("a", "2"),
        example("a", "2", score=0.25),
        example("b", "2", "running"),
        example("c", "2", None),
        example("d", "2", "compensated", score=1.0),
        example("e", "3"),
        example("f", ""),
    ]

    canary, others = tallied(found, version=2, current=0)

    assert canary.runs == {("a", ""): 0.25, ("d", ""): 1.0}
    assert others.runs == {("f", ""): 1.0}


def test_an_optimization_is_a_saga_without_code_on_the_queue_of_its_worker() -> None:
    made = definition("lm", approve=True, canary=True, timeout=60, approval_timeout=None)

    steps = made.steps
    assert list(steps) == ["snapshot", "compile", "evaluate", "keep", "approve", "canary", "judge", "promote"]
    assert {step.queue for name, step in steps.items() if name != "approve"} == {"lm"}
    assert [name for name, step in steps.items() if step.compensation] == ["canary", "promote"]


def test_each_form_of_it_has_a_version_of_its_own() -> None:
    forms = [
        definition(queue, approve=approve, canary=canary, timeout=60, approval_timeout=None)
        for queue in (None, "lm")
        for approve in (True, False)
        for canary in (True, False)
    ]

    assert len({made.version for made in forms}) == len({made.content_hash for made in forms}) == 8
