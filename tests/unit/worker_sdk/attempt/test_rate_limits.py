"""Limits by key where they hold: in the process that has claimed an attempt, on a real store in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from multiagents import ErrorEvent, Limit, Orchestrator, ResultEvent, WorkflowBuilder
from multiagents.exceptions import StateStoreError, TerminalError
from multiagents.names import Correlation, Direction
from multiagents.state_store.records import Claim, ClaimRefused, Delivery
from multiagents.testing import wait_until
from multiagents.worker_sdk import Worker, WorkerRuntime
from multiagents.worker_sdk.attempt import Invocation

LEASE = 1.0
LIMIT = Limit("bank", concurrency=1)
OTHER = Correlation("another", "pay", Direction.DO, 1)


class Bench:
    """A deployment in memory, whose one worker process is this one."""

    def __init__(self, *, limited: bool = True) -> None:
        app = Celery("slots", broker="memory://", set_as_current=False)
        settings = {"key_prefix": f"t{uuid4().hex[:8]}", "lease": LEASE}
        self.orchestrator = Orchestrator(app, settings)
        self.store = self.orchestrator.store
        self.delivered: list[ResultEvent | ErrorEvent] = []
        self.invocation = Invocation(
            WorkerRuntime(
                store=self.store,
                new_store=self.orchestrator.runtime.new_store,
                settings=self.orchestrator.settings,
                settle=self.settle,
                unclaimable=lambda *_: pytest.fail("a claim that cannot be read"),
                came_late=lambda _event: None,
                limited=limited,
            )
        )

    def settle(self, event: ResultEvent | ErrorEvent, claim: Claim, *, may_go_on: bool) -> Any:
        self.delivered.append(event)
        return self.orchestrator.engine.settle(event, claim, may_go_on=may_go_on)

    def start(self, **step: Any) -> Any:
        self.definition = WorkflowBuilder("slots").add_step("pay", **step).build(register=False)
        return self.orchestrator.start(self.definition, {"customer": 7}, "order-1")

    def run(self, function: Callable[[Any], Any] = lambda _context: {}, limit: Limit | None = LIMIT) -> Any:
        kwargs = {
            "transaction_id": "order-1",
            "step": "pay",
            "direction": "do",
            "attempt": 1,
            "definition": self.definition.content_hash,
            "nonce": self.store.load("order-1").state.nonce,
        }
        worker = Worker("pay", function, limit=limit)
        return self.invocation.run(worker, kwargs, hostname="celery@here", pool="threads")

    def others_may(self, key: str = "bank") -> bool:
        granted = self.store.isolation.take_slot(key, OTHER, concurrency=1).granted
        self.store.isolation.free_slot(key, OTHER)
        return granted

    @property
    def found(self) -> Any:
        return self.store.load("order-1").in_flight.get("pay")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_slot_is_held_while_the_function_runs_and_given_back_with_its_outcome(bench: Bench) -> None:
    run = bench.start()
    seen: list[bool] = []

    bench.run(lambda _context: seen.append(bench.others_may()))

    assert (seen, bench.others_may()) == ([False], True)
    assert run.status == "completed"


def test_a_slot_is_given_back_also_when_the_function_fails(bench: Bench) -> None:
    def fails(_context: Any) -> None:
        raise TerminalError("no")

    bench.start()
    with pytest.raises(TerminalError):
        bench.run(fails)

    assert bench.others_may()


def test_a_slot_is_kept_for_as_long_as_the_lease_of_its_attempt_is(bench: Bench) -> None:
    bench.start()
    seen: list[bool] = []

    def long(_context: Any) -> None:
        until = time.monotonic() + 2 * LEASE
        while time.monotonic() < until:
            seen.append(bench.others_may())
            time.sleep(0.05)

    bench.run(long)

    assert set(seen) == {False}
    assert bench.others_may()


def test_who_is_turned_away_is_sent_out_again_later_and_nothing_is_recorded(bench: Bench) -> None:
    run = bench.start(schedule_to_close=600)
    told = len(run.history())
    bench.store.isolation.take_slot("bank", OTHER, concurrency=1)

    with pytest.raises(ClaimRefused, match=r"its limit 'bank' is reached; it comes again in 1 s"):
        bench.run(lambda _context: pytest.fail("it was called"))

    assert (bench.found.delivery, bench.found.attempt_key) == (Delivery.TIMER, "d1")
    scheduled = bench.store.load("order-1").state.step("pay").do.scheduled_at
    assert scheduled is not None
    assert bench.found.close_ms == scheduled + 600_000
    assert (bench.delivered, len(run.history())) == ([], told)
    assert bench.store.visibility.unattended() == []


def test_a_steps_limit_goes_before_its_workers(bench: Bench) -> None:
    bench.start(limit=Limit("bank:{customer}", concurrency=1))
    bench.store.isolation.take_slot("bank", OTHER, concurrency=1)
    seen: list[bool] = []

    bench.run(lambda _context: seen.append(bench.others_may("bank:7")))

    assert seen == [False]


def test_a_run_that_goes_back_meanwhile_does_not_wait_for_its_turn(bench: Bench, monkeypatch: Any) -> None:
    run = bench.start()
    bench.store.isolation.take_slot("bank", OTHER, concurrency=1)
    take_slot = bench.store.isolation.take_slot

    def cancelled_meanwhile(*args: Any, **options: Any) -> Any:
        run.cancel()
        return take_slot(*args, **options)

    monkeypatch.setattr(bench.store.isolation, "take_slot", cancelled_meanwhile)
    with pytest.raises(TerminalError, match="it was not begun: its limit 'bank' is reached, and the run goes back"):
        bench.run(lambda _context: pytest.fail("it was called"))

    assert run.status == "cancelled"


def test_a_rate_alone_holds_no_slot(bench: Bench) -> None:
    bench.start()

    bench.run(limit=Limit("bank", rate=0.1))

    assert bench.others_may()
    assert not bench.store.isolation.take_slot("bank", OTHER, every_us=10_000_000).granted


def test_a_slot_that_cannot_be_given_back_runs_out_and_does_not_fail_the_step(bench: Bench, monkeypatch: Any) -> None:
    run = bench.start()

    def away(*_args: Any) -> None:
        raise StateStoreError("the store is away")

    monkeypatch.setattr(bench.store.isolation, "free_slot", away)
    bench.run()
    monkeypatch.undo()

    assert run.status == "completed"
    assert not bench.store.isolation.take_slot("bank", OTHER, concurrency=1).granted
    wait_until(bench.others_may, 3, "the slot to run out")


def test_a_slot_that_is_kept_while_it_is_given_back_is_gone(bench: Bench, monkeypatch: Any) -> None:
    bench.start()
    take_slot = bench.store.isolation.take_slot
    renewing, go_on, kept = threading.Event(), threading.Event(), threading.Event()

    def slowly(*args: Any, keep: bool = False, **options: Any) -> Any:
        if keep:
            renewing.set()
            go_on.wait(5)
        answer = take_slot(*args, keep=keep, **options)
        if keep:
            kept.set()
        return answer

    monkeypatch.setattr(bench.store.isolation, "take_slot", slowly)
    bench.run(lambda _context: renewing.wait(5) and None)
    monkeypatch.undo()
    go_on.set()

    assert kept.wait(5)
    wait_until(bench.others_may, 0.5 * LEASE, "the slot to be free again")


def test_where_limits_do_not_hold_nobody_is_asked() -> None:
    bench = Bench(limited=False)
    bench.start()
    bench.store.isolation.take_slot("bank", OTHER, concurrency=1)

    bench.run()

    assert bench.delivered[0].type == "result"
