"""Children and maps where no server runs: what a review of them found, and what one would try first."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import Orchestrator, Step, TerminalError, WorkflowBuilder, current_step, worker
from multiagents.exceptions import DefinitionError, WorkflowNotFoundError
from multiagents.names import Direction
from multiagents.orchestrator.recovery import Sweep
from multiagents.workflow.builder import Child, Map

called: list[str] = []


@worker("nest.do")
def do(context: dict[str, Any]) -> dict[str, Any]:
    step = current_step()
    called.append(f"{step.transaction_id}/{step.step}")
    return {"n": context.get("n"), "item": context.get("item")}


@worker("nest.undo")
def undo(context: dict[str, Any]) -> None:
    called.append(f"{current_step().transaction_id}/{current_step().step}.undo")


@worker("nest.boom")
def boom(context: dict[str, Any]) -> None:
    raise TerminalError("no")


PAY = WorkflowBuilder("nest-pay").add_step("hold", do, compensation=undo).build()
ORDER = WorkflowBuilder("nest-order").add_child("pay", PAY).add_step("ship", do).build()
REVIEW = WorkflowBuilder("nest-review").add_step("open", do, compensation=undo).add_wait("verdict").build()
WAITING = WorkflowBuilder("nest-waiting").add_child("review", REVIEW).add_step("ship", do).build()


@pytest.fixture
def orchestrator(in_each_mode: Orchestrator) -> Orchestrator:
    called.clear()
    return in_each_mode


def test_a_parent_goes_on_when_a_child_that_waited_ends(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(WAITING, {}, transaction_id="o")
    assert run.status == "running"

    orchestrator.get("o:review").signal("verdict", {"grade": 1})

    assert run.status == "completed"
    assert called == ["o:review/open", "o/ship"]


def test_a_run_of_the_same_workflow_that_has_the_childs_id_is_not_taken_for_it(orchestrator: Orchestrator) -> None:
    orchestrator.start(PAY, {"n": 1}, transaction_id="o:pay")

    run = orchestrator.start(ORDER, {"n": 2}, transaction_id="o")

    seen = run.describe()
    assert (seen.status, seen.error.type) == ("failed", "ChildFailed")
    assert "there is a run 'o:pay' already" in seen.error.message
    assert orchestrator.get("o:pay").describe().input == {"n": 1}


def test_deleting_a_run_erases_its_children_and_theirs(orchestrator: Orchestrator) -> None:
    outer = WorkflowBuilder("nest-outer").add_child("order", ORDER).add_child("left", PAY, detached=True).build()
    run = orchestrator.start(outer, {"n": 1}, transaction_id="o")
    assert run.status == "completed"

    run.delete(reason="asked for")

    assert [each.transaction_id for each in orchestrator.list()] == ["o:left"]
    assert {each.transaction_id for each in orchestrator.deleted()} == {"o", "o:order", "o:order:pay"}


def _forget(orchestrator: Orchestrator, transaction_id: str) -> None:
    """A run is gone, and so many after it that nobody knows any more that there was one."""
    orchestrator.store.forget(orchestrator.store.load(transaction_id).state.identity)
    orchestrator.store._tables.generations.clear()


def test_what_a_child_of_an_earlier_run_with_the_same_id_did_is_none_of_this_ones(orchestrator: Orchestrator) -> None:
    """As when the earlier parent's retention was over before its child's."""
    orchestrator.start(ORDER, {"n": 1}, transaction_id="o")
    _forget(orchestrator, "o")

    run = orchestrator.start(ORDER, {"n": 2}, transaction_id="o")

    assert run.describe().steps["pay"].result == {"n": 2, "item": None}
    assert called == ["o:pay/hold", "o/ship"] * 2


def test_a_child_of_an_earlier_run_that_still_goes_on_is_left_alone(orchestrator: Orchestrator) -> None:
    orchestrator.start(WAITING, {}, transaction_id="o")
    _forget(orchestrator, "o")

    run = orchestrator.start(WAITING, {}, transaction_id="o")

    assert (run.status, run.describe().error.type) == ("failed", "ChildFailed")
    assert orchestrator.get("o:review").status == "running"


def test_S11_a_map_of_children_is_undone_by_their_journals(orchestrator: Orchestrator) -> None:
    orders = WorkflowBuilder("nest-orders").add_map("pay", PAY).add_step("last", boom).build()

    run = orchestrator.start(orders, {"items": [7, 8], "n": 1}, transaction_id="o")

    assert run.status == "compensated"
    assert sorted(called) == ["o:pay:0/hold", "o:pay:0/hold.undo", "o:pay:1/hold", "o:pay:1/hold.undo"]
    assert orchestrator.get("o:pay:1").describe().input == {"n": 1, "item": 8, "index": 1}


def test_a_child_is_undone_after_a_step_whose_undo_would_have_carried_it_as_its_link(
    orchestrator: Orchestrator,
) -> None:
    order = (
        WorkflowBuilder("nest-linked")
        .add_step("reserve", do, compensation=undo)
        .add_child("pay", PAY)
        .add_step("pack", do, compensation=undo)
        .add_step("ship", boom)
        .build()
    )

    run = orchestrator.start(order, {}, transaction_id="o")

    assert run.status == "compensated"
    assert called[3:] == ["o/pack.undo", "o:pay/hold.undo", "o/reserve.undo"]


def test_maps_and_children_stand_in_loops_choices_and_blocks(orchestrator: Orchestrator) -> None:
    deep = (
        WorkflowBuilder("nest-deep")
        .add_choice("route", lambda ctx: "all", {"all": [Map("each", do)], "none": [Child("pay", PAY)]})
        .add_parallel("both", [[Child("paid", PAY)], [Map("paying", PAY, max_concurrency=1)]])
        .add_loop("rounds", [Map("again", do), Child("once", PAY)], lambda ctx: False, 2)
        .add_step("last", boom)
        .build()
    )

    run = orchestrator.start(deep, {"items": [1, 2]}, transaction_id="o")

    did = [name for name in called if not name.endswith(".undo")]
    assert did == [
        "o/each[0]",
        "o/each[1]",
        "o:paid/hold",
        "o:paying:0/hold",
        "o:paying:1/hold",
        "o/again#1[0]",
        "o/again#1[1]",
        "o:once:1/hold",
        "o/again#2[0]",
        "o/again#2[1]",
        "o:once:2/hold",
    ]
    undone = [name for name in called if name.endswith(".undo")]
    assert undone[:2] == ["o:once:2/hold.undo", "o:once:1/hold.undo"]
    assert sorted(undone[2:]) == ["o:paid/hold.undo", "o:paying:0/hold.undo", "o:paying:1/hold.undo"]
    assert run.status == "compensated"


def test_a_map_in_a_loop_is_done_by_the_worker_of_its_name() -> None:
    loop = WorkflowBuilder("nest-named").add_loop("rounds", [Map("nest.do")], lambda ctx: False, 2)

    steps = loop.build(register=False).steps

    assert [steps[f"nest.do#{number}"].item.worker for number in (1, 2)] == ["nest.do"] * 2


def test_S12_a_map_of_children_with_a_pivot_says_how_they_are_undone() -> None:
    sealed = WorkflowBuilder("nest-sealed").add_step("sign", do, pivot=True).build(register=False)

    with pytest.raises(
        DefinitionError, match='map "each" runs workflow "nest-sealed" for each item, which has a pivot'
    ):
        WorkflowBuilder("nest-signing").add_map("each", sealed).build(register=False)
    for options in ({"compensation": undo}, {"compensation": undo, "compensate_each": False}):
        signing = WorkflowBuilder("nest-signing").add_map("each", sealed, **options).build(register=False)
        assert signing.steps["each"].item.pivot is False


def test_what_narrows_the_items_of_a_map_is_named_when_it_fails(orchestrator: Orchestrator) -> None:
    item = Step("each", do, inputs={"total": "order.total"})
    run = orchestrator.start(WorkflowBuilder("nest-narrow").add_map("each", item).build(), {"items": [1]})

    error = run.describe().error
    assert error.message.startswith("inputs= of step 'each' raised")


def test_who_dies_over_the_end_of_a_failed_child_does_not_have_it_run_again(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(WAITING, {}, transaction_id="o")
    attempt = orchestrator.store.load("o").state.correlation("review", Direction.DO, 1)
    dead = orchestrator.store.claim(attempt, WAITING.content_hash, owner="dead", worker="run review", timeout=None)
    orchestrator.store.expire(attempt)  # its lease is over

    Sweep(orchestrator.engine).tick()
    orchestrator.get("o:review").cancel()

    assert dead.state.step("review").do.attempt == 1
    assert (run.status, run.describe().steps["review"].attempts) == ("failed", 1)
    assert called == ["o:review/open", "o:review/open.undo"]


def test_the_child_of_a_run_that_was_completed_and_is_gone_is_parked_in_words(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(ORDER, {}, transaction_id="o")
    orchestrator.get("o:pay").delete()
    with pytest.raises(WorkflowNotFoundError):
        orchestrator.get("o:pay")

    run.compensate()

    seen = run.describe()
    assert seen.status == "compensation_failed"
    assert "is not kept any more" in seen.steps["pay"].compensation.error.message


# As deep as they may lie in each other ------------------------------------------------------------------------------

#: How deep workflows may lie in each other, and a run of each.
DEEPEST = 40


def nested(depth: int, last: Any, name: str) -> Any:
    """Workflows in workflows, as children and as items of maps in turn; the innermost has an effect."""
    made = WorkflowBuilder(f"{name}-0").add_step("hold", do, compensation=undo).build()
    for number in range(1, depth + 1):
        builder = WorkflowBuilder(f"{name}-{number}")
        builder = (
            builder.add_child("c", made)
            if number % 2
            else builder.add_map("c", made, over="one" if number == depth else "item")
        )
        if number == depth:
            builder = builder.add_step("last", last)
        made = builder.build()
    return made


@pytest.mark.parametrize(("last", "status", "undone"), [(do, "completed", 0), (boom, "compensated", 1)])
def test_workflows_as_deep_in_each_other_as_they_may_be_run_forward_and_back(
    orchestrator: Orchestrator, last: Any, status: str, undone: int
) -> None:
    items: list[Any] = [1]
    for _ in range(DEEPEST // 2 - 1):
        items = [items]

    run = orchestrator.start(nested(DEEPEST, last, f"nest-deep-{undone}"), {"one": items}, transaction_id="o")

    assert run.status == status
    assert sum("/hold" in step and not step.endswith(".undo") for step in called) == 1
    assert sum(step.endswith("/hold.undo") for step in called) == undone


def test_one_deeper_is_refused_before_anything_runs(orchestrator: Orchestrator) -> None:
    with pytest.raises(DefinitionError, match="41 deep; expected 40 at most"):
        nested(DEEPEST + 1, do, "nest-deeper")

    assert called == []
