"""The hook that reads again before the point of no return (rule S29)."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import Step, WorkflowBuilder
from multiagents.exceptions import DefinitionError
from multiagents.workflow.definition import Definition
from tests.support.driven_run import RunOf


def order(**options: Any) -> WorkflowBuilder:
    return (
        WorkflowBuilder("reread")
        .add_step("reserve", compensation="release")
        .add_step("charge", pivot=True, reread="check_stock", **options)
        .add_step("ship")
    )


def test_S29_the_worker_that_reads_again_is_a_step_right_before_the_pivot() -> None:
    built = order(inputs={"n": "quantity"}).build(register=False)

    reread, charge = built.steps["charge.reread"], built.steps["charge"]

    assert list(built.steps) == ["reserve", "charge.reread", "charge", "ship"]
    assert (reread.worker, reread.after, dict(reread.inputs or {})) == ("check_stock", ("reserve",), {"n": "quantity"})
    assert (charge.after, charge.pivot, reread.pivot) == (("charge.reread",), True, False)
    assert built.steps["ship"].after == ("charge",)
    assert Definition.from_dict(built.to_dict()) == built


def test_S29_if_it_fails_the_run_goes_back_before_the_pivot(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")

    assert run.fails_for_good("charge.reread") == ["compensating", "reserve/undo/1"]
    assert run.is_undone("reserve") == ["compensated"]
    assert run.steps["charge"] == "not_started"


def test_S29_if_it_succeeds_the_pivot_follows(run_of: RunOf) -> None:
    run = run_of(order())
    run.succeeds("reserve")

    assert run.succeeds("charge.reread") == ["charge/do/1"]


def test_it_is_skipped_with_its_pivot() -> None:
    built = order(when=lambda ctx: ctx["total"] > 0).build(register=False)

    assert built.steps["charge.reread"].when is built.steps["charge"].when


def test_it_waits_for_what_its_pivot_waits_for() -> None:
    built = (
        WorkflowBuilder("after", strict=True)
        .add_step("a", no_compensation="none")
        .add_step("b", no_compensation="none", after=[])
        .add_step("charge", pivot=True, reread="check", after=["a", "b"], no_compensation="none")
        .build(register=False)
    )

    assert built.steps["charge.reread"].after == ("a", "b")
    assert built.steps["charge"].after == ("charge.reread",)


def test_in_a_branch_it_stays_in_the_branch() -> None:
    branches = [[Step("pick", compensation="put_back"), Step("charge", pivot=True, reread="check")], "bill"]
    built = WorkflowBuilder("branch").add_parallel("both", branches).build(register=False)

    assert built.steps["charge.reread"].block == "both"
    assert built.blocks["both"].branches == (("pick", "charge.reread", "charge"), ("bill",))


def test_in_a_loop_of_one_round_it_has_the_mark_of_the_round() -> None:
    loop = [Step("charge", pivot=True, reread="check")]
    built = WorkflowBuilder("loop").add_loop("once", loop, lambda ctx: True, 1).build(register=False)

    assert list(built.steps) == ["charge.reread#1", "charge#1"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reread": "check"}, "has reread='check' and is no pivot; what is read again"),
        ({"reread": 5, "pivot": True}, 'step "charge" has reread=5; expected the name'),
        ({"reread": "", "pivot": True}, """step "charge" has reread=''; expected the name"""),
    ],
)
def test_what_cannot_be_read_again_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        WorkflowBuilder("refused").add_step("charge", **options).build(register=False)

    assert said in str(refused.value)
