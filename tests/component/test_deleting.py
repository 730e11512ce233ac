"""Erasing runs that are over, over memory and Redis."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest

from multiagents import Orchestrator, WorkflowBuilder, WorkflowNotEndedError, WorkflowNotFoundError
from multiagents.workflow.state import RunStatus

ORDER = WorkflowBuilder("deleted-order").add_step("reserve", "reserve_stock").build(register=False)


def test_a_run_that_is_over_is_erased_with_all_that_belongs_to_it(
    orchestrator: Orchestrator, end_run: Callable[..., None]
) -> None:
    run = orchestrator.start(ORDER, {"card": "4711"}, "order-1", attributes={"customer": "c-1"})
    other = orchestrator.start(ORDER, {}, "order-2", attributes={"customer": "c-1"})
    end_run("order-1", "compensated")
    for key in ("order-1", "order-1/reserve/do/1", "order-2/reserve/do/1"):
        orchestrator.store.bury(key[:7], key, {"why": "x", "event": {"payload": "4711"}})

    run.delete(reason="asked for", actor="ann")

    with pytest.raises(WorkflowNotFoundError):
        orchestrator.get("order-1")
    assert (run.history(), orchestrator.list().runs) == ([], [other])
    assert orchestrator.list(attributes={"customer": "c-1"}).runs == [other]
    assert list(orchestrator.dead_letters()) == ["order-2/reserve/do/1"]
    assert not [entry for entry in orchestrator.store.take_due()[0] if entry.transaction_id == "order-1"]


def test_who_deleted_what_when_and_why_is_kept(orchestrator: Orchestrator, end_run: Callable[..., None]) -> None:
    started = orchestrator.store.now()
    for number in range(3):
        orchestrator.start(ORDER, {}, f"order-{number}")
        end_run(f"order-{number}", "failed")
        orchestrator.get(f"order-{number}").delete(reason=f"r{number}", actor="ann")

    stones = orchestrator.deleted()

    assert sorted(stone.reason or "" for stone in stones) == ["r0", "r1", "r2"]
    assert [stone.deleted_at for stone in stones] == sorted((s.deleted_at for s in stones), reverse=True)
    assert {(s.workflow, s.status, s.actor) for s in stones} == {("deleted-order", RunStatus.FAILED, "ann")}
    # The store's clock is told by its answers: it may seem some moments behind what it wrote itself.
    about = timedelta(seconds=1)
    assert all(started - about <= s.deleted_at <= orchestrator.store.now() + about for s in stones)
    assert orchestrator.deleted(limit=2) == stones[:2]
    assert orchestrator.deleted(before=started - timedelta(hours=1)) == []


def test_a_run_that_goes_on_is_not_deleted(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(ORDER, {}, "order-1")
    before = run.describe()

    with pytest.raises(
        WorkflowNotEndedError, match=r"'order-1' is running, and delete takes a run that has ended; canc"
    ):
        run.delete()

    assert run.describe() == before
    assert orchestrator.deleted() == []


def test_a_run_is_deleted_once_and_its_id_is_free(orchestrator: Orchestrator, end_run: Callable[..., None]) -> None:
    run = orchestrator.start(ORDER, {"n": 1}, "order-1")
    end_run("order-1")
    gate = Barrier(10)

    def delete(_: int) -> bool:
        gate.wait()
        try:
            run.delete()
        except WorkflowNotFoundError:
            return False
        return True

    with ThreadPoolExecutor(10) as threads:
        assert list(threads.map(delete, range(10))).count(True) == 1

    assert len(orchestrator.deleted()) == 1
    assert orchestrator.start(ORDER, {"n": 2}, "order-1").status is RunStatus.RUNNING
