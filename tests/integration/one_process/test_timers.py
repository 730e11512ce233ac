"""Rule S22 and the timers that people move: the engine and its sweep, on a store whose clock the test has."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery

from multiagents import ErrorEvent, ErrorInfo, ResultEvent, RetryPolicy, StatusEvent, WorkflowBuilder, init_app
from multiagents.exceptions import UnknownStepError, WorkflowError
from multiagents.orchestrator.recovery import Sweep
from multiagents.state_store.memory import InMemoryStateStore
from multiagents.state_store.records import Delivery, parse_attempt_key
from multiagents.workflow.decider import fold

SLOWLY = RetryPolicy(max_attempts=3, initial_interval=60, jitter=False)


class World:
    """An orchestrator on a store in memory; time passes when the test says so, and the test is the worker, too."""

    def __init__(self) -> None:
        self.app = Celery("timers", broker="memory://", set_as_current=False)
        self.orchestrator = init_app(self.app)
        self.offset = 0.0
        self.store = InMemoryStateStore(clock=lambda: time.time() + self.offset)
        self.orchestrator.runtime.store = self.store
        self.engine = self.orchestrator.engine
        self.sweep = Sweep(self.engine)
        self.runs: list[Any] = []

    def start(self, builder: WorkflowBuilder) -> Any:
        run = self.orchestrator.start(builder.build(register=False))
        self.runs.append(run)
        return run

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a look at what is due every ten seconds, as workers would."""
        while seconds > 0:
            self.offset += min(10.0, seconds)
            seconds -= 10
            self.sweep.tick()

    def ends(self, run: Any, step: str, error: str | None = None) -> None:
        """Do an attempt that is in flight, as its worker would."""
        snapshot = self.store.load(run.transaction_id)
        correlation = snapshot.state.correlation(step, *parse_attempt_key(snapshot.in_flight[step].attempt_key))
        claim = self.store.claim(correlation, snapshot.state.definition_hash, owner="w", worker="here", timeout=30)
        facts = {
            "transaction_id": run.transaction_id,
            "correlation_id": str(correlation),
            "step": step,
            "attempt": correlation.attempt,
        }
        if error is None:
            self.engine.settle(ResultEvent(**facts), claim)
        else:
            self.engine.settle(ErrorEvent(**facts, error=ErrorInfo(type="Failed", message=error)), claim)

    def left(self, run: Any, step: str) -> float:
        """Seconds until the timer of a step is due."""
        seen = run.describe().steps[step]
        due = seen.due_at or seen.compensation.due_at
        return round((due - self.store.now()).total_seconds())

    def facts(self, run: Any, status: str) -> list[StatusEvent]:
        return [event for event in run.history() if isinstance(event, StatusEvent) and event.status == status]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for run in made.runs:
        snapshot = made.store.load(run.transaction_id)
        assert fold(snapshot.definition, run.transaction_id, run.history()) == snapshot.state
    assert made.store.visibility.unattended() == []
    made.app.close()


def napping() -> WorkflowBuilder:
    return WorkflowBuilder("napping").add_sleep("nap", 3_600).add_step("last", "play")


def waiting(**options: Any) -> WorkflowBuilder:
    return WorkflowBuilder("waiting", **options).add_wait("paid", timeout=600, on_timeout="fail")


def trying(undo: bool = False) -> WorkflowBuilder:
    first = WorkflowBuilder("trying").add_step("a", "play", compensation="undo", retry=SLOWLY, undo_retry=SLOWLY)
    return first.add_step("b", "play", retry=RetryPolicy(max_attempts=1)) if undo else first


def stands(world: World, run: Any, step: str) -> str:
    return str(run.describe().steps[step].status)


# Moving a timer ------------------------------------------------------------------------------------------------------


def test_a_sleep_that_is_moved_ends_at_its_new_time(world: World) -> None:
    run = world.start(napping())

    due = run.update_timer("nap", 60, reason="the customer cannot wait", actor="ann")

    assert (world.left(run, "nap"), run.describe().steps["nap"].due_at) == (60, due)
    world.pass_time(50)
    assert stands(world, run, "nap") == "scheduled"
    world.pass_time(11)
    assert stands(world, run, "nap") == "succeeded"
    (fact,) = world.facts(run, "timer_updated")
    assert (fact.step, fact.reason, fact.actor) == ("nap", "the customer cannot wait", "ann")
    assert datetime.fromisoformat(fact.payload["at"]) == due


def test_a_sleep_may_be_made_longer(world: World) -> None:
    run = world.start(napping())

    run.update_timer("nap", at=world.store.now() + timedelta(hours=3))

    world.pass_time(3_700)
    assert stands(world, run, "nap") == "scheduled"
    world.pass_time(2 * 3_600)
    assert stands(world, run, "nap") == "succeeded"


def test_a_wait_comes_to_its_new_limit_and_says_how_long_it_was(world: World) -> None:
    run = world.start(waiting())

    run.update_timer("paid", timedelta(minutes=20))

    world.pass_time(700)
    assert stands(world, run, "paid") == "scheduled"
    world.pass_time(600)
    assert run.status == "failed"
    told = re.fullmatch(r"step 'paid': no signal 'paid' came within ([\d.]+) s", run.describe().error.message)
    assert told is not None
    assert 1_200 <= float(told[1]) < 1_205


def test_the_pause_before_a_retry_may_be_cut_short(world: World) -> None:
    run = world.start(trying())
    world.ends(run, "a", error="no answer")
    assert world.left(run, "a") == 60

    run.update_timer("a", 0)
    world.sweep.tick()

    world.ends(run, "a")
    assert (run.status, run.describe().steps["a"].attempts) == ("completed", 2)


def test_the_pause_before_the_retry_of_an_undo_may_be_moved(world: World) -> None:
    run = world.start(trying(undo=True))
    world.ends(run, "a")
    world.ends(run, "b", error="declined")
    world.ends(run, "a", error="no answer")
    assert (run.status, world.left(run, "a")) == ("compensating", 60)

    run.update_timer("a", 600)
    world.pass_time(590)
    assert world.store.load(run.transaction_id).in_flight["a"].delivery is Delivery.TIMER
    world.pass_time(11)

    world.ends(run, "a")
    assert run.status == "compensated"
    assert world.facts(run, "timer_updated")[0].payload["direction"] == "undo"


def test_who_asks_again_for_the_same_time_changes_nothing(world: World) -> None:
    run = world.start(napping())
    at = world.store.now() + timedelta(minutes=5)

    first, second = run.update_timer("nap", at=at), run.update_timer("nap", at=at)

    assert first == second
    assert len(world.facts(run, "timer_updated")) == 1


def test_a_timer_that_a_sweep_has_in_hand_when_it_is_moved_does_not_fire(world: World) -> None:
    run = world.start(napping())
    world.offset += 3_601
    (entry,), _ = world.store.take_due()

    run.update_timer("nap", 60)
    world.sweep._handle(entry)

    assert stands(world, run, "nap") == "scheduled"
    world.pass_time(61)
    assert stands(world, run, "nap") == "succeeded"


def test_what_has_no_timer_is_refused_by_name(world: World) -> None:
    run = world.start(
        WorkflowBuilder("none").add_parallel("both", ["play"]).add_wait("go").add_sleep("nap", 5).add_step("last", "x")
    )

    def refused(step: str, *args: Any, **given: Any) -> str:
        with pytest.raises(WorkflowError) as caught:
            run.update_timer(step, *args, **given)
        return str(caught.value)

    assert "it is scheduled and waits for no time (no step of the run has one); nothing was changed" in refused(
        "play", 5
    )
    assert "it is not_started and waits for no time" in refused("nap", 5)
    world.ends(run, "play")
    assert "it waits for its signal without a limit" in refused("go", 5)
    run.signal("go")
    assert "steps with one: nap" in refused("last", 5)
    assert "give seconds= from now or at=, one of them" in refused("nap")
    assert "expected a number from 0 on" in refused("nap", -1)
    assert "expected a number from 0 on" in refused("nap", float("nan"))
    assert "expected a datetime with a time zone" in refused(
        "nap", at=datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    )
    with pytest.raises(UnknownStepError, match=r"did you mean .nap."):
        run.update_timer("nop", 5)
    assert world.facts(run, "timer_updated") == []


# Moving the deadline -------------------------------------------------------------------------------------------------


def test_a_deadline_that_is_moved_passes_at_its_new_time(world: World) -> None:
    run = world.start(waiting(deadline=300).add_step("last", "x"))

    due = run.update_deadline(500, reason="the carrier is late", actor="ann")

    assert run.describe().deadline == due
    world.pass_time(450)
    assert run.status == "running"
    world.pass_time(60)
    assert run.status == "timed_out"
    assert run.describe().error.message == f"the run was not over by {due.isoformat()}"
    (fact,) = world.facts(run, "deadline_updated")
    assert (fact.reason, fact.actor) == ("the carrier is late", "ann")


def test_a_run_without_a_deadline_may_be_given_one(world: World) -> None:
    run = world.start(napping())
    assert run.describe().deadline is None

    run.update_deadline(at=datetime(2026, 1, 1, tzinfo=UTC))  # long past: it is now
    world.pass_time(1)

    assert run.status == "timed_out"


def test_a_deadline_that_a_sweep_has_in_hand_when_it_is_moved_does_not_pass(world: World) -> None:
    run = world.start(waiting(deadline=300))
    world.offset += 301
    (entry,), _ = world.store.take_due()

    run.update_deadline(200)
    world.sweep._handle(entry)

    assert run.status == "running"
    world.pass_time(201)
    assert run.status == "timed_out"


def test_the_deadline_of_a_run_that_goes_back_or_is_over_is_not_moved(world: World) -> None:
    run = world.start(waiting())
    run.cancel()

    with pytest.raises(WorkflowError, match="it is cancelled, and a deadline is for a run that goes forward"):
        run.update_deadline(5)


# Timers of a paused run ----------------------------------------------------------------------------------------------


def test_S22_timers_of_a_paused_run_run_on_unless_said_otherwise(world: World) -> None:
    run = world.start(waiting())

    run.pause()
    world.pass_time(601)

    assert (run.status, stands(world, run, "paid")) == ("paused", "failed")
    run.resume()
    assert run.status == "failed"


@pytest.mark.parametrize(
    ("builder", "step", "ended"),
    [(napping, "nap", "succeeded"), (waiting, "paid", "failed"), (trying, "a", "scheduled")],
    ids=["a sleep", "a wait", "a pause before a retry"],
)
def test_S22_a_timer_that_was_stopped_has_as_long_left_as_it_had(
    world: World, builder: Any, step: str, ended: str
) -> None:
    run = world.start(builder())
    if step == "a":
        world.ends(run, "a", error="no answer")
    run.update_timer(step, 100)
    world.pass_time(40)

    assert run.pause(timers="stop", reason="stocktaking", actor="ann") == "paused"
    world.pass_time(5_000)

    assert (world.left(run, step), stands(world, run, step)) == (60, "scheduled")
    run.resume()
    assert world.left(run, step) == 60
    world.pass_time(50)
    assert world.left(run, step) == 10
    world.pass_time(11)
    assert stands(world, run, step) == ended
    assert world.facts(run, "pause_requested")[0].payload == {"timers": "stop"}
    if step == "a":
        world.ends(run, "a")


def test_S22_the_deadline_of_a_run_stops_with_its_timers(world: World) -> None:
    run = world.start(WorkflowBuilder("dead", deadline=300).add_wait("paid"))
    world.pass_time(100)
    run.pause(timers="stop")
    world.pass_time(1_000)

    assert run.status == "paused"
    run.resume()

    left = (run.describe().deadline - world.store.now()).total_seconds()
    assert round(left) == 200
    world.pass_time(190)
    assert run.status == "running"
    world.pass_time(11)
    assert run.status == "timed_out"


def test_S22_a_timer_that_is_moved_while_it_stands_still_has_that_long_left_when_the_run_goes_on(world: World) -> None:
    run = world.start(napping())
    run.pause(timers="stop")
    world.pass_time(500)

    run.update_timer("nap", 30)
    run.update_deadline(100)
    world.pass_time(500)

    assert (run.status, world.left(run, "nap")) == ("paused", 30)
    run.resume()
    assert (world.left(run, "nap"), round((run.describe().deadline - world.store.now()).total_seconds())) == (30, 100)
    world.pass_time(31)
    assert stands(world, run, "nap") == "succeeded"


def test_S22_a_run_that_is_held_may_have_its_timers_stopped_from_now_on(world: World) -> None:
    run = world.start(napping())
    run.pause()
    world.pass_time(600)
    run.pause(timers="stop")
    world.pass_time(600)
    assert run.pause() == "paused"  # who asks again without a word about timers leaves them as they are
    world.pass_time(600)

    run.resume()

    assert world.left(run, "nap") == 3_000


def test_S20_S22_a_cancel_lets_the_retry_of_an_undo_go_on_that_stood_still(world: World) -> None:
    run = world.start(trying(undo=True))
    world.ends(run, "a")
    world.ends(run, "b", error="declined")
    world.ends(run, "a", error="no answer")
    run.pause(timers="stop")
    world.pass_time(500)

    run.cancel()

    assert (run.status, world.left(run, "a")) == ("compensating", 60)
    world.pass_time(61)
    world.ends(run, "a")
    assert run.status == "compensated"


def test_S20_S22_what_a_cancel_takes_back_has_no_timer_any_more(world: World) -> None:
    run = world.start(napping())
    run.pause(timers="stop")

    run.cancel()

    assert (run.status, dict(world.store.load(run.transaction_id).in_flight)) == ("cancelled", {})


def test_pause_takes_no_other_word_for_timers(world: World) -> None:
    run = world.start(napping())

    with pytest.raises(WorkflowError, match=r"timers='halt'; expected \"run\" or \"stop\""):
        run.pause(timers="halt")
