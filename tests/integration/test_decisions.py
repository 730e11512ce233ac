"""Decisions that a worker would hide by what it does next: the engine and a real store, no workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import app_rules
import pytest

from multiagents import ErrorEvent, ErrorInfo, ResultEvent, Step, WorkflowBuilder
from multiagents.events import ErrorKind
from multiagents.names import Correlation, Direction
from multiagents.state_store.base import Claim
from multiagents.workflow.decider import fold
from multiagents.workflow.registry import definitions


@pytest.fixture
def orchestrator(new_redis_url: Callable[[], str]) -> Any:
    """An orchestrator in this process, whose messages nobody takes."""
    return app_rules.make_app(new_redis_url(), **app_rules.SETTINGS).multiagents


def claimed(orchestrator: Any, run: Any, attempt: int) -> Claim:
    """Claim an attempt of step a, as a worker would."""
    correlation = Correlation(run.transaction_id, "a", Direction.DO, attempt)
    definition = orchestrator.store.load(run.transaction_id).state.definition_hash
    claim: Claim = orchestrator.store.claim(correlation, definition, owner=f"w{attempt}", worker="here", timeout=30)
    return claim


def answer(event: type, claim: Claim, **facts: Any) -> Any:
    """What came of a claimed attempt."""
    correlation = claim.correlation
    return event(
        transaction_id=correlation.transaction_id,
        correlation_id=str(correlation),
        step=correlation.step,
        attempt=correlation.attempt,
        **facts,
    )


def test_S5_a_late_success_never_sends_a_step_whose_when_nobody_has_asked(orchestrator: Any) -> None:
    # Given: attempt 1 counts as lost; attempt 2 succeeded where b's `when` is not loaded, so a decision is owed.
    workflow = (
        WorkflowBuilder("late_ask")
        .add_step("a", "play")
        .add_step("b", "play", when=lambda ctx: ctx["wanted"])
        .build(register=False)
    )
    run = orchestrator.start(workflow, {"wanted": False})
    engine, store = orchestrator.engine, orchestrator.store
    first = claimed(orchestrator, run, 1)
    lost = answer(ErrorEvent, first, kind=ErrorKind.LOST, error=ErrorInfo(type="WorkerLost", message="killed"))
    engine.give_up(lost, store.load(run.transaction_id).in_flight["a"].record)
    second = claimed(orchestrator, run, 2)
    engine.settle(answer(ResultEvent, second, payload={"n": 2}), second)

    # When: the worker of attempt 1 turns out to be alive, and has succeeded.
    engine.settle(answer(ResultEvent, first, payload={"n": 1}), first)

    # Then: it is recorded, and the run waits for a process that can ask; which skips the step.
    waiting = store.load(run.transaction_id)
    assert (waiting.state.step("a").late, waiting.state.step("b").do.attempt) == ((1,), 0)
    assert store.unattended() == []
    definitions.register(workflow)
    assert engine.advance(run.transaction_id)
    ended = store.load(run.transaction_id).state
    assert (ended.status, ended.step("b").status) == ("completed", "skipped")
    assert fold(workflow, run.transaction_id, run.history()) == ended
    assert run.describe().context == {"wanted": False, "n": 2}


@pytest.mark.parametrize("undoable", [True, False], ids=["undoable", "not undoable"])
def test_S7_a_step_that_its_own_decision_takes_back_is_never_sent(orchestrator: Any, undoable: bool) -> None:
    # Given: in one decision a step is due, and the `when` of a step beside it raises.
    branches = [
        [Step("maybe", "play", when=lambda ctx: False), Step("broken", "play", when=lambda ctx: ctx["no such key"])],
        Step("book", "play", compensation="undo" if undoable else None, cancel_safe=True),
    ]
    workflow = WorkflowBuilder("taken_back").add_parallel("both", branches, "cancel").build(register=False)

    run = orchestrator.start(workflow)

    # Nobody had it, so nothing is in doubt, and nothing is left for a worker to take.
    snapshot = orchestrator.store.load(run.transaction_id)
    assert (snapshot.state.status, snapshot.state.step("book").status) == ("failed", "not_started")
    assert snapshot.in_flight == {}
    assert orchestrator.store.client.keys("celery*") == []
    assert fold(workflow, run.transaction_id, run.history()) == snapshot.state


@pytest.mark.parametrize("join", [True, False], ids=["a step behind them", "the end of the run"])
def test_G4_branches_that_one_decision_skips_all_land_on_their_join(orchestrator: Any, join: bool) -> None:
    # Given: two of three branches are skipped when the run starts, so that the third is the last to land.
    branches = [Step("b", "play", when=lambda ctx: False), Step("c", "play", when=lambda ctx: False), Step("a", "play")]
    builder = WorkflowBuilder("skipped_at_once").add_parallel("both", branches)
    workflow = (builder.add_step("joined", "play") if join else builder).build(register=False)
    run = orchestrator.start(workflow)

    last = claimed(orchestrator, run, 1)
    orchestrator.engine.settle(answer(ResultEvent, last), last)

    # Nothing but this landing would ever wake the run: it waits for nobody.
    ended = orchestrator.store.load(run.transaction_id)
    assert orchestrator.store.unattended() == []
    assert (ended.state.status, set(ended.in_flight)) == (("running", {"joined"}) if join else ("completed", set()))
