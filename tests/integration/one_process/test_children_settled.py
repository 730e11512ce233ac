"""Rules S11 and S17: what a person settles in a child settles its parent, too. No server runs here."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import Orchestrator, RetryPolicy, TerminalError, WorkflowBuilder, worker
from multiagents.exceptions import WorkflowError
from multiagents.workflow.builder import Child
from tests.support.letters import letter_about

#: What fails when it is asked.
broken: set[str] = set()


def _unless_broken(name: str) -> None:
    if name in broken:
        raise TerminalError(f"{name} is broken")


@worker("settled.do")
def do(context: dict[str, Any]) -> None: ...


@worker("settled.refund", retry=RetryPolicy(max_attempts=1))
def refund(context: dict[str, Any]) -> None:
    _unless_broken("refund")


@worker("settled.restock", retry=RetryPolicy(max_attempts=1))
def restock(context: dict[str, Any]) -> None:
    _unless_broken("restock")


@worker("settled.may_fail")
def may_fail(context: dict[str, Any]) -> None:
    _unless_broken(context.get("fails", ""))


PAY = (
    WorkflowBuilder("settled-pay")
    .add_step("stock", do, compensation=restock)
    .add_step("charge", do, compensation=refund)
    .add_step("inner", may_fail, inputs=lambda ctx: {"fails": "inner"})
    .build()
)
ORDER = WorkflowBuilder("settled-order").add_child("pay", PAY).add_step("ship", may_fail).build()
OUTER = WorkflowBuilder("settled-outer").add_child("order", ORDER).add_step("end", may_fail).build()
MANY = WorkflowBuilder("settled-many").add_map("pay", PAY, over="orders").add_step("ship", may_fail).build()


@pytest.fixture
def orchestrator(in_each_mode: Orchestrator) -> Orchestrator:
    broken.clear()
    return in_each_mode


def status(orchestrator: Orchestrator, *names: str) -> list[str]:
    return [orchestrator.get(name).status.value for name in names]


#: What a person does about the undo that failed -> how the child, and then its parent, end.
DEEDS = {
    "retry": ("compensated", "undone"),
    "supply": ("compensated", "undone"),
    "skip": ("compensated_partially", "live"),
}


def settle(orchestrator: Orchestrator, deed: str, child: str, step: str = "charge") -> None:
    run = orchestrator.get(child)
    broken.clear()
    match deed:
        case "retry":
            run.retry(step, reason="the bank is back", actor="ann")
        case "supply":
            run.supply(step, reason="by hand", actor="ann")
        case _:
            run.skip(step, "a gift", actor="ann")


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("fails", ["ship", "inner"], ids=["a child that was completed", "a child that has failed"])
def test_S17_who_settles_a_childs_undo_settles_its_parents(orchestrator: Orchestrator, deed: str, fails: str) -> None:
    broken.update({"refund", fails})
    run = orchestrator.start(ORDER, {"fails": fails}, transaction_id="o")
    assert status(orchestrator, "o:pay", "o") == ["compensation_failed"] * 2

    settle(orchestrator, deed, "o:pay")

    end, _ = DEEDS[deed]
    assert status(orchestrator, "o:pay", "o") == [end] * 2
    assert orchestrator.dead_letters() == {}
    step = run.describe().steps["pay"]
    assert step.status == ("compensation_skipped" if deed == "skip" else "compensated")


@pytest.mark.parametrize("deed", DEEDS)
def test_S17_so_it_goes_up_through_all_that_wait_for_it(orchestrator: Orchestrator, deed: str) -> None:
    broken.update({"refund", "end"})
    orchestrator.start(OUTER, {"fails": "end"}, transaction_id="o")
    family = ["o:order:pay", "o:order", "o"]
    assert status(orchestrator, *family) == ["compensation_failed"] * 3

    settle(orchestrator, deed, family[0])

    assert status(orchestrator, *family) == [DEEDS[deed][0]] * 3
    assert orchestrator.dead_letters() == {}


def test_S17_a_parent_waits_until_all_of_its_child_is_settled(orchestrator: Orchestrator) -> None:
    broken.update({"refund", "restock", "ship"})
    orchestrator.start(ORDER, {"fails": "ship"}, transaction_id="o")

    settle(orchestrator, "skip", "o:pay", "charge")
    between = status(orchestrator, "o:pay", "o")
    settle(orchestrator, "retry", "o:pay", "stock")

    assert between == ["compensation_failed"] * 2
    assert status(orchestrator, "o:pay", "o") == ["compensated_partially"] * 2


def test_S8_S17_each_child_of_a_map_is_settled_by_itself(orchestrator: Orchestrator) -> None:
    broken.update({"refund", "ship"})
    run = orchestrator.start(MANY, {"fails": "ship", "orders": [1, 2]}, transaction_id="m")

    settle(orchestrator, "retry", "m:pay:0")
    between = run.status
    settle(orchestrator, "supply", "m:pay:1")

    assert (between, run.status) == ("compensation_failed", "compensated")


def test_S17_a_parent_that_a_person_has_settled_or_abandoned_is_left_as_it_is(orchestrator: Orchestrator) -> None:
    broken.update({"refund", "ship"})
    for name in ("skipped", "abandoned"):
        orchestrator.start(ORDER, {"fails": "ship"}, transaction_id=name)
    orchestrator.get("skipped").skip("pay", "so small")
    orchestrator.get("abandoned").abandon("pay", "written off")

    for name in ("skipped", "abandoned"):
        settle(orchestrator, "retry", f"{name}:pay")

    assert status(orchestrator, "skipped", "abandoned") == ["compensated_partially", "compensation_failed"]


def test_S17_the_parents_letter_leads_to_the_childs(orchestrator: Orchestrator) -> None:
    broken.update({"refund", "ship"})
    orchestrator.start(ORDER, {"fails": "ship"}, transaction_id="o")

    own, childs = letter_about(orchestrator, "o/pay/undo/1"), letter_about(orchestrator, "o:pay/charge/undo/1")

    assert (own["child"], own.child, childs.child) == ("o:pay", orchestrator.get("o:pay"), None)
    assert "settle what waits in run 'o:pay', and this is settled with it" in own["error"]["message"]
    assert orchestrator.dead_letters(transaction_id=own.child.transaction_id) == {childs.key: childs}


def test_S11_a_child_that_is_undone_by_a_worker_of_its_parent_is_settled_there(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("settled-otherwise")
        .add_parallel("p", [[Child("pay", PAY, compensation=refund)]])
        .add_step("ship", may_fail)
        .build()
    )
    broken.update({"refund", "ship"})
    run = orchestrator.start(workflow, {"fails": "ship"}, transaction_id="o")
    assert status(orchestrator, "o:pay", "o") == ["completed", "compensation_failed"]

    broken.clear()
    run.retry("pay")

    assert run.status == "compensated"
    with pytest.raises(WorkflowError):
        orchestrator.get("o:pay").retry()


def test_a_skipped_undo_is_not_shown_as_under_way(orchestrator: Orchestrator) -> None:
    workflow = WorkflowBuilder("settled-skip").add_step("a", do, compensation=refund).add_step("z", may_fail).build()
    broken.update({"refund", "z"})
    run = orchestrator.start(workflow, {"fails": "z"})

    run.skip("a", "a gift")

    seen = run.describe()
    assert (seen.status, seen.steps["a"].status, seen.effects["a"]) == (
        "compensated_partially",
        "compensation_skipped",
        "live",
    )
    undo = seen.steps["a"].compensation
    assert undo is not None
    assert undo.status == "compensation_skipped"
