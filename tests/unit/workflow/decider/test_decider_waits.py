"""Steps that no worker does: waits, approvals, sleeps and choices."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.events import CommandEvent, Event, StatusEvent
from multiagents.workflow.builder import Choice, Parallel, Step, Wait, WorkflowBuilder
from multiagents.workflow.decider import Fact
from multiagents.workflow.definition import StepDefinition
from multiagents.workflow.state import RunStatus, Signal
from tests.support.driven_run import DrivenRun, RunOf


def signal(run: DrivenRun, name: str, key: str, **facts: Any) -> list[str]:
    return run.takes(run.status(Fact.SIGNALLED, payload={"signal": name, "key": key, "answer": "", **facts}))


def shipping() -> WorkflowBuilder:
    return (
        WorkflowBuilder("shipping")
        .add_step("pack", compensation="unpack")
        .add_wait("paid", signal="payment")
        .add_step("ship")
    )


# Waits --------------------------------------------------------------------------------------------------------------


def test_a_wait_ends_with_its_signal(run_of: RunOf) -> None:
    run = run_of(shipping())
    run.succeeds("pack")
    assert run.steps == {"pack": "succeeded", "paid": "scheduled", "ship": "not_started"}

    said = signal(run, "payment", "k1")

    assert said == ["paid received", "ship/do/1"]
    assert run.state.signals == ()
    assert run.succeeds("ship") == ["completed"]


def test_a_signal_that_comes_before_its_wait_is_kept_for_it(run_of: RunOf) -> None:
    run = run_of(shipping())

    before = signal(run, "payment", "k1")

    assert before == []
    assert run.state.signals == (Signal("payment", "k1"),)
    assert run.succeeds("pack") == ["paid/do/1", "paid received", "ship/do/1"]
    assert run.state.signals == ()


def test_each_wait_takes_one_signal_of_its_name_the_oldest_first(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("twice").add_parallel("both", [Wait("first", "go"), Wait("second", "go")]))

    one = signal(run, "go", "k1")
    other = signal(run, "go", "k2")

    assert one == ["first received"]
    assert other == ["second received", "completed"]


def test_a_wait_that_is_skipped_leaves_its_signal_to_others(run_of: RunOf) -> None:
    def skip_first(step: StepDefinition, said: Event) -> Event:
        if step.name != "first" or not isinstance(said, CommandEvent):
            return said
        return StatusEvent(transaction_id=said.transaction_id, timestamp=said.timestamp, step="first", status="skipped")

    builder = WorkflowBuilder("either").add_step("pack").add_wait("first", "go", when=lambda ctx: False)
    run = run_of(builder.add_wait("second", "go"), ask=skip_first)
    signal(run, "go", "k1")

    said = run.succeeds("pack")

    assert said == ["first skipped", "second/do/1", "second received", "completed"]


def test_S23_a_signal_that_comes_when_the_run_goes_back_changes_nothing(run_of: RunOf) -> None:
    run = run_of(shipping())
    run.succeeds("pack")
    run.is_cancelled()
    run.is_recalled("paid")
    before = run.state

    said = signal(run, "payment", "k1")

    assert said == []
    assert run.state is before
    assert before.status is RunStatus.COMPENSATING


# Approvals ----------------------------------------------------------------------------------------------------------


def expense() -> WorkflowBuilder:
    return WorkflowBuilder("expense").add_step("book", compensation="unbook").add_approval("manager").add_step("pay")


def test_a_yes_lets_the_run_go_on(run_of: RunOf) -> None:
    run = run_of(expense())
    run.succeeds("book")

    assert signal(run, "manager", "k1", answer="yes") == ["manager received", "pay/do/1"]


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("answer", ["no", "", "maybe"])
def test_S31_all_but_a_clear_yes_turns_the_run_back_whenever_it_comes(run_of: RunOf, answer: str, early: bool) -> None:
    run = run_of(expense())
    said = signal(run, "manager", "k1", answer=answer) if early else []
    said += run.succeeds("book")
    if not early:
        said = signal(run, "manager", "k1", answer=answer)

    assert said[-2:] == ["compensating", "book/undo/1"]
    assert run.state.error is not None
    assert run.state.error.type == "ApprovalRejected"
    assert run.is_undone("book") == ["compensated"]


# Sleeps -------------------------------------------------------------------------------------------------------------


def test_a_sleep_is_over_when_its_time_has_come(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trial").add_sleep("trial", 14 * 86_400).add_step("charge"))

    assert run.first == ["trial/do/1"]
    assert run.succeeds("trial") == ["charge/do/1"]


def test_a_run_that_goes_back_does_not_wait_for_those_who_sleep(run_of: RunOf) -> None:
    run = run_of(WorkflowBuilder("trial").add_step("sign_up", compensation="sign_off").add_sleep("trial", 60))
    run.succeeds("sign_up")

    run.is_cancelled()

    assert run.is_recalled("trial") == ["sign_up/undo/1"]


# Choices ------------------------------------------------------------------------------------------------------------


def checks() -> WorkflowBuilder:
    branches = {"passport": [Step("identity"), Step("photo")], "invoice": "sums", "other": []}
    return (
        WorkflowBuilder("checks")
        .add_step("classify")
        .add_choice("route", lambda ctx: ctx["kind"], branches)
        .add_step("decide")
    )


@pytest.mark.parametrize(
    ("label", "first", "skipped"),
    [
        ("passport", "identity/do/1", {"sums"}),
        ("invoice", "sums/do/1", {"identity", "photo"}),
        ("other", "decide/do/1", {"identity", "photo", "sums"}),
    ],
)
def test_exactly_one_branch_of_a_choice_runs(run_of: RunOf, label: str, first: str, skipped: set[str]) -> None:
    run = run_of(checks(), label=lambda _: label)

    said = run.succeeds("classify")

    assert said == ["route chosen", first]
    assert {name for name, status in run.steps.items() if status == "skipped"} == skipped


def test_what_follows_a_choice_waits_for_the_end_of_the_branch_that_ran(run_of: RunOf) -> None:
    run = run_of(checks(), label=lambda _: "passport")
    run.succeeds("classify")

    assert run.succeeds("identity") == ["photo/do/1"]
    assert run.succeeds("photo") == ["decide/do/1"]
    assert run.succeeds("decide") == ["completed"]


def test_branches_of_a_choice_may_hold_blocks_and_choices(run_of: RunOf) -> None:
    inner = Choice("inner", lambda ctx: "a", {"a": "left", "b": "right"})
    outer = {"a": [Parallel("both", ["one", [inner, "after_inner"]])], "b": "nothing_else"}
    run = run_of(
        WorkflowBuilder("nested").add_choice("outer", lambda ctx: "a", outer).add_step("last"),
        label=lambda _: "a",
    )

    assert run.first == ["outer chosen", "one/do/1", "inner chosen", "left/do/1"]
    assert run.succeeds("one") == []
    assert run.succeeds("left") == ["after_inner/do/1"]
    assert run.succeeds("after_inner") == ["last/do/1"]
    assert run.succeeds("last") == ["completed"]
    assert run.steps["right"] == run.steps["nothing_else"] == "skipped"


def test_only_the_branch_that_ran_is_undone(run_of: RunOf) -> None:
    branches = {"card": Step("charge", compensation="refund"), "cash": Step("collect", compensation="give_back")}
    builder = WorkflowBuilder("pay").add_choice("how", lambda ctx: "card", branches).add_step("ship")
    run = run_of(builder, label=lambda _: "card")
    run.succeeds("charge")

    assert run.fails_for_good("ship") == ["compensating", "charge/undo/1"]
    assert run.is_undone("charge") == ["compensated"]
