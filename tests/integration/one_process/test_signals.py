"""What signals say to a run, and what they are told: approvals, keys, what comes too late. No server runs here."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from multiagents import (
    Approval,
    Orchestrator,
    Run,
    Step,
    TerminalError,
    Wait,
    WorkflowBuilder,
    WorkflowFailedError,
    worker,
)
from multiagents.events import ResultEvent
from multiagents.exceptions import WorkflowError


class Lenient(BaseModel):
    """Reads "no" and 0 as a bool, and says yes where nothing is said."""

    approved: bool = True
    limit: int = 5


class Forgetful(BaseModel):
    """Keeps of a decision everything but the decision."""

    limit: int = 5


@worker("told.pay")
def pay(context: dict[str, Any]) -> dict[str, Any]:
    return {"paid": True}


@worker("told.decline")
def decline(context: dict[str, Any]) -> None:
    raise TerminalError("declined")


APPROVED = WorkflowBuilder("told-approved").add_approval("ok").add_step("pay", pay).build()
ASKED_LATER = WorkflowBuilder("told-approved-later").add_wait("ready").add_approval("ok").add_step("pay", pay).build()
LENIENT = WorkflowBuilder("told-lenient").add_approval("ok", schema=Lenient).add_step("pay", pay).build()
FORGETFUL = WorkflowBuilder("told-forgetful").add_approval("ok", schema=Forgetful).add_step("pay", pay).build()
PARENT = WorkflowBuilder("told-parent").add_child("claim", APPROVED).build()

#: What is neither a clear yes nor a clear no.
UNCLEAR = [
    None,
    {},
    True,
    False,
    "yes",
    "no",
    0,
    1,
    [],
    {"aproved": True},
    {"approved": None},
    {"approved": 1},
    {"approved": 0},
    {"approved": "true"},
    {"approved": "no"},
    {"approved": [True]},
    {"ok": {"approved": True}},
]


# Approvals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", [APPROVED, LENIENT, FORGETFUL], ids=lambda workflow: workflow.name)
@pytest.mark.parametrize("said", UNCLEAR, ids=repr)
def test_S31_what_is_neither_yes_nor_no_is_refused_where_it_is_sent_and_the_run_waits_on(
    orchestrator: Orchestrator, workflow: Any, said: Any
) -> None:
    run = orchestrator.start(workflow, {})
    before = len(run.history())

    with pytest.raises(WorkflowError, match="was not given"):
        run.signal("ok", said)

    assert (run.status, len(run.history())) == ("running", before)
    if workflow is not FORGETFUL:
        assert run.signal("ok", {"approved": True}) == "received"
        assert run.result(timeout=1)["paid"] is True


def test_S31_who_gives_an_unclear_answer_is_told_what_was_found_and_what_to_say(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(APPROVED, {})

    with pytest.raises(WorkflowError) as refused:
        run.signal("ok", {"approved": "no", "card": "4111"})

    assert "approved is 'no' in it, of type str" in str(refused.value)
    assert '{"approved": True}' in str(refused.value)
    assert "4111" not in str(refused.value)


def test_S31_a_schema_that_loses_the_answer_lets_nobody_through(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(FORGETFUL, {})

    with pytest.raises(WorkflowError, match="have the schema keep `approved` as it is"):
        run.signal("ok", {"approved": True})

    assert run.status == "running"


def test_S31_a_model_is_as_clear_as_the_dict_of_it(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(LENIENT, {})

    assert run.signal("ok", Lenient(approved=True, limit=7)) == "received"

    assert run.result(timeout=1)["paid"] is True


def test_S31_a_clear_no_turns_the_run_back(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(APPROVED, {})

    run.signal("ok", {"approved": False})

    seen = run.describe()
    assert (seen.status, seen.error and seen.error.type) == ("failed", "ApprovalRejected")


@pytest.mark.parametrize("comes", ["when it is asked for", "before that"])
@pytest.mark.parametrize(
    ("data", "words", "message", "details"),
    [
        ({}, {}, "step 'ok' was not approved", {}),
        ({}, {"actor": "ann"}, "step 'ok' was not approved by ann", {"by": "ann"}),
        (
            {"limit": 7},
            {"actor": "ann", "reason": "too dear"},
            "step 'ok' was not approved by ann: too dear",
            {"by": "ann", "reason": "too dear", "limit": 7},
        ),
        (
            {"by": "bob", "comment": "not now"},
            {},
            "step 'ok' was not approved by bob: not now",
            {"by": "bob", "comment": "not now"},
        ),
        (
            {"by": "bob", "reason": "not now"},
            {"actor": "ann", "reason": "too dear"},
            "step 'ok' was not approved by ann: too dear",
            {"by": "bob", "reason": "not now"},
        ),
        ({"by": 7, "reason": None}, {}, "step 'ok' was not approved", {"by": 7, "reason": None}),
    ],
)
def test_S19_who_refused_and_why_is_in_the_error_the_view_and_the_history(
    orchestrator: Orchestrator,
    comes: str,
    data: dict[str, Any],
    words: dict[str, str],
    message: str,
    details: dict[str, Any],
) -> None:
    run = orchestrator.start(APPROVED if comes == "when it is asked for" else ASKED_LATER, {})

    outcome = run.signal("ok", {"approved": False, **data}, **words)
    if outcome == "kept":
        run.signal("ready")

    told = [(error.message, error.details) for error in errors_of(run, "ok")]
    assert told == [(message, {"approved": False, **details})] * 4


def errors_of(run: Run, step: str) -> list[Any]:
    """The error of a run that was turned back, wherever it is shown."""
    seen = run.describe()
    with pytest.raises(WorkflowFailedError) as failed:
        run.result(timeout=1)
    [event] = [
        event for event in run.history() if event.type == "status" and event.status == "received" and event.error
    ]
    return [seen.error, seen.steps[step].error, failed.value.error, event.error]


def test_what_a_no_says_is_redacted_where_everybody_sees_it(orchestrator: Orchestrator) -> None:
    orchestrator.app.conf.multiagents_redact = ["comment"]
    run = orchestrator.start(APPROVED, {})

    run.signal("ok", {"approved": False, "by": "ann", "comment": "4111"})

    *_, event = errors_of(run, "ok")
    assert event.message == "step 'ok' was not approved by ann: [redacted]"
    assert event.details == {"approved": False, "by": "ann", "comment": "[redacted]"}


def test_a_no_of_any_size_is_an_error_of_a_bounded_one(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(APPROVED, {})

    run.signal("ok", {"approved": False, "by": "ann", "comment": "x" * 5_000, "scan": "y" * 50_000})

    error = run.describe().error
    assert len(error.message) < 600
    assert error.details == {"approved": False, "by": "ann"}


def test_S31_a_child_asks_for_a_clear_yes_too(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(PARENT, {}, transaction_id="p")
    child = orchestrator.get("p:claim")

    with pytest.raises(WorkflowError, match="neither yes nor no"):
        child.signal("ok", {"approved": "maybe"})
    waiting = run.status
    child.signal("ok", {"approved": True})

    assert (waiting, run.status) == ("running", "completed")


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ({"approved": True}, "completed"),
        ({"approved": False}, "failed"),
        ({"approved": "no"}, "running"),
        ({}, "running"),
    ],
    ids=str,
)
def test_S31_what_others_publish_of_an_approval_has_to_be_as_clear(
    orchestrator: Orchestrator, payload: Any, status: str
) -> None:
    run = orchestrator.start(APPROVED, {}, transaction_id="a")

    orchestrator.engine.receive(ResultEvent(transaction_id="a", correlation_id="a/ok/do/1", payload=payload))

    assert run.status == status
    letters = [letter.why for letter in orchestrator.dead_letters().values()]
    assert [("neither yes nor no" in why) for why in letters] == ([True] if status == "running" else [])


def test_S12_S31_behind_the_pivot_a_person_supplies_a_clear_yes_or_nothing(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("told-behind").add_step("pay", pay, pivot=True).add_approval("ok").add_step("ship", pay).build()
    )
    run = orchestrator.start(workflow, {})
    run.signal("ok", {"approved": False})
    assert run.status == "paused"

    with pytest.raises(WorkflowError, match="nothing but a clear yes"):
        run.supply("ok", {"granted": 7})
    run.supply("ok", {"approved": True}, actor="ann")

    assert run.status == "completed"


# Where the data goes ------------------------------------------------------------------------------------------------


@worker("told.total")
def total(context: dict[str, Any]) -> dict[str, Any]:
    return {"charged": context["total"]}


def test_what_a_signal_brings_takes_nothings_place(orchestrator: Orchestrator) -> None:
    workflow = WorkflowBuilder("told-paid").add_wait("paid", signal="payment").add_step("charge", total).build()
    run = orchestrator.start(workflow, {"total": 500})

    run.signal("payment", {"total": 1, "card": "visa"})

    result = run.result(timeout=1)
    assert (result["total"], result["charged"], result["paid"]) == (500, 500, {"total": 1, "card": "visa"})
    assert run.describe().steps["paid"].result == {"total": 1, "card": "visa"}


@pytest.mark.parametrize("element", [Wait("paid", merge=True), Approval("paid", merge=True)], ids=["wait", "approval"])
def test_what_a_signal_brings_is_merged_where_that_is_said(orchestrator: Orchestrator, element: Any) -> None:
    workflow = (
        WorkflowBuilder(f"told-merged-{element.kind}").add_parallel("p", [element]).add_step("charge", total).build()
    )
    run = orchestrator.start(workflow, {"total": 500})

    run.signal("paid", {"total": 1, "approved": True})

    assert run.result(timeout=1)["charged"] == 1


def test_side_by_side_with_workers_and_in_rounds_and_behind_joins_it_lies_under_its_name(
    orchestrator: Orchestrator,
) -> None:
    workflow = (
        WorkflowBuilder("told-everywhere")
        .add_parallel("both", [[Wait("paid")], [Step("sum", total)]])
        .add_loop("asks", [Wait("asked", "ask")], until=lambda ctx: ctx["asked"]["done"], max_iterations=3)
        .add_savepoint("here")
        .add_approval("ok")
        .add_step("charge", total)
        .build()
    )
    run = orchestrator.start(workflow, {"total": 500})

    run.signal("paid", {"total": 1, "charged": 1})
    run.signal("ask", {"done": False, "total": 2})
    run.signal("ask", {"done": True, "total": 3})
    run.signal("ok", {"approved": True, "total": 4})

    result = run.result(timeout=1)
    assert (result["total"], result["charged"], "approved" in result) == (500, 500, False)
    assert [result[name]["total"] for name in ("paid", "asked", "ok")] == [1, 3, 4]
    assert [event.status for event in run.history() if event.type == "status" and event.status == "merged"] == []


def test_what_a_child_was_told_is_in_its_result_under_the_waits_name(orchestrator: Orchestrator) -> None:
    child = WorkflowBuilder("told-child").add_wait("paid").build()
    run = orchestrator.start(
        WorkflowBuilder("told-family").add_child("c", child).build(), {"total": 500}, transaction_id="f"
    )

    orchestrator.get("f:c").signal("paid", {"total": 1})

    result = run.result(timeout=1)
    assert (result["total"], result["paid"]) == (500, {"total": 1})


# Keys ---------------------------------------------------------------------------------------------------------------

TWO = WorkflowBuilder("told-two").add_wait("a").add_wait("b").build()


def test_a_key_counts_for_each_name_by_itself(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(TWO, {})

    outcomes = [run.signal(name, {"n": name}, key="7") for name in ("b", "a", "a", "b")]

    assert outcomes == ["kept", "received", "repeated", "repeated"]
    assert run.result(timeout=1) == {"a": {"n": "a"}, "b": {"n": "b"}}


def test_the_same_key_with_other_data_is_an_error_and_changes_nothing(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(TWO, {})
    run.signal("a", {"amount": 5, "of": ["x"]}, key="7")
    before = run.history()

    with pytest.raises(WorkflowError, match="has signal \"a\" with key '7' already, and with other data"):
        run.signal("a", {"amount": 6, "of": ["x"]}, key="7")
    again = run.signal("a", {"of": ("x",), "amount": 5}, key="7")

    assert (again, run.history()) == ("repeated", before)


# What comes too late -------------------------------------------------------------------------------------------------


def last(run: Any) -> tuple[Any, Any, Any]:
    event = run.history()[-1]
    return event.late, event.payload.get("data"), event.actor


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_S23_who_decides_what_is_decided_is_told_so_and_it_is_on_record(
    orchestrator: Orchestrator, first: bool, second: bool
) -> None:
    workflow = WorkflowBuilder("told-once").add_approval("ok").add_wait("more").build()
    run = orchestrator.start(workflow, {})
    run.signal("ok", {"approved": first}, actor="ann")
    status = run.status

    outcome = run.signal("ok", {"approved": second, "why": "fraud"}, actor="bob")

    assert (outcome, run.status) == ("already_decided", status)
    said = "step ok was approved before" if first else "step ok was not approved before"
    assert last(run) == (said, {"approved": second, "why": "fraud"}, "bob")


def test_S15_S31_a_second_yes_does_not_approve_the_next_pass(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("told-passes")
        .add_savepoint("here")
        .add_approval("ok")
        .add_wait("go")
        .add_step("try", decline)
        .build()
    )
    run = orchestrator.start(workflow, {})
    run.signal("ok", {"approved": True})

    second = run.signal("ok", {"approved": True})
    run.signal("go")

    assert second == "already_decided"
    assert (run.status, run.describe().steps["ok#2"].status) == ("running", "scheduled")
    assert run.signal("ok", {"approved": True}) == "received"


def test_a_signal_for_a_wait_that_may_come_again_is_kept_for_it(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("told-again")
        .add_savepoint("here")
        .add_wait("go")
        .add_wait("on")
        .add_step("try", decline, when=lambda ctx: ctx["here"]["attempt"] == 1)
        .build()
    )
    run = orchestrator.start(workflow, {})
    outcomes = [run.signal("go", {"n": 1}), run.signal("go", {"n": 2}), run.signal("on"), run.signal("on")]

    assert outcomes == ["received", "kept", "received", "received"]
    assert (run.status, run.describe().steps["go#2"].result) == ("completed", {"n": 2})


def test_S23_a_signal_that_no_step_waits_for_any_more_says_so_and_why(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(TWO, {})
    run.signal("a", {"n": 1})

    outcomes = [run.signal("a", {"n": 2}, actor="bank")]
    on_the_way = last(run)
    run.signal("b")
    outcomes += [run.signal("b", {"n": 3})]

    assert outcomes == ["late", "late"]
    assert on_the_way == ("step a waits for it no more", {"n": 2}, "bank")
    assert last(run)[:2] == ("the run is completed", {"n": 3})
    assert run.describe().context == {"a": {"n": 1}}


def test_S23_what_came_late_is_redacted_in_the_history(orchestrator: Orchestrator) -> None:
    orchestrator.app.conf.multiagents_redact = ["card*"]
    run = orchestrator.start(TWO, {})
    run.cancel()

    run.signal("a", {"card_number": "4111", "amount": 5})

    assert last(run)[:2] == ("the run is cancelled", {"card_number": "[redacted]", "amount": 5})
    assert "4111" not in repr(run.history())


def test_S23_a_cancel_after_the_end_says_that_it_came_late(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(APPROVED, {})
    run.signal("ok", {"approved": True})

    run.cancel(actor="bob")

    event = run.history()[-1]
    assert (event.late, run.status) == ("the run is completed", "completed")


def test_S23_a_result_that_comes_late_is_in_the_history_with_what_it_carried_and_why(
    orchestrator: Orchestrator,
) -> None:
    workflow = WorkflowBuilder("told-external").add_step("pay", external=True).add_wait("more").build()
    run = orchestrator.start(workflow, {}, transaction_id="x")

    for charge in ("ch-1", "ch-1", "ch-2"):
        orchestrator.engine.receive(
            ResultEvent(transaction_id="x", correlation_id="x/pay/do/1", payload={"charge": charge}, late="so they say")
        )

    counted, again, other = [event for event in run.history() if event.type == "result"]
    assert (counted.late, counted.payload) == (None, None)
    assert (again.late, again.payload) == ("the step had succeeded already; the run is running", None)
    assert (other.late, other.payload) == (again.late, {"charge": "ch-2"})
    assert run.describe().steps["pay"].result == {"charge": "ch-1"}
