"""Calls of tools are undone as steps are (rule S36), from the agent to the undo, in one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from multiagents import (
    Orchestrator,
    OutcomeUnknownError,
    RetryPolicy,
    Step,
    TerminalError,
    WorkflowBuilder,
    current_step,
    current_tool,
    dspy_worker,
    tool,
    worker,
)
from multiagents.events import StatusEvent
from multiagents.testing.lm_stub import LMStub, react_agent
from multiagents.workflow.decider import fold
from tests.support.one_process import one_process

pytest.importorskip("dspy")

#: What was called and undone: (tool or worker, context, key), and of an undo what it was told.
SEEN: list[tuple[Any, ...]] = []
ONCE = RetryPolicy(max_attempts=1)
TOLD: dict[str, Any] = {}


@worker("cancel_it")
def cancel_booking(context: dict[str, Any]) -> None:
    step = current_step()
    SEEN.append(("cancel", step.step, context, step.idempotency_key))
    TOLD[step.step] = (step.result, step.outcome, step.error and step.error.type)


@worker("unplan_it")
def unplan(context: dict[str, Any]) -> None:
    SEEN.append(("unplan", current_step().step))


def _book(what: str, city: str) -> dict[str, str]:
    SEEN.append(("book", what, city, current_tool().idempotency_key))
    return {"booking": f"{what} to {city}"}


@tool("flight", compensation=cancel_booking)
def flight(city: str) -> dict[str, str]:
    """Book a flight."""
    return _book("flight", city)


@tool("hotel", compensation="cancel_it")
async def hotel(city: str) -> dict[str, str]:
    """Book a hotel."""
    return _book("hotel", city)


@tool("car", compensation=cancel_booking)
def car(city: str) -> str:
    """Fail, one way or the other."""
    raise {"Oslo": OutcomeUnknownError("no answer")}.get(city, LookupError("no car"))


@tool("taxi", compensation=cancel_booking, timeout=0.2)
async def taxi(city: str) -> str:
    """Take too long."""
    import asyncio

    await asyncio.sleep(5)
    return city


@dspy_worker(
    "plan_it",
    signature="wish -> answer: str",
    reasoning="react",
    tools=[flight, hotel, car, taxi],
    max_iters=9,
    retry=ONCE,
)
def plan_trip(context: dict[str, Any]) -> None:
    if context.get("breaks"):
        raise TerminalError("the plan is no good")


@worker("decline_it")
def decline(context: dict[str, Any]) -> None:
    raise TerminalError("no money")


@pytest.fixture
def stub() -> Iterator[LMStub]:
    with LMStub() as made:
        yield made


@pytest.fixture
def orchestrator(stub: LMStub) -> Iterator[Orchestrator]:
    SEEN.clear()
    TOLD.clear()
    lm = {"model": "openai/gpt-stub", "api_base": stub.openai_base, "api_key": "x"}
    with one_process(multiagents_lm=lm) as made:
        yield made


def booked(stub: LMStub, *calls: tuple[str, str], wish: str = "") -> None:
    stub.when(wish).reply(react_agent(*((name, {"city": city}) for name, city in calls), answer="Done."))


def folds(orchestrator: Orchestrator, run: Any) -> bool:
    snapshot = orchestrator.store.load(run.transaction_id)
    return fold(snapshot.definition, run.transaction_id, run.history()) == snapshot.state


TRIP = (
    WorkflowBuilder("trip")
    .add_step("plan", plan_trip, compensation=unplan)
    .add_step("pay", decline, retry=ONCE)
    .build(register=False)
)
PLAN = WorkflowBuilder("plan-only").add_step("plan", plan_trip).build(register=False)


def test_S36_calls_are_undone_newest_first_before_their_step(orchestrator: Orchestrator, stub: LMStub) -> None:
    booked(stub, ("flight", "Rome"), ("hotel", "Rome"), ("flight", "Oslo"))
    run = orchestrator.start(TRIP, {"wish": "Go!"}, transaction_id="T-1")

    assert run.status == "compensated"
    assert SEEN == [
        ("book", "flight", "Rome", "T-1/plan.flight[0]"),
        ("book", "hotel", "Rome", "T-1/plan.hotel[0]"),
        ("book", "flight", "Oslo", "T-1/plan.flight[1]"),
        ("cancel", "plan.flight[1]", {"city": "Oslo"}, "T-1/plan.flight[1]"),
        ("cancel", "plan.hotel[0]", {"city": "Rome"}, "T-1/plan.hotel[0]"),
        ("cancel", "plan.flight[0]", {"city": "Rome"}, "T-1/plan.flight[0]"),
        ("unplan", "plan"),
    ]
    assert TOLD["plan.hotel[0]"] == ({"booking": "hotel to Rome"}, "succeeded", "multiagents.exceptions.TerminalError")
    assert folds(orchestrator, run)


def test_S28_what_was_called_is_shown_among_the_steps(orchestrator: Orchestrator, stub: LMStub) -> None:
    booked(stub, ("flight", "Rome"), ("car", "Rome"))
    shown = orchestrator.start(PLAN, {"wish": "Go!"}).describe()

    assert list(shown.steps) == ["plan", "plan.flight[0]", "plan.car[0]"]
    assert shown.steps["plan.flight[0]"].status == "succeeded"
    assert shown.steps["plan.flight[0]"].result == {"booking": "flight to Rome"}
    assert shown.steps["plan.car[0]"].error is not None
    assert shown.steps["plan.car[0]"].error.message == "no car"
    assert shown.effects == {"plan": "live", "plan.flight[0]": "live"}


def test_S36_a_completed_run_that_is_taken_back_takes_its_calls_back(orchestrator: Orchestrator, stub: LMStub) -> None:
    booked(stub, ("flight", "Rome"))
    run = orchestrator.start(PLAN, {"wish": "Go!"})
    assert run.status == "completed"

    run.compensate(reason="changed my mind")
    assert run.status == "compensated"
    assert [seen[:2] for seen in SEEN] == [("book", "flight"), ("cancel", "plan.flight[0]")]


def test_S36_calls_of_an_agent_whose_function_fails_are_undone(orchestrator: Orchestrator, stub: LMStub) -> None:
    booked(stub, ("flight", "Rome"))
    run = orchestrator.start(PLAN, {"wish": "Go!", "breaks": True})

    assert run.status == "compensated"
    assert SEEN[-1][:2] == ("cancel", "plan.flight[0]")
    assert folds(orchestrator, run)


def test_S3_what_a_tool_raised_is_not_undone_and_what_it_does_not_know_is(
    orchestrator: Orchestrator, stub: LMStub
) -> None:
    booked(stub, ("car", "Rome"), ("car", "Oslo"), ("taxi", "Rome"))
    run = orchestrator.start(PLAN, {"wish": "Go!", "breaks": True})

    assert run.status == "compensated"
    assert [seen[1] for seen in SEEN] == ["plan.taxi[0]", "plan.car[1]"]
    assert TOLD["plan.car[1]"] == (None, "unknown", "multiagents.exceptions.TerminalError")
    assert folds(orchestrator, run)


def test_S9_each_item_of_a_map_has_calls_of_its_own(orchestrator: Orchestrator, stub: LMStub) -> None:
    booked(stub, ("flight", "Rome"), wish="first")
    booked(stub, ("flight", "Oslo"), wish="second")
    trips = WorkflowBuilder("trips").add_map("plan", Step("plan", plan_trip), over="wishes")
    run = orchestrator.start(
        trips.add_step("pay", decline, retry=ONCE).build(register=False),
        {"wishes": [{"wish": "first"}, {"wish": "second"}]},
    )

    assert run.status == "compensated"
    cancelled = {seen[1]: seen[2] for seen in SEEN if seen[0] == "cancel"}
    assert cancelled == {"plan[0].flight[0]": {"city": "Rome"}, "plan[1].flight[0]": {"city": "Oslo"}}
    assert folds(orchestrator, run)


def test_S9_each_round_of_a_loop_has_calls_of_its_own(orchestrator: Orchestrator, stub: LMStub) -> None:
    booked(stub, ("flight", "Rome"))
    loop = WorkflowBuilder("rounds").add_loop("plan", plan_trip, until=lambda _context: False, max_iterations=2)
    run = orchestrator.start(loop.add_step("pay", decline, retry=ONCE).build(), {"wish": "Go!"}, transaction_id="L-1")
    assert run.status == "compensated"
    assert [seen[1] for seen in SEEN if seen[0] == "cancel"] == ["plan#2.flight[0]", "plan#1.flight[0]"]
    assert len({seen[3] for seen in SEEN}) == 2


def test_S11_a_child_undoes_its_own_calls(orchestrator: Orchestrator, stub: LMStub) -> None:
    booked(stub, ("flight", "Rome"))
    parent = WorkflowBuilder("parent").add_child("trip", PLAN).add_step("pay", decline, retry=ONCE)
    run = orchestrator.start(parent.build(register=False), {"wish": "Go!"})

    assert run.status == "compensated"
    assert [seen[1] for seen in SEEN] == ["flight", "plan.flight[0]"]


def test_an_undo_that_waits_for_a_person_is_named_and_settled_by_the_call(
    orchestrator: Orchestrator, stub: LMStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    booked(stub, ("flight", "Rome"), ("hotel", "Rome"))
    flow = (
        WorkflowBuilder("parked")
        .add_step("plan", plan_trip, compensation=unplan, undo_retry=ONCE)
        .build(register=False)
    )
    monkeypatch.setattr(cancel_booking.worker, "fn", decline.fn)
    run = orchestrator.start(flow, {"wish": "Go!", "breaks": True}, transaction_id="P-1")

    assert run.status == "compensation_failed"
    letters = {letter["step"]: letter for letter in orchestrator.dead_letters().values()}
    assert set(letters) == {"plan.flight[0]", "plan.hotel[0]"}
    assert letters["plan.flight[0]"]["input"] == {"city": "Rome"}
    assert letters["plan.flight[0]"]["result"] == {"booking": "flight to Rome"}
    assert letters["plan.flight[0]"]["compensation"] == "cancel_it"
    assert letters["plan.flight[0]"]["idempotency_key"] == "P-1/plan.flight[0]"
    run.skip("plan.hotel[0]", reason="it was free")
    monkeypatch.undo()
    run.retry("plan.flight[0]")
    assert run.status == "compensated_partially"
    assert run.describe().effects["plan.flight[0]"] == "undone"


def test_S22_a_fork_takes_calls_over_as_its_own(orchestrator: Orchestrator, stub: LMStub) -> None:
    booked(stub, ("flight", "Rome"), ("car", "Oslo"))
    flow = WorkflowBuilder("forked").add_step("plan", plan_trip).add_step("pay", "maybe_it", retry=ONCE)
    fails = [False]

    @worker("maybe_it")
    def maybe(context: dict[str, Any]) -> None:
        if fails[0]:
            raise TerminalError("no money")

    run = orchestrator.start(flow.build(register=False), {"wish": "Go!"}, transaction_id="F-1")
    assert run.status == "completed"
    fails[0] = True
    fork = run.fork("pay")

    assert fork.status == "compensated"
    cancelled = [(seen[1], seen[3]) for seen in SEEN if seen[0] == "cancel"]
    assert cancelled == [("plan.car[0]", "F-1/plan.car[0]"), ("plan.flight[0]", "F-1/plan.flight[0]")]
    assert TOLD["plan.flight[0]"][:2] == ({"booking": "flight to Rome"}, "succeeded")
    assert TOLD["plan.car[0]"][:2] == (None, "unknown")
    assert folds(orchestrator, fork)


def test_a_step_that_is_called_as_the_calls_of_a_tool_would_be_is_told_before_anything_is_booked(
    orchestrator: Orchestrator, stub: LMStub
) -> None:
    booked(stub, ("flight", "Rome"))
    flow = WorkflowBuilder("named").add_step("plan", plan_trip).add_map("plan.flight", "maybe_it", over="cities")
    run = orchestrator.start(flow.build(register=False), {"wish": "Go!", "cities": []})

    assert run.status == "failed"
    assert 'the workflow has a step "plan.flight"; rename one' in str(run.describe().error)
    assert SEEN == []


def test_the_history_says_when_it_was_called_and_what_undoes_it(orchestrator: Orchestrator, stub: LMStub) -> None:
    booked(stub, ("flight", "Rome"))
    run = orchestrator.start(PLAN, {"wish": "Go!"}, transaction_id="H-1")

    told = [event for event in run.history() if event.step == "plan.flight[0]"]
    assert [event.type for event in told] == ["status", "result"]
    begun = told[0]
    assert isinstance(begun, StatusEvent)
    assert (begun.status, begun.compensation, begun.correlation_id) == ("called", "cancel_it", "H-1/plan/do/1")
