"""What a person has to look at: errors with details, steps that are parked, and the list of all that waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest

from multiagents import (
    NeedsAttentionError,
    Orchestrator,
    RetryPolicy,
    Step,
    TerminalError,
    Wait,
    WorkflowBuilder,
    WorkflowFailedError,
    current_step,
    worker,
)
from multiagents.exceptions import DefinitionError
from multiagents.workflow.builder import Child
from multiagents.workflow.definition import Definition

#: Step -> the error that it raises.
raises: dict[str, BaseException] = {}
told: list[Any] = []


@worker("attention.do", retry=RetryPolicy(max_attempts=2, initial_interval=0))
def do(context: dict[str, Any]) -> dict[str, Any]:
    error = raises.get(current_step().step)
    if error is not None:
        raise error
    return {"did": current_step().step}


@worker("attention.undo", retry=RetryPolicy(max_attempts=1))
def undo(context: dict[str, Any]) -> None:
    error = current_step().error
    told.append(None if error is None else error.details)
    for which in ("undo", f"undo {current_step().step}"):
        if which in raises:
            raise raises[which]


@pytest.fixture
def orchestrator(in_each_mode: Orchestrator) -> Orchestrator:
    raises.clear()
    told.clear()
    return in_each_mode


def order(name: str = "attention-order", **options: Any) -> Definition:
    builder = WorkflowBuilder(name).add_step("reserve", do, compensation=undo)
    return builder.add_step("charge", do, compensation=undo, **options).add_step("ship", do).build(register=False)


# What a worker says of its failure, as data -------------------------------------------------------------------------

DECLINED = {"code": "no_funds", "limits": [5, 7]}


def test_S19_the_details_of_an_error_are_in_history_view_error_and_undo(orchestrator: Orchestrator) -> None:
    raises["charge"] = TerminalError("declined", details=DECLINED)
    run = orchestrator.start(order(), {})

    seen = run.describe()
    with pytest.raises(WorkflowFailedError) as failed:
        run.result(timeout=1)

    assert seen.error is not None
    assert seen.steps["charge"].error is not None
    [event] = [event for event in run.history() if event.type == "error"]
    shown = [seen.error.details, seen.steps["charge"].error.details, event.error.details, failed.value.error.details]
    assert (shown, told) == ([DECLINED] * 4, [DECLINED])
    assert seen.error.message == "declined"


def test_details_are_redacted_where_the_history_shows_them(orchestrator: Orchestrator) -> None:
    orchestrator.app.conf.multiagents_redact = ["card*"]
    raises["charge"] = TerminalError("declined", details={"card_number": "4111", "code": 5})
    run = orchestrator.start(order(), {})

    [event] = [event for event in run.history() if event.type == "error"]

    assert event.error.details == {"card_number": "[redacted]", "code": 5}


@pytest.mark.parametrize("details", [object(), float("nan"), "x" * 20_000, {1: {2}}, lambda: 1])
def test_details_that_cannot_be_kept_never_cost_the_error(orchestrator: Orchestrator, details: Any) -> None:
    raises["charge"] = TerminalError("declined", details=details)

    seen = orchestrator.start(order(), {}).describe()

    assert seen.error is not None
    assert (seen.status, seen.error.message) == ("compensated", "declined")


class Declined(TerminalError):
    """An error of users, who do as they like."""

    def __init__(self, code: int) -> None:
        self.code = code


def test_an_error_that_never_heard_of_details_is_told_as_before(orchestrator: Orchestrator) -> None:
    raises["charge"] = Declined(5)

    seen = orchestrator.start(order(), {}).describe()

    assert (seen.status, seen.error and seen.error.details) == ("compensated", None)


# Steps that wait for a person ----------------------------------------------------------------------------------------


def parked(orchestrator: Orchestrator, how: str) -> Any:
    """A run that waits for a person, as its worker or its definition says."""
    raises["charge"] = NeedsAttentionError("account blocked") if how == "worker" else ValueError("no")
    options = {} if how == "worker" else {"on_failure": "park"}
    run = orchestrator.start(order(f"attention-{how}", **options), {})
    seen = run.describe()
    assert (seen.status, seen.effects, told) == ("paused", {"reserve": "live"}, [])
    assert seen.steps["charge"].status == "failed"
    assert seen.steps["charge"].attempts == (1 if how == "worker" else 2)
    raises.clear()
    return run


@pytest.mark.parametrize("how", ["worker", "definition"])
@pytest.mark.parametrize(
    ("verb", "arguments", "status", "charge"),
    [
        ("retry", {"step": "charge"}, "completed", "succeeded"),
        ("skip", {"step": "charge", "reason": "free of charge"}, "completed", "skipped"),
        ("supply", {"step": "charge", "result": {"by": "hand"}}, "completed", "succeeded"),
        ("cancel", {}, "cancelled", "failed"),
        ("terminate", {}, "terminated", "failed"),
    ],
)
def test_a_step_that_needs_attention_waits_for_what_a_person_says(
    orchestrator: Orchestrator, how: str, verb: str, arguments: dict[str, Any], status: str, charge: str
) -> None:
    run = parked(orchestrator, how)

    getattr(run, verb)(**arguments, actor="ann")

    seen = run.describe()
    assert (seen.status, seen.steps["charge"].status) == (status, charge)
    assert seen.steps["reserve"].status == ("compensated" if verb == "cancel" else "succeeded")


@pytest.mark.parametrize("how", ["worker", "definition"])
def test_why_a_run_waits_is_in_its_history_and_in_what_its_step_waits_for(orchestrator: Orchestrator, how: str) -> None:
    run = parked(orchestrator, how)

    [paused] = [event for event in run.history() if getattr(event, "status", "") == "paused"]

    said = "account blocked" if how == "worker" else "no"
    assert paused.reason == f"step charge needs somebody's attention: {said}"
    assert [each.kind for each in run.describe().steps["charge"].waiting_for] == ["operator"]


def test_a_parked_step_that_fails_again_is_parked_again(orchestrator: Orchestrator) -> None:
    run = parked(orchestrator, "worker")
    raises["charge"] = NeedsAttentionError("still blocked")
    run.retry("charge")
    again = run.status
    raises["charge"] = TerminalError("closed")

    run.retry("charge")

    assert (again, run.status) == ("paused", "compensated")


def test_S17_an_undo_that_needs_attention_is_parked_as_one_that_failed(orchestrator: Orchestrator) -> None:
    raises.update({"ship": TerminalError("no"), "undo": NeedsAttentionError("the bank is closed")})
    run = orchestrator.start(order(), {})
    assert run.status == "compensation_failed"

    raises.clear()
    run.retry()

    assert run.status == "compensated"


def test_what_needs_attention_in_a_run_that_goes_back_does_not_hold_it_up(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("attention-beside")
        .add_step("reserve", do, compensation=undo)
        .add_parallel("both", [Step("a", do, on_failure="park"), "attention.do"])
        .build(register=False)
    )
    raises.update({"a": ValueError("no"), "attention.do": TerminalError("no")})

    run = orchestrator.start(workflow, {})

    assert (run.status, run.describe().steps["a"].status) == ("compensated", "failed")


def test_S11_a_child_that_failed_waits_for_a_person_who_has_it_done_again(orchestrator: Orchestrator) -> None:
    child = WorkflowBuilder("attention-child").add_step("charge", do, compensation=undo).add_step("x", do).build()
    parent = (
        WorkflowBuilder("attention-parent")
        .add_parallel("p", [Child("pay", child, on_failure="park")])
        .add_step("ship", do)
        .build(register=False)
    )
    raises["x"] = TerminalError("no")
    run = orchestrator.start(parent, {}, transaction_id="o")
    assert (run.status, orchestrator.get("o:pay").status) == ("paused", "compensated")

    raises.clear()
    run.retry("pay")

    assert (run.status, orchestrator.get("o:pay").status) == ("completed", "completed")


@pytest.mark.parametrize("on_failure", ["continue", "parks", None])
def test_what_a_failure_means_is_fail_or_park(on_failure: Any) -> None:
    with pytest.raises(DefinitionError, match='expected "fail" or "park"'):
        order(on_failure=on_failure)


# All that waits ------------------------------------------------------------------------------------------------------


def test_all_that_waits_for_somebody_is_listed_in_children_too(orchestrator: Orchestrator) -> None:
    claim = WorkflowBuilder("attention-claim").add_approval("ok").build()
    family = (
        WorkflowBuilder("attention-family")
        .add_parallel("p", [[Wait("paid", signal="payment")], [Child("claim", claim)], [Step("charge", do)]])
        .build(register=False)
    )
    began = datetime.now(UTC) - timedelta(seconds=5)
    orchestrator.start(family, {}, transaction_id="f")
    orchestrator.start(claim, {}, transaction_id="alone")
    orchestrator.start(WorkflowBuilder("attention-done").add_step("a", do).build(), {})
    raises["charge"] = NeedsAttentionError("account blocked")
    orchestrator.start(order("attention-parked"), {}, transaction_id="parked")

    def found(**asked: Any) -> set[tuple[str, str, str]]:
        return {(each.run.transaction_id, each.step, each.kind) for each in orchestrator.waiting(**asked)}

    payment = ("f", "paid", "signal")
    childs, alone = ("f:claim", "ok", "approval"), ("alone", "ok", "approval")
    operator = ("parked", "charge", "operator")
    assert found() == {payment, childs, alone, operator}
    assert found(workflow="attention-family") == {payment, childs}
    assert found(workflow=claim, signal="ok") == {childs, alone}
    assert found(signal="payment") == {payment}
    assert found(since=began) == {payment, childs, alone}
    assert found(since=datetime.now(UTC) + timedelta(hours=1)) == set()
    assert len(orchestrator.waiting(limit=2)) == 2

    for each in orchestrator.waiting(signal="ok"):
        each.run.signal("ok", {"approved": True})
    assert found(signal="ok") == set()


def test_what_waits_is_said_in_words_the_longest_first(orchestrator: Orchestrator) -> None:
    claim = WorkflowBuilder("attention-words").add_approval("ok").build()
    for name in ("first", "second"):
        orchestrator.start(claim, {}, transaction_id=name)

    waits = orchestrator.waiting()

    assert sorted(map(str, waits)) == [f'{n} step ok waits for approval "ok"' for n in ("first", "second")]
    assert [each.since for each in waits] == sorted(each.since for each in waits if each.since)
    assert {each.workflow for each in waits} == {"attention-words"}


# ... wherever it stands ----------------------------------------------------------------------------------------------

#: A workflow whose step "charge" is in question.
CLAIM = (
    WorkflowBuilder("attention-place")
    .add_step("reserve", do, compensation=undo)
    .add_step("charge", do, compensation=undo)
    .build()
)
MIDDLE = WorkflowBuilder("attention-middle").add_child("inner", CLAIM).build()
ASKS = WorkflowBuilder("attention-asks").add_approval("charge").build()
ASKS_BELOW = WorkflowBuilder("attention-asks-below").add_child("inner", ASKS).build()

#: Where a step may stand -> how it gets there, the run and the step that wait then.
PLACES: dict[str, tuple[Callable[[WorkflowBuilder], Any], str, str]] = {
    "a step": (lambda flow: flow.add_step("charge", do, compensation=undo), "t", "charge"),
    "a branch": (
        lambda flow: flow.add_parallel("p", [Step("charge", do, compensation=undo), Step("other", do)]),
        "t",
        "charge",
    ),
    "a round": (
        lambda flow: flow.add_loop(
            "l", [Step("charge", do, compensation=undo)], until=lambda _: True, max_iterations=2
        ),
        "t",
        "charge#1",
    ),
    "a map's item": (lambda flow: flow.add_map("each", do, over="items", compensation=undo), "t", "each[1]"),
    "a child": (lambda flow: flow.add_child("pay", CLAIM), "t:pay", "charge"),
    "a child's child": (lambda flow: flow.add_child("pay", MIDDLE), "t:pay:inner", "charge"),
    "a map's item that is a run": (lambda flow: flow.add_map("each", CLAIM, over="one"), "t:each:0", "charge"),
    "a child among branches": (lambda flow: flow.add_parallel("p", [Child("pay", CLAIM), "other"]), "t:pay", "charge"),
}
INPUT = {"items": [1, 2, 3], "one": [1]}


@cache
def placed(where: str) -> tuple[Definition, str, str]:
    build, run, step = PLACES[where]
    flow = WorkflowBuilder(f"attention-at-{where.replace(' ', '-').replace(chr(39), '')}")
    return build(flow).add_step("last", do).build(), run, step


worker("other")(lambda context: None)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("verb", ["retry", "skip", "supply"])
def test_a_step_that_needs_attention_is_listed_and_settled_wherever_it_stands(
    orchestrator: Orchestrator, where: str, verb: str
) -> None:
    workflow, run, step = placed(where)
    raises[step] = NeedsAttentionError("account blocked")
    top = orchestrator.start(workflow, INPUT, transaction_id="t")

    [wait] = orchestrator.waiting()
    assert (wait.run.transaction_id, wait.step, wait.kind) == (run, step, "operator")
    assert (wait.run.status, top.status in ("running", "paused")) == ("paused", True)
    raises.clear()
    settle(wait, verb)

    assert (top.status, orchestrator.get(run).status) == ("completed", "completed")
    assert orchestrator.waiting() == []


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize(
    ("verb", "ends"), [("retry", "compensated"), ("skip", "compensated_partially"), ("supply", "compensated")]
)
def test_S17_an_undo_that_needs_attention_is_listed_and_settled_wherever_it_stands(
    orchestrator: Orchestrator, where: str, verb: str, ends: str
) -> None:
    workflow, run, step = placed(where)
    raises.update({"last": TerminalError("no"), f"undo {step}": NeedsAttentionError("the bank is closed")})
    top = orchestrator.start(workflow, INPUT, transaction_id="t")
    assert top.status == "compensation_failed"

    [wait] = [each for each in orchestrator.waiting() if each.run.transaction_id == run]
    assert (wait.step, wait.kind, wait.run.status) == (step, "operator", "compensation_failed")
    raises.clear()
    settle(wait, verb)

    assert (top.status, orchestrator.get(run).status) == (ends, ends)
    assert orchestrator.waiting() == []


def settle(wait: Any, verb: str) -> None:
    """Do what a person does, to the very thing that was listed."""
    options: dict[str, Any] = {"skip": {"reason": "by hand"}, "supply": {"result": {"by": "hand"}}}.get(verb, {})
    getattr(wait.run, verb)(wait.step, **options, actor="ann")


#: Where an approval may stand: under a child, a child's child, a map's item.
ASKED: dict[str, tuple[Callable[[WorkflowBuilder], Any], str]] = {
    "a step": (lambda flow: flow.add_approval("charge"), "t"),
    "a child": (lambda flow: flow.add_child("pay", ASKS), "t:pay"),
    "a child's child": (lambda flow: flow.add_child("pay", ASKS_BELOW), "t:pay:inner"),
    "a map's item": (lambda flow: flow.add_map("each", ASKS, over="one"), "t:each:0"),
}


@pytest.mark.parametrize("where", ASKED)
@pytest.mark.parametrize("says", [True, False])
def test_S31_an_approval_is_listed_and_answered_wherever_it_stands(
    orchestrator: Orchestrator, where: str, says: bool
) -> None:
    build, run = ASKED[where]
    workflow = build(WorkflowBuilder(f"attention-asked-{len(where)}").add_step("reserve", do, compensation=undo))
    top = orchestrator.start(workflow.build(register=False), INPUT, transaction_id="t")

    [wait] = orchestrator.waiting()
    assert (wait.run.transaction_id, wait.step, wait.kind, wait.signal) == (run, "charge", "approval", "charge")
    wait.run.signal(wait.signal, {"approved": says, "comment": "too dear"}, actor="ann")

    seen = top.describe()
    assert (seen.status, orchestrator.waiting()) == ("completed" if says else "compensated", [])
    assert says or "was not approved by ann: too dear" in seen.error.message
