"""Rules S20, S23 and G3 for what no worker does: waits, approvals, sleeps, choices and loops, on real workers."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from multiagents import StatusEvent, WorkflowBuilder
from multiagents.exceptions import UnknownSignalError, WorkflowError
from multiagents.testing import wait_until
from tests.support.apps import scripted
from tests.support.scenario import Scenario, events

PAID = (
    WorkflowBuilder("paid")
    .add_step("pack", "play", compensation="undo")
    .add_wait("paid", signal="payment")
    .add_step("ship", "play")
    .build()
)

APPROVED = WorkflowBuilder("approved").add_approval("manager").add_step("pay", "play").build()


def waits(rules: Scenario, run: Any, step: str) -> None:
    wait_until(lambda: step in rules.store.load(run.transaction_id).in_flight, 20, f"{step} to wait")


# Signals ------------------------------------------------------------------------------------------------------------


def test_a_signal_during_the_wait_becomes_the_steps_result(rules: Scenario) -> None:
    run = rules.start(PAID)
    waits(rules, run, "paid")

    outcome = run.signal("payment", {"amount": 12}, actor="bank")

    seen = rules.end(run)
    assert outcome == "received"
    assert (seen.status, seen.context["paid"], seen.steps["paid"].result) == (
        "completed",
        {"amount": 12},
        {"amount": 12},
    )
    assert [event.actor for event in events(run, StatusEvent) if event.status == "signalled"] == ["bank"]


def test_a_signal_before_the_wait_is_kept_for_it(rules: Scenario) -> None:
    run = rules.start(PAID, pack=["wait"])
    rules.until_begun(run, "pack")

    outcome = run.signal("payment", {"amount": 12})
    rules.open_gate(run, "pack")

    assert outcome == "kept"
    assert rules.end(run).context["paid"]["amount"] == 12


def test_S23_a_signal_after_the_end_is_on_record_and_changes_nothing(rules: Scenario) -> None:
    run = rules.start(PAID)
    run.signal("payment", {"amount": 12})
    rules.end(run)

    outcome = run.signal("payment", {"amount": 13}, reason="paid twice")

    assert outcome == "late"
    assert run.describe().context["paid"]["amount"] == 12
    assert run.history()[-1].reason == "paid twice"


def test_G3_a_signal_with_a_key_counts_once_however_many_give_it_at_once(rules: Scenario) -> None:
    twice = WorkflowBuilder("twice").add_wait("one", "go").add_wait("two", "go").build(register=False)
    run = rules.start(twice)
    outcomes: list[str] = []

    threads = [
        threading.Thread(target=lambda: outcomes.append(run.signal("go", {"n": 1}, key="webhook-7"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["received", *["repeated"] * 7]
    assert run.status == "running"
    run.signal("go", {"n": 2})
    assert rules.end(run).steps["two"].result == {"n": 2}


def test_a_wait_without_its_signal_fails_in_time_and_the_run_is_undone(rules: Scenario) -> None:
    workflow = (
        WorkflowBuilder("impatient")
        .add_step("pack", "play", compensation="undo")
        .add_wait("paid", timeout=0.6)
        .build(register=False)
    )

    seen = rules.play(workflow)

    assert (seen.status, seen.error.type) == ("compensated", "WaitTimeout")
    assert seen.steps["paid"].status == "failed"


def test_a_wait_may_go_on_without_its_signal(rules: Scenario) -> None:
    workflow = (
        WorkflowBuilder("patient")
        .add_wait("paid", timeout=0.5, on_timeout="continue")
        .add_step("ship", "play")
        .build(register=False)
    )

    assert rules.play(workflow).status == "completed"


def test_S20_a_cancel_does_not_wait_for_a_signal(rules: Scenario) -> None:
    run = rules.start(PAID)
    waits(rules, run, "paid")

    run.cancel(reason="changed my mind")

    seen = rules.end(run)
    assert (seen.status, seen.steps["pack"].status) == ("cancelled", "compensated")
    assert run.signal("payment") == "late"


def test_a_signal_that_nobody_waits_for_is_an_error_that_names_the_nearest(rules: Scenario) -> None:
    run = rules.start(PAID)

    with pytest.raises(UnknownSignalError, match='did you mean "payment"'):
        run.signal("payments")

    run.signal("payment")
    rules.end(run)


# Approvals ----------------------------------------------------------------------------------------------------------


def test_an_approval_lets_the_run_go_on_with_what_was_decided(rules: Scenario) -> None:
    run = rules.start(scripted.expense)
    waits(rules, run, "manager")

    with pytest.raises(WorkflowError, match=r"approved: Field required"):
        run.signal("manager", {"limit": 7})
    run.signal("manager", {"approved": True, "limit": 7}, actor="ann")

    assert rules.end(run).steps["pay"].result == {"pay_saw": {"limit": 7}}


def test_S31_an_unclear_answer_is_refused_and_can_be_given_again(rules: Scenario) -> None:
    run = rules.start(APPROVED)
    waits(rules, run, "manager")

    for said in (None, {}, {"approved": "yes"}, {"aproved": True}):
        with pytest.raises(WorkflowError, match="neither yes nor no"):
            run.signal("manager", said)
    assert rules.began(run, "pay") == []
    run.signal("manager", {"approved": True}, actor="ann")

    assert rules.end(run).status == "completed"


def test_a_no_undoes_the_run_and_says_so(rules: Scenario) -> None:
    run = rules.start(scripted.expense)

    run.signal("manager", {"approved": False}, actor="ann", reason="too much")

    seen = rules.end(run)
    assert (seen.status, seen.error.type) == ("compensated", "ApprovalRejected")
    decided = [(event.actor, event.reason) for event in events(run, StatusEvent) if event.status == "signalled"]
    assert decided == [("ann", "too much")]


def test_nobody_decided_counts_as_a_no(rules: Scenario) -> None:
    workflow = WorkflowBuilder("undecided").add_approval("manager", timeout=0.5).build(register=False)

    assert rules.play(workflow).error.type == "ApprovalRejected"


# Sleeps -------------------------------------------------------------------------------------------------------------


def test_a_sleep_is_never_too_short_and_needs_no_worker(rules: Scenario) -> None:
    began = time.monotonic()

    seen = rules.play(scripted.napping, {"nap": 0.8})

    assert seen.status == "completed"
    assert time.monotonic() - began >= 0.8
    assert rules.began(rules.runs[seen.transaction_id], "nap") == []


def test_a_cancel_wakes_who_sleeps_for_months(rules: Scenario) -> None:
    run = rules.start(scripted.napping, {"nap": 90 * 86_400})
    waits(rules, run, "nap")

    run.cancel()

    assert rules.end(run).status == "cancelled"


def test_a_sleep_of_no_length_is_a_failure_that_names_it(rules: Scenario) -> None:
    seen = rules.play(scripted.napping, {"nap": -1})

    assert seen.status == "failed"
    assert "seconds= of step 'nap'" in seen.error.message


# Choices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "ran"),
    [("card", ["first", "charge", "receipt", "last"]), ("cash", ["first", "play", "last"]), ("?", ["first", "last"])],
)
def test_exactly_one_branch_runs_and_the_others_show_as_skipped(rules: Scenario, kind: str, ran: list[str]) -> None:
    seen = rules.play(scripted.routed, {"kind": kind})

    assert seen.status == "completed"
    assert rules.began(rules.runs[seen.transaction_id]) == ran
    assert seen.context["route"] == (kind if kind != "?" else "gift")
    skipped = {name for name, step in seen.steps.items() if step.status == "skipped"}
    assert skipped == {"charge", "receipt", "play"} - set(ran)


def test_the_branch_that_ran_is_undone_and_no_other(rules: Scenario) -> None:
    seen = rules.play(scripted.routed, {"kind": "card"}, last=["terminal"])

    assert (seen.status, seen.steps["charge"].status) == ("compensated", "compensated")


def test_a_chooser_that_raises_fails_its_step_and_is_named(rules: Scenario) -> None:
    seen = rules.play(scripted.routed, {})

    assert seen.status == "failed"
    assert "chooser= of step 'route' raised KeyError" in seen.error.message


# Loops --------------------------------------------------------------------------------------------------------------


def test_S25_a_loop_runs_until_its_condition_holds_and_each_round_has_its_own_key(rules: Scenario) -> None:
    run = rules.start(scripted.looping, **{"review#1": [{"good": 1}], "review#2": [{"good": 2}]})

    seen = rules.end(run)

    assert seen.status == "completed"
    assert (seen.context["write.until"], seen.steps["review#3"].status) == ("done", "skipped")
    played = rules.journal(run)
    assert [entry["step"] for entry in played] == ["first", "draft#1", "review#1", "draft#2", "review#2", "last"]
    assert len({entry["key"] for entry in played}) == len(played)


def test_S9_a_loop_that_never_ends_fails_by_name_and_its_rounds_are_undone_newest_first(rules: Scenario) -> None:
    run = rules.start(scripted.looping, **{f"review#{number}": [{"good": 1}] for number in (1, 2, 3)})

    seen = rules.end(run)

    assert seen.status == "compensated"
    assert seen.steps["write.until#3"].status == "failed"
    assert "not done after 3 rounds" in seen.steps["write.until#3"].error.message
    undone = [entry["step"] for entry in rules.journal(run) if entry["direction"] == "undo"]
    assert undone == ["draft#3", "draft#2", "draft#1"]
