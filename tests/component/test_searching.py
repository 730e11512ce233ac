"""Setting what runs are found by, and finding them, over memory and Redis."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from multiagents import (
    Orchestrator,
    ResultEvent,
    RetryPolicy,
    TerminalError,
    WorkflowBuilder,
    WorkflowNotFoundError,
    current_step,
    init_app,
    worker,
)
from multiagents.exceptions import WorkflowError
from multiagents.workflow.decider import fold
from tests.support.letters import letter_about

ORDER = WorkflowBuilder("searched-order").add_step("reserve", "reserve_stock").build(register=False)
FOREIGN = WorkflowBuilder("searched-foreign").add_step("ask", external=True).add_step("then", "x").build(register=False)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@worker("searched.charge", retry=RetryPolicy(max_attempts=2, initial_interval=0.01))
def charge(context: dict[str, Any]) -> dict[str, Any]:
    step = current_step()
    step.set_attributes({"customer": "c-1", "amount": 5, "attempt": step.attempt})
    step.set_attributes({"amount": 12.5, "due": NOON})
    if step.attempt < context.get("succeeds_at", 1):
        step.set_attributes({"failed": "yes"})
        raise ValueError("not yet")
    return {}


@worker("searched.refuse")
def refuse(context: dict[str, Any]) -> None:
    raise TerminalError("no")


@worker("searched.refund")
def refund(context: dict[str, Any]) -> None:
    current_step().set_attributes({"refunded": "yes", "customer": None})


CHARGE = WorkflowBuilder("searched-charge").add_step("charge", charge).build(register=False)
BACK = (
    WorkflowBuilder("searched-back")
    .add_step("charge", charge, compensation=refund)
    .add_step("ship", refuse)
    .build(register=False)
)


def ids(page: Any) -> list[str]:
    return [run.transaction_id for run in page]


def everything(orchestrator: Orchestrator, **filters: Any) -> list[str]:
    page = orchestrator.list(**filters)
    names = ids(page)
    while page.cursor is not None:
        page = orchestrator.list(**filters, cursor=page.cursor)
        names += ids(page)
    return names


def test_a_run_is_found_by_what_it_was_started_with(orchestrator: Orchestrator, end_run: Callable[..., None]) -> None:
    for number in range(4):
        given = {"customer": f"c-{number % 2}", "amount": number, "due": NOON + timedelta(days=number)}
        orchestrator.start(ORDER, {}, f"order-{number}", attributes=given)
    end_run("order-2")

    assert orchestrator.get("order-3").describe().attributes == given
    assert set(everything(orchestrator, attributes={"customer": "c-0"})) == {"order-0", "order-2"}
    assert everything(orchestrator, attributes={"customer": "c-0"}, status="completed") == ["order-2"]
    assert everything(orchestrator, workflow=ORDER, attributes={"amount": (1, 2)}, limit=1) == ["order-2", "order-1"]
    assert everything(orchestrator, attributes={"due": (NOON, NOON + timedelta(hours=1))}) == ["order-0"]
    assert everything(orchestrator, workflow="none", attributes={"amount": 1}) == []
    assert everything(orchestrator, since=datetime.now(UTC) + timedelta(hours=1), attributes={"amount": 1}) == []
    assert orchestrator.count(attributes={"customer": "c-1"}) == 2
    assert orchestrator.count(ORDER, "running", attributes={"amount": (None, 2)}) == 2
    assert orchestrator.count(status=["running", "completed"]) == 4


def test_attributes_are_set_from_outside_with_a_fact_in_the_history(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(ORDER, {}, "order-1", attributes={"customer": "c-1", "basket": "b"})
    before = run.history()

    for _ in range(2):  # repeated, it changes nothing
        run.set_attributes({"customer": "c-2", "amount": 7, "basket": None}, reason="typo", actor="ann")

    [fact] = run.history()[len(before) :]
    assert (fact.status, fact.reason, fact.actor) == ("attributes_set", "typo", "ann")
    assert fact.payload == {"customer": "c-2", "amount": 7, "basket": None}
    assert run.describe().attributes == {"customer": "c-2", "amount": 7}
    assert everything(orchestrator, attributes={"customer": "c-2"}) == ["order-1"]
    assert fold(ORDER, "order-1", run.history()) == orchestrator.store.load("order-1").state


def test_a_run_that_is_over_can_still_be_tagged(orchestrator: Orchestrator, end_run: Callable[..., None]) -> None:
    run = orchestrator.start(ORDER, {}, "order-1")
    end_run("order-1")

    run.set_attributes({"checked": "yes"})

    assert everything(orchestrator, attributes={"checked": "yes"}, status="completed") == ["order-1"]


def test_too_many_attributes_or_a_run_that_is_not_there_are_refused(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(ORDER, {}, "order-1", attributes={f"a{n}": n for n in range(32)})

    with pytest.raises(WorkflowError, match="run 'order-1' would have 33 attributes; expected 32 at most"):
        run.set_attributes({"more": 1})
    run.set_attributes({"more": 1, "a0": None})
    with pytest.raises(WorkflowNotFoundError):
        type(run)(orchestrator, "order-2").set_attributes({"a": 1})
    with pytest.raises(WorkflowError, match="attribute 'a' is bool"):
        orchestrator.start(ORDER, {}, "order-2", attributes={"a": True})
    with pytest.raises(WorkflowError, match=r"there is no status 'runing'; did you mean \"running\""):
        orchestrator.list(status="runing", attributes={"a": 1})


def test_whoever_answers_from_outside_sets_attributes_too(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(FOREIGN, {}, "order-1")
    said = {"transaction_id": "order-1", "correlation_id": "order-1/ask/do/1", "step": "ask", "attempt": 1}

    orchestrator.engine.receive(ResultEvent(**said, attributes={"a": [1]}))
    assert "attribute 'a' is list" in letter_about(orchestrator, "order-1/ask/do/1")["why"]
    orchestrator.engine.receive(ResultEvent(**said, attributes={"a": "1"}))
    orchestrator.engine.receive(ResultEvent(**said, attributes={"a": "late"}))

    assert run.describe().attributes == {"a": "1"}


@pytest.fixture(params=["inline", "queued"])
def eager(request: pytest.FixtureRequest) -> Orchestrator:
    app = Celery("searching", set_as_current=False, task_always_eager=True)
    app.set_current()
    return init_app(app, {"key_prefix": f"t{uuid4().hex[:8]}", "orchestration": request.param})


def test_a_step_sets_attributes_with_its_outcome(eager: Orchestrator) -> None:
    run = eager.start(CHARGE, {}, attributes={"customer": "nobody", "amount": 1})

    assert run.status == "completed"
    assert run.describe().attributes == {"customer": "c-1", "amount": 12.5, "due": NOON, "attempt": 1}
    assert ids(eager.list(attributes={"amount": (12, 13), "due": NOON})) == [run.transaction_id]
    assert ids(eager.list(attributes={"amount": 1})) == []


def test_a_failed_attempt_and_an_undo_set_attributes_too(eager: Orchestrator) -> None:
    retried = eager.start(CHARGE, {"succeeds_at": 2})
    undone = eager.start(BACK, {})

    assert retried.describe().attributes["failed"] == "yes"
    assert retried.describe().attributes["attempt"] == 2
    assert undone.status == "compensated"
    assert undone.describe().attributes == {"amount": 12.5, "due": NOON, "attempt": 1, "refunded": "yes"}


def test_a_step_is_told_at_once_of_what_cannot_be_an_attribute(eager: Orchestrator) -> None:
    seen: list[str] = []

    @worker("searched.wrong")
    def wrong(context: dict[str, Any]) -> None:
        for given in ({"a": [1]}, {f"a{n}": n for n in range(33)}):
            with pytest.raises(WorkflowError) as caught:
                current_step().set_attributes(given)
            seen.append(str(caught.value))

    run = eager.start(WorkflowBuilder("searched-wrong").add_step("w", wrong).build(register=False))

    assert run.status == "completed"
    assert run.describe().attributes == {}
    assert "is list [1]" in seen[0]
    assert "33 attributes" in seen[1]
