"""The lock of a run that is over: the same on every store (rule S29)."""

from __future__ import annotations

from typing import Any

from multiagents import Orchestrator, WorkflowBuilder
from multiagents.state_store.records import Due, DueKind

HOLDING = WorkflowBuilder("holding").add_lock("alone", "sku:{sku}").add_wait("go").build(register=False)


def looked_after(orchestrator: Orchestrator, key: str = "sku:7") -> Any:
    orchestrator.engine.locks.look_after(Due(DueKind.LOCK, key, "", "", DueKind.LOCK.entry(key), 0))
    return orchestrator.store.isolation.lock_of(key)


def test_S29_the_lock_of_a_run_that_goes_on_stays(orchestrator: Orchestrator) -> None:
    orchestrator.start(HOLDING, {"sku": 7}, "order-1")

    assert looked_after(orchestrator).holder == orchestrator.store.load("order-1").state.identity


def test_S29_the_lock_of_a_run_that_is_over_or_gone_is_removed(orchestrator: Orchestrator, end_run: Any) -> None:
    run = orchestrator.start(HOLDING, {"sku": 7}, "order-1")
    end_run("order-1")

    assert looked_after(orchestrator) is None

    orchestrator.start(HOLDING, {"sku": 8}, "order-2")
    end_run("order-2")
    orchestrator.get("order-2").delete(reason="asked for")
    assert looked_after(orchestrator, "sku:8") is None
    assert run.status == "completed"


def test_S29_a_run_that_replaces_another_does_not_have_its_lock(orchestrator: Orchestrator, end_run: Any) -> None:
    orchestrator.start(HOLDING, {"sku": 7}, "order-1")
    before = orchestrator.store.isolation.lock_of("sku:7")
    first = orchestrator.store.load("order-1").state.identity
    end_run("order-1")

    orchestrator.start(HOLDING, {"sku": 7}, "order-1", on_conflict="replace_ended")

    now = orchestrator.store.isolation.lock_of("sku:7")
    assert (before.holder, now.holder) == (first, orchestrator.store.load("order-1").state.identity)
    assert before.holder != now.holder
    assert now.token > before.token


def test_nothing_is_left_of_a_lock_that_nobody_holds(orchestrator: Orchestrator) -> None:
    assert looked_after(orchestrator) is None
