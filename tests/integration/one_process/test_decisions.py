"""Decisions that a worker would hide by what it does next: the engine and a real store, no workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from multiagents import ErrorEvent, ErrorInfo, ResultEvent, RetryPolicy, Step, WorkflowBuilder
from multiagents.events import ErrorKind
from multiagents.exceptions import WorkflowNotFoundError
from multiagents.names import Direction
from multiagents.orchestrator.engine.children import Children
from multiagents.state_store.records import Claim, Delivery
from multiagents.testing import wait_until
from multiagents.workflow.decider import fold
from multiagents.workflow.definition import Definition, definitions
from tests.support.apps import scripted


@pytest.fixture
def orchestrator(new_redis_url: Callable[[], str]) -> Any:
    """An orchestrator in this process, whose messages nobody takes."""
    return scripted.make_app(new_redis_url(), **{**scripted.SETTINGS, "lease": 1.0}).multiagents


def claimed(orchestrator: Any, run: Any, attempt: int) -> Claim:
    """Claim an attempt of step a, as a worker would."""
    state = orchestrator.store.load(run.transaction_id).state
    correlation = state.correlation("a", Direction.DO, attempt)
    claim: Claim = orchestrator.store.claim(
        correlation, state.definition_hash, owner=f"w{attempt}", worker="here", timeout=30
    )
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
    assert store.visibility.unattended() == []
    definitions.register(workflow)
    assert engine.advance(run.transaction_id)
    ended = store.load(run.transaction_id).state
    assert (ended.status, ended.step("b").status) == ("completed", "skipped")
    assert fold(workflow, run.transaction_id, run.history()) == ended
    assert run.describe().context == {"wanted": False, "n": 2}


def test_S3_S5_a_probes_answer_that_was_published_too_late_tells_of_the_step_and_is_no_result_of_it(
    orchestrator: Any,
) -> None:
    # Given: nobody knows of the step, its first probe is given up, and the second one is in flight.
    workflow = (
        WorkflowBuilder("late_probe")
        .add_step("a", "play", compensation="undo", on_unknown="resolve", resolve_with="probe")
        .build(register=False)
    )
    run = orchestrator.start(workflow)
    engine, store = orchestrator.engine, orchestrator.store
    error = ErrorInfo(type="NoAnswer", message="no answer")
    done = claimed(orchestrator, run, 1)
    engine.settle(answer(ErrorEvent, done, kind=ErrorKind.UNKNOWN, error=error), done)
    asked = claimed(orchestrator, run, 2)
    assert asked.probing
    engine.give_up(
        answer(ErrorEvent, asked, kind=ErrorKind.LOST, error=error),
        store.load(run.transaction_id).in_flight["a"].record,
    )

    # When: a foreign producer says of the first probe that the step did not take effect, and then that it did.
    engine.receive(answer(ResultEvent, asked, payload={"outcome": "failed"}))
    nothing = store.load(run.transaction_id).state.step("a").late
    engine.receive(answer(ResultEvent, asked, payload={"outcome": "succeeded", "result": {"id": "ch_1"}}))

    # Then: the one changes nothing; the other is a late success, with the result of the step.
    assert (nothing, store.load(run.transaction_id).state.step("a").late) == ((), (2,))
    assert store.payloads(run.transaction_id).results["a"] == {"id": "ch_1"}
    assert fold(workflow, run.transaction_id, run.history()) == store.load(run.transaction_id).state


def test_S3_of_an_attempt_whose_probe_is_sent_instead_nothing_is_left_over(orchestrator: Any) -> None:
    # Given: an attempt of unknown outcome is to be made again in a while.
    policy = RetryPolicy(initial_interval=60, max_attempts=3)
    workflow = (
        WorkflowBuilder("recalled_to_probe")
        .add_step("a", "play", retry=policy, on_unknown="resolve", resolve_with="probe")
        .build(register=False)
    )
    run = orchestrator.start(workflow)
    first = claimed(orchestrator, run, 1)
    error = ErrorInfo(type="TimeLimitExceeded", message="too long")
    orchestrator.engine.settle(answer(ErrorEvent, first, kind=ErrorKind.TIMEOUT, error=error), first)

    # When: the run is cancelled, which takes that attempt back and asks the probe.
    run.cancel()

    # Then: it is the probe alone that is in flight and looked after.
    store = orchestrator.store
    assert [(entry.attempt_key, entry.delivery) for entry in store.load(run.transaction_id).in_flight.values()] == [
        ("d3", Delivery.PUSH)
    ]
    due = store.client.zrange(orchestrator.keys.of_partition(0).due, 0, -1)
    assert [member for member in due if run.transaction_id in str(member)] == []
    assert store.visibility.unattended() == []
    asked = claimed(orchestrator, run, 3)
    assert (asked.probing, asked.state.step("a").do.error.message) == (True, "too long")


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
    assert orchestrator.store.visibility.unattended() == []
    assert (ended.state.status, set(ended.in_flight)) == (("running", {"joined"}) if join else ("completed", set()))


# Code that is elsewhere (rule S26) ------------------------------------------------------------------------------------


def test_S26_what_needs_no_code_is_not_held_up_by_what_does(orchestrator: Any) -> None:
    # Given: after a step, one branch begins with code that is not loaded here, and the other does not.
    coded, plain = Step("coded", "play", when=lambda ctx: ctx["wanted"]), Step("plain", "play")
    workflow = (
        WorkflowBuilder("half_elsewhere")
        .add_step("a", "play")
        .add_parallel("both", [coded, plain])
        .add_step("b", "play")
        .build(register=False)
    )
    run = orchestrator.start(workflow, {"wanted": False})
    engine, store = orchestrator.engine, orchestrator.store

    done = claimed(orchestrator, run, 1)
    engine.settle(answer(ResultEvent, done), done)

    # Then: the other one is on its way, and the decision that is left is looked after and is made where the code is.
    assert set(store.load(run.transaction_id).in_flight) == {"plain"}
    assert not engine.advance(run.transaction_id)
    assert store.visibility.unattended() == []
    definitions.register(workflow)
    assert engine.advance(run.transaction_id)
    ended = store.load(run.transaction_id).state
    assert (ended.step("coded").status, ended.step("plain").status) == ("skipped", "scheduled")
    assert fold(workflow, run.transaction_id, run.history()) == ended


def test_S26_a_run_begins_as_far_as_its_starter_has_the_code(orchestrator: Any) -> None:
    steps = [Step("coded", "play", when=lambda ctx: ctx["wanted"]), Step("plain", "play")]
    workflow = WorkflowBuilder("begun_in_part").add_parallel("both", steps).build(register=False)

    run = orchestrator.start(Definition.from_json(workflow.to_json()), {"wanted": True})

    assert set(orchestrator.store.load(run.transaction_id).in_flight) == {"plain"}
    assert orchestrator.store.visibility.unattended() == []


def test_G3_S26_a_signal_is_taken_though_the_code_behind_its_wait_is_elsewhere(orchestrator: Any) -> None:
    workflow = (
        WorkflowBuilder("signalled_elsewhere")
        .add_wait("paid", timeout=0.2)
        .add_step("coded", "play", when=lambda ctx: ctx["wanted"])
        .build(register=False)
    )
    run = orchestrator.start(workflow)

    outcome = run.signal("paid", {"wanted": True})

    # The wait is over, so its time limit cannot turn the run back any more.
    assert (outcome, run.describe().steps["paid"].status) == ("received", "succeeded")


def waiting_for_code(orchestrator: Any, name: str) -> Any:
    """A run whose first step is due where its code is not."""
    builder = WorkflowBuilder(name).add_step("coded", "play", when=lambda ctx: ctx["wanted"], schedule_to_start=0.1)
    return orchestrator.start(Definition.from_json(builder.build(register=False).to_json()))


def test_S27_a_step_whose_code_stays_away_is_given_up_after_its_time_and_a_lease(orchestrator: Any) -> None:
    run = waiting_for_code(orchestrator, "code_away")
    engine, since = orchestrator.engine, time.monotonic()
    assert not engine.advance(run.transaction_id)

    wait_until(lambda: engine.advance(run.transaction_id), 10, "the failure")

    assert time.monotonic() - since >= orchestrator.settings.lease
    assert run.status == "failed"
    assert "is code of workflow 'code_away' version '1', and no worker process that has it came" in (
        run.describe().error.message
    )


def test_S26_S22_the_time_before_a_process_first_looked_does_not_count(orchestrator: Any) -> None:
    run = waiting_for_code(orchestrator, "looked_late")
    time.sleep(orchestrator.settings.lease + 0.2)  # no worker was there, or somebody had paused it

    assert not orchestrator.engine.advance(run.transaction_id)
    assert run.status == "running"


def test_S27_the_time_in_the_queue_before_somebody_took_it_who_does_not_know_it_does_not_count(
    orchestrator: Any,
) -> None:
    workflow = WorkflowBuilder("long_backlog").add_step("a", "not_here_yet").build(register=False)
    run = orchestrator.start(workflow)
    store = orchestrator.store
    attempt = store.load(run.transaction_id).state.correlation("a", Direction.DO, 1)

    def found() -> Any:
        return store.load(run.transaction_id).in_flight["a"]

    sent = found()
    time.sleep(0.05)
    orchestrator.engine.not_registered(attempt)
    taken = found()
    time.sleep(0.05)
    store.dispatch(
        attempt.identity,
        orchestrator.dispatcher.address(workflow, attempt)._replace(first_ms=taken.first_ms, sent=0),
        taken.record,
    )
    orchestrator.engine.not_registered(attempt)

    assert (taken.delivery, found().delivery) == (Delivery.UNREGISTERED, Delivery.UNREGISTERED)
    assert sent.first_ms < taken.first_ms == found().first_ms


def _with_child(name: str) -> Definition:
    child = WorkflowBuilder(f"{name}_child").add_step("inner", "play", compensation="undo").build()
    return WorkflowBuilder(name).add_child("own", child).build()


def test_S11_a_child_that_nobody_has_started_is_not_started_when_its_parent_goes_back(
    orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: whoever was to start the child has died before he did.
    with monkeypatch.context() as dead:
        dead.setattr(orchestrator.engine, "_carry_out", lambda _follow_ups: ())
        run = orchestrator.start(_with_child("unstarted"))

    run.cancel()

    assert run.status == "cancelled"
    assert run.describe().steps["own"].error.type == "Recalled"
    with pytest.raises(WorkflowNotFoundError):
        orchestrator.get(f"{run.transaction_id}:own")


def test_S11_a_child_that_is_started_while_its_parent_turns_back_is_cancelled(
    orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: somebody has looked at the parent before it was cancelled, and starts the child only now.
    engine = orchestrator.engine
    with monkeypatch.context() as slow:
        slow.setattr(engine, "_carry_out", lambda _follow_ups: ())
        run = orchestrator.start(_with_child("overtaken"))
    before = orchestrator.store.load(run.transaction_id)
    run.cancel()
    own = before.state.correlation("own", Direction.DO, 1)

    children = Children(engine.pipeline)
    children._start(before, own, lambda: orchestrator.store.payloads(run.transaction_id))
    children._stop_unwanted(before, [own])
    engine._carry_out(children.follow_ups)

    assert orchestrator.get(f"{run.transaction_id}:own").status == "cancelled"
    assert run.status == "cancelled"
