"""Loops: bounded rounds, each with steps of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from multiagents.exceptions import DefinitionError
from multiagents.workflow.builder import Choice, Loop, Parallel, Step, Wait, WorkflowBuilder
from tests.support.driven_run import RunOf


def done_at(*checks: str) -> Callable[[str], str]:
    """Answers that end a loop at these checks, and nowhere else."""
    return lambda name: "done" if name in checks else "again"


def never(context: dict[str, Any]) -> bool:
    return False


def writing(on_exhausted: Any = "continue") -> WorkflowBuilder:
    round_ = [Step("draft", compensation="discard"), "review"]
    return (
        WorkflowBuilder("writing").add_step("ask").add_loop("write", round_, never, 3, on_exhausted).add_step("print")
    )


def test_a_round_runs_after_the_other_until_the_condition_holds(run_of: RunOf) -> None:
    run = run_of(writing(), label=done_at("write.until#2"))

    assert run.succeeds("ask") == ["draft#1/do/1"]
    assert run.succeeds("draft#1") == ["review#1/do/1"]
    assert run.succeeds("review#1") == ["write.until#1 chosen", "draft#2/do/1"]
    run.succeeds("draft#2")
    assert run.succeeds("review#2") == ["write.until#2 chosen", "print/do/1"]
    assert run.succeeds("print") == ["completed"]
    assert run.steps["draft#3"] == run.steps["review#3"] == "skipped"


def test_the_last_round_needs_no_check(run_of: RunOf) -> None:
    run = run_of(writing(), label=done_at())
    run.succeeds("ask")
    for number in (1, 2, 3):
        run.succeeds(f"draft#{number}")
        said = run.succeeds(f"review#{number}")

    assert said == ["print/do/1"]
    assert "write.until#3" not in run.steps


def test_a_loop_that_must_end_is_checked_after_its_last_round_too(run_of: RunOf) -> None:
    run = run_of(writing("fail"), label=done_at("write.until#3"))
    run.succeeds("ask")
    for number in (1, 2, 3):
        run.succeeds(f"draft#{number}")
        said = run.succeeds(f"review#{number}")

    assert said == ["write.until#3 chosen", "print/do/1"]


def test_S9_rounds_are_undone_newest_first(run_of: RunOf) -> None:
    run = run_of(writing(), label=done_at("write.until#2"))
    for step in ("ask", "draft#1", "review#1", "draft#2", "review#2"):
        run.succeeds(step)

    assert run.fails_for_good("print") == ["compensating", "draft#2/undo/1"]
    assert run.is_undone("draft#2") == ["draft#1/undo/1"]
    assert run.is_undone("draft#1") == ["compensated"]


def test_each_round_names_its_own_worker_signal_and_after() -> None:
    round_ = [Parallel("both", ["left", ["far", Step("right", "turn")]]), Step("both_done", after=["both", "ask"])]
    definition = (
        WorkflowBuilder("names")
        .add_step("ask")
        .add_loop("turns", [*round_, Wait("nod")], never, 2)
        .build(register=False)
    )

    steps = definition.steps
    assert (steps["left#2"].worker, steps["right#2"].worker, steps["nod#2"].signal) == ("left", "turn", "nod")
    assert steps["left#2"].after == steps["far#2"].after == ("turns.until#1",)
    assert set(steps["both_done#2"].after) == {"left#2", "right#2", "ask"}
    assert definition.blocks["both#2"].branches == (("left#2",), ("far#2", "right#2"))


def test_loops_stand_in_loops_choices_and_blocks(run_of: RunOf) -> None:
    inner = Loop("inner", "poll", never, 2)
    route = Choice("route", lambda ctx: "done", {"done": [Loop("outer", ["start", inner], never, 2)], "other": []})
    run = run_of(
        WorkflowBuilder("deep").add_parallel("side_by_side", [[route], "beside"]).add_step("last"),
        label=done_at("route", "inner.until#1#1", "outer.until#1"),
    )

    assert run.first == ["route chosen", "beside/do/1", "start#1/do/1"]
    assert run.succeeds("start#1") == ["inner#1#1/do/1"]
    assert run.succeeds("inner#1#1") == ["inner.until#1#1 chosen", "outer.until#1 chosen"]
    assert run.succeeds("beside") == ["last/do/1"]
    assert run.succeeds("last") == ["completed"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_iterations": 0}, "has max_iterations=0; expected a whole number from 1 to 100"),
        ({"max_iterations": True}, "has max_iterations=True"),
        ({"max_iterations": 101}, "has max_iterations=101"),
        ({"until": None}, "has until=None; expected a function of the context"),
        ({"on_exhausted": "stop"}, 'has on_exhausted=\'stop\'; expected "continue" or "fail"'),
        ({"steps_or_worker": []}, 'loop "poll" holds []'),
        ({"name": "poll#1"}, "loop name 'poll#1' cannot be used"),
        ({"steps_or_worker": [Step("a#1")]}, "step name 'a#1' cannot be used"),
        ({"steps_or_worker": ["a", "a"]}, 'two steps named "a#1"'),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = {"name": "poll", "steps_or_worker": "ask", "until": never, "max_iterations": 2} | options

    with pytest.raises(DefinitionError) as refused:
        WorkflowBuilder("loops").add_loop(**given).build(register=False)

    assert sentence in str(refused.value)
