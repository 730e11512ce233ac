"""Rule S11: runs of other workflows as steps, on real workers."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import RetryPolicy, WorkflowBuilder
from multiagents.testing import wait_until
from tests.support.apps import scripted
from tests.support.scenario import Scenario, events

ONCE = RetryPolicy(max_attempts=1)
PAY = (
    WorkflowBuilder("pay")
    .add_step("hold", "play", compensation="undo")
    .add_step("charge", "play", compensation="undo", retry=ONCE)
    .build()
)
ORDER = (
    WorkflowBuilder("order_with_child")
    .add_step("reserve", "play", compensation="undo")
    .add_child("payment", PAY)
    .add_step("ship", "play", retry=ONCE)
    .build()
)


@pytest.fixture
def family(rules: Scenario) -> Any:
    """A way to start a parent whose children are checked at the end, too."""

    def start(workflow: Any, *children: str, **script: Any) -> Any:
        run = rules.start(workflow, **script)
        for name in children:
            rules.runs[f"{run.transaction_id}:{name}"] = rules.orchestrator.get(run.transaction_id).__class__(
                rules.orchestrator, f"{run.transaction_id}:{name}"
            )
        return run

    return start


def child(rules: Scenario, run: Any, name: str) -> Any:
    return rules.orchestrator.get(f"{run.transaction_id}:{name}")


def test_what_a_childs_steps_return_is_the_result_of_its_step(rules: Scenario, family: Any) -> None:
    run = family(ORDER, "payment", hold=[{"held": 5}], charge=[{"charge_id": "c-1"}])

    seen = rules.end(run)

    assert seen.status == "completed"
    assert (seen.steps["payment"].result, seen.context["charge_id"]) == ({"held": 5, "charge_id": "c-1"}, "c-1")
    assert seen.steps["payment"].child == f"{run.transaction_id}:payment"
    assert child(rules, run, "payment").describe().workflow == "pay"


def test_S11_a_failed_child_has_undone_itself_and_its_parent_undoes_the_rest(rules: Scenario, family: Any) -> None:
    run = family(ORDER, "payment", charge=["declined"])

    seen = rules.end(run)

    assert (seen.status, seen.steps["payment"].status) == ("compensated", "failed")
    assert child(rules, run, "payment").status == "compensated"
    assert rules.began(child(rules, run, "payment")) == ["hold", "charge", "hold.undo"]
    assert rules.began(run) == ["reserve", "reserve.undo"]
    assert seen.error.causes[0].message == "the card was declined"


def test_S11_a_completed_child_is_undone_as_a_unit_by_its_own_journal(rules: Scenario, family: Any) -> None:
    run = family(ORDER, "payment", ship=["fail"])

    seen = rules.end(run)

    assert (seen.status, seen.steps["payment"].status) == ("compensated", "compensated")
    assert rules.began(child(rules, run, "payment")) == ["hold", "charge", "charge.undo", "hold.undo"]
    assert rules.began(run) == ["reserve", "ship", "reserve.undo"]
    assert seen.effects == {"reserve": "undone", "payment": "undone"}


def test_S11_the_undo_of_a_child_is_no_link_of_the_undo_before_it(rules: Scenario, family: Any) -> None:
    order = (
        WorkflowBuilder("order_packed")
        .add_step("reserve", "play", compensation="undo")
        .add_child("payment", PAY)
        .add_step("pack", "play", compensation="undo")
        .add_step("ship", "play", retry=ONCE)
        .build()
    )
    run = family(order, "payment", ship=["fail"])

    seen = rules.end(run)

    assert seen.status == "compensated"
    assert rules.began(run) == ["reserve", "pack", "ship", "pack.undo", "reserve.undo"]
    assert f"{run.transaction_id}/payment/undo" not in rules.deployment.workers[0].log


def test_S11_a_declared_undo_takes_the_place_of_the_childs_journal(rules: Scenario, family: Any) -> None:
    declared = (
        WorkflowBuilder("order_declared")
        .add_child("payment", PAY, compensation="undo")
        .add_step("ship", "play", retry=ONCE)
        .build()
    )
    run = family(declared, "payment", ship=["fail"])

    seen = rules.end(run)

    assert seen.status == "compensated"
    assert rules.began(run) == ["ship", "payment.undo"]
    assert child(rules, run, "payment").status == "completed"
    assert rules.began(child(rules, run, "payment")) == ["hold", "charge"]


def test_S11_a_running_child_is_cancelled_and_undoes_first(rules: Scenario, family: Any) -> None:
    run = family(ORDER, "payment", charge=["wait_until_cancelled"])
    paying = f"{run.transaction_id}:payment"
    wait_until(lambda: rules.redis.llen(f"journal:{paying}") == 2, 20, "the charge")

    run.cancel(reason="the customer left")

    seen = rules.end(run)
    assert seen.status == "cancelled"
    assert child(rules, run, "payment").status == "cancelled"
    assert rules.began(child(rules, run, "payment")) == ["hold", "charge", "charge.undo", "hold.undo"]
    ended = child(rules, run, "payment").describe().finished_at
    undone = next(event.timestamp for event in events(run) if event.correlation_id.endswith("reserve/undo/1"))
    assert ended <= undone


def test_S11_leaves_are_cancelled_first(rules: Scenario, family: Any) -> None:
    middle = (
        WorkflowBuilder("middle").add_step("m", "play", compensation="undo").add_child("leaf", scripted.review).build()
    )
    top = WorkflowBuilder("top").add_step("t", "play", compensation="undo").add_child("middle", middle).build()
    run = family(top, "middle", "middle:leaf")
    leaf = f"{run.transaction_id}:middle:leaf"
    wait_until(lambda: _waits(rules, leaf, "verdict"), 20, "the leaf to wait")

    run.cancel()

    rules.end(run)
    ends = [rules.orchestrator.get(name).describe() for name in (leaf, f"{run.transaction_id}:middle")]
    ends.append(run.describe())
    assert [end.status for end in ends] == ["cancelled"] * 3
    assert ends[0].finished_at <= ends[1].finished_at <= ends[2].finished_at


def test_S11_a_detached_child_is_left_alone(rules: Scenario, family: Any) -> None:
    apart = (
        WorkflowBuilder("order_detached")
        .add_step("reserve", "play", compensation="undo")
        .add_child("newsletter", scripted.review, detached=True)
        .add_step("ship", "play", retry=ONCE)
        .build()
    )
    run = family(apart, "newsletter", ship=["fail"])

    seen = rules.end(run)

    left = child(rules, run, "newsletter")
    assert (seen.status, seen.steps["newsletter"].child) == ("compensated", left.transaction_id)
    assert seen.effects == {"reserve": "undone", "newsletter": "live"}
    assert left.status == "running"
    left.signal("verdict")
    assert rules.end(left).status == "completed"


def test_S10_a_failure_inside_a_child_is_undone_inside_it_and_the_outer_run_goes_on(
    rules: Scenario, family: Any
) -> None:
    """A map of children: nothing of the outer run is undone for a child that had its own way round the failure."""
    inner = (
        WorkflowBuilder("inner_scope")
        .add_step("try", "play", compensation="undo")
        .add_child("pay", PAY, on_failure="continue")
        .add_step("otherwise", "play")
        .build()
    )
    run = family(inner, "pay", charge=["declined"])

    seen = rules.end(run)

    assert (seen.status, seen.steps["pay"].status, seen.steps["otherwise"].status) == (
        "completed",
        "skipped",
        "succeeded",
    )
    assert child(rules, run, "pay").status == "compensated"
    assert rules.began(child(rules, run, "pay")) == ["hold", "charge", "hold.undo"]
    assert "try.undo" not in rules.began(run)


def test_S10_a_finished_inner_scope_is_undone_from_outside(rules: Scenario, family: Any) -> None:
    run = family(ORDER, "payment")
    rules.end(run)

    run.compensate(reason="returned")

    assert rules.end(run).status == "compensated"
    assert child(rules, run, "payment").status == "compensated"


def test_S17_an_undo_of_a_child_that_fails_parks_the_parents(rules: Scenario, family: Any) -> None:
    stubborn = WorkflowBuilder("stubborn_pay").add_step("hold", "play", compensation="undo", undo_retry=ONCE).build()
    order = (
        WorkflowBuilder("order_stubborn")
        .add_step("reserve", "play", compensation="undo")
        .add_child("payment", stubborn)
        .add_step("ship", "play", retry=ONCE)
        .build()
    )
    run = family(order, "payment", ship=["fail"], hold__undo=["fail"])

    seen = rules.end(run)
    assert (seen.status, seen.steps["payment"].status) == ("compensation_failed", "compensation_failed")
    assert rules.began(run)[-1] == "reserve.undo"

    paying = child(rules, run, "payment")
    paying.retry(reason="the provider is back")
    wait_until(lambda: paying.status == "compensated", 20, "the child's undo")
    wait_until(lambda: run.status == "compensated", 20, "the parent's undo, which the child's settles")


def test_terminating_a_parent_terminates_its_children(rules: Scenario, family: Any) -> None:
    top = WorkflowBuilder("top_terminated").add_child("review", scripted.review).build()
    run = family(top, "review")
    wait_until(lambda: _waits(rules, f"{run.transaction_id}:review", "verdict"), 20, "the child to wait")

    run.terminate(reason="nonsense")

    wait_until(lambda: child(rules, run, "review").status == "terminated", 20, "the child's end")


def test_a_map_of_children_that_each_wait_for_a_signal(rules: Scenario, family: Any) -> None:
    papers = {"papers": ["p", "q", "r"]}
    run = family(scripted.reviews, "review:0", "review:1", "review:2", input=papers)
    names = [f"{run.transaction_id}:review:{number}" for number in range(3)]
    for name in names:
        wait_until(lambda name=name: _waits(rules, name, "verdict"), 20, f"{name} to wait")

    for number, name in enumerate(names):
        rules.orchestrator.get(name).signal("verdict", {"grade": number})

    seen = rules.end(run)
    assert seen.status == "completed"
    assert [result["verdict"]["grade"] for result in seen.context["review"]] == [0, 1, 2]
    assert rules.orchestrator.get(names[1]).describe().input["item"] == "q"


def test_S11_one_cancelled_child_of_a_map_turns_the_run_back_and_the_others_are_undone(
    rules: Scenario, family: Any
) -> None:
    run = family(scripted.reviews, "review:0", "review:1", input={"papers": ["p", "q"]})
    names = [f"{run.transaction_id}:review:{number}" for number in range(2)]
    for name in names:
        wait_until(lambda name=name: _waits(rules, name, "verdict"), 20, f"{name} to wait")

    rules.orchestrator.get(names[0]).cancel()
    rules.orchestrator.get(names[1]).signal("verdict")

    seen = rules.end(run)
    assert seen.status == "compensated"
    assert [rules.orchestrator.get(name).status for name in names] == ["cancelled", "compensated"]


def test_a_killed_worker_of_a_child_costs_one_attempt_there(rules: Scenario, family: Any) -> None:
    if rules.deployment.pool != "prefork":
        pytest.skip("elsewhere the process that is killed is the whole worker: that is tested with the faults")
    run = family(ORDER, "payment", charge=["kill"])

    assert rules.end(run).status == "completed"
    assert child(rules, run, "payment").describe().steps["charge"].attempts == 2


def test_a_run_that_has_the_childs_id_already_is_not_taken_for_it(rules: Scenario) -> None:
    other = WorkflowBuilder("other").add_step("play").build()
    run = rules.start(other, tid="id-of-another:payment")
    rules.end(run)

    seen = rules.end(rules.start(ORDER, tid="id-of-another"))

    assert (seen.status, seen.error.type) == ("compensated", "ChildFailed")
    assert "which is not its child" in seen.error.message


def _waits(rules: Scenario, name: str, step: str) -> bool:
    try:
        return step in rules.store.load(name).in_flight
    except Exception:  # it is not there yet
        return False


def deepest(name: str) -> Any:
    """Forty workflows in each other, with an effect in the innermost."""
    made = WorkflowBuilder(f"{name}_0").add_step("hold", "play", compensation="undo").build()
    for number in range(1, 40):
        made = WorkflowBuilder(f"{name}_{number}").add_child("c", made).build()
    return WorkflowBuilder(name).add_child("c", made).add_step("ship", "play", retry=ONCE).build()


DEEPEST = deepest("deepest")


@pytest.mark.parametrize(("ship", "status"), [([{}], "completed"), (["terminal"], "compensated")])
def test_S11_forty_runs_in_each_other_go_forward_and_back(rules: Scenario, ship: list[Any], status: str) -> None:
    run = rules.start(DEEPEST, ship=ship)

    seen = rules.end(run, timeout=90)

    assert seen.status == status
    innermost = run
    for _ in range(40):
        innermost = rules.orchestrator.get(innermost.describe().steps["c"].child)
    assert innermost.status == status
    assert rules.began(innermost) == (["hold"] if status == "completed" else ["hold", "hold.undo"])


def test_S19_an_error_forty_runs_below_is_told_at_the_top(rules: Scenario) -> None:
    run = rules.start(DEEPEST, hold=["terminal"])

    error = rules.end(run, timeout=90).error

    depth = 0
    while error.causes:
        error, depth = error.causes[0], depth + 1
    assert (error.type, depth) == ("multiagents.exceptions.TerminalError", 40)
    assert len(run.describe().to_dict()["error"]["message"]) < 6_000
