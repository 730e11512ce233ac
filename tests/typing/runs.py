"""Starting runs, finding them, and what a `Run` can be asked and told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from celery import Celery

from multiagents import (
    BulkResult,
    Definition,
    OnConflict,
    Orchestrator,
    Run,
    RunStatus,
    Schedule,
    Settings,
    SignalOutcome,
    StepStatus,
    StreamEntry,
    WorkflowState,
    init_app,
)
from multiagents.events import Event

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def an_orchestrator(app: Celery) -> None:
    assert_type(init_app(app), Orchestrator)
    assert_type(init_app(app, {"lease": 5.0}), Orchestrator)
    assert_type(init_app(app, Settings()), Orchestrator)


def starting(orchestrator: Orchestrator, order: Definition) -> None:
    assert_type(orchestrator.start(order), Run)
    assert_type(orchestrator.start("order", {"total": 5}, "order-1", attributes={"customer": "c-1"}), Run)
    orchestrator.start("order", input={}, transaction_id="order-1", on_conflict="replace_ended")
    orchestrator.start("order", idempotency_key="basket 7", on_conflict=OnConflict.FAIL)

    orchestrator.start()  # type: ignore[call-arg]
    orchestrator.start(7)  # type: ignore[arg-type]
    orchestrator.start("order", [1, 2])  # type: ignore[arg-type]
    orchestrator.start("order", transaction_id=7)  # type: ignore[arg-type]
    orchestrator.start("order", attributes=["customer"])  # type: ignore[arg-type]
    orchestrator.start("order", priority=3)  # type: ignore[call-arg]


def finding(orchestrator: Orchestrator, order: Definition) -> None:
    page = orchestrator.list(order, "failed", NOW, 10, attributes={"amount": (10, None)})
    for run in page:
        assert_type(run, Run)
    assert_type(page.cursor, str | None)
    assert_type(orchestrator.get("order-1"), Run)
    assert_type(orchestrator.count("order", ["failed", RunStatus.COMPENSATED]), int)
    assert_type(orchestrator.bulk("cancel", order, dry_run=True, reason="a test"), BulkResult)
    assert_type(orchestrator.schedule("nightly", order, "30 2 * * *", {"day": 1}, catch_up=True), Schedule)

    orchestrator.list(limit="10")  # type: ignore[arg-type]
    orchestrator.list(since="today")  # type: ignore[arg-type]
    orchestrator.bulk()  # type: ignore[call-arg]
    orchestrator.get(7)  # type: ignore[arg-type]


async def asking(run: Run) -> None:
    assert_type(run.transaction_id, str)
    assert_type(run.status, RunStatus)
    assert_type(run.result(timeout=timedelta(seconds=30)), dict[str, Any])
    assert_type(await run.wait(30), dict[str, Any])
    assert_type(run.history(), list[Event])
    for event in run.watch():
        assert_type(event, Event)
    async for event in run.watch(after="3", poll=0.5):
        assert_type(event, Event)
    for entry in run.stream("charge", after="1764532000000000-0000000042"):
        assert_type(entry, StreamEntry)
    async for entry in run.stream():
        assert_type(entry.offset, str)
    assert_type(run.stream().offset, str | None)
    seen = run.describe()
    assert_type(seen, WorkflowState)
    assert_type(seen.status, RunStatus)
    assert_type(seen.steps["charge"].status, StepStatus)

    run.result("30 s")  # type: ignore[arg-type]
    run.status()  # type: ignore[operator]
    run.status = RunStatus.FAILED  # type: ignore[misc]


def telling(run: Run) -> None:
    assert_type(run.cancel(reason="changed my mind", actor="ann"), RunStatus)
    assert_type(run.signal("payment", {"amount": 5}, key="webhook-1", actor="bank"), SignalOutcome)
    assert_type(run.pause(timers="stop"), RunStatus)
    assert_type(run.resume(), RunStatus)
    assert_type(run.terminate(), RunStatus)
    assert_type(run.compensate(), RunStatus)
    assert_type(run.retry("charge"), RunStatus)
    assert_type(run.skip("charge", "paid in cash"), RunStatus)
    assert_type(run.supply("charge", {"receipt": 7}, reason="paid in cash"), RunStatus)
    assert_type(run.abandon("charge", "the bank is closed"), RunStatus)
    assert_type(run.update_timer("approval", timedelta(hours=1)), datetime)
    assert_type(run.update_deadline(at=NOW), datetime)
    assert_type(run.fork("charge", {"card": "4711"}, transaction_id="order-2"), Run)
    run.set_attributes({"customer": "c-1", "since": NOW})
    run.delete(reason="asked for")

    run.pause(timers="halt")  # type: ignore[arg-type]
    run.signal()  # type: ignore[call-arg]
    run.skip("charge")  # type: ignore[call-arg]
    run.update_timer("approval", "an hour")  # type: ignore[arg-type]
    run.update_deadline(at="tomorrow")  # type: ignore[arg-type]
    run.fork()  # type: ignore[call-arg]


def learning(run: Run) -> None:
    assert_type(run.feedback(1), list[str])
    run.feedback(0.5, "too long", "answer", actor="ann")

    run.feedback("good")  # type: ignore[arg-type]
    run.feedback(1, "too long", "answer", "ann")  # type: ignore[call-arg]
