"""Who may still speak for a run that is gone, when another one has its id (rule S32); over memory and Redis.

The store's own table is in tests/contract/test_state_store_identity.py. Here is what the engine says in a run's
name: messages and links, children and parents, deadlines, signals, ticks of schedules, and the ends of runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from multiagents import Child, Orchestrator, Run, WorkflowBuilder, WorkflowNotFoundError
from multiagents.events import ErrorEvent, ErrorInfo, ResultEvent
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.engine.children import Children
from multiagents.orchestrator.engine.follow_ups import Advance, AskForLock, TendChildren
from multiagents.state_store.records import Claim, ClaimRefused, Snapshot
from multiagents.workflow.state import RunStatus

PAY = WorkflowBuilder("again-pay").add_step("charge", "charge", compensation="refund").build(register=False)
ORDER = (
    WorkflowBuilder("again-order", deadline=3600)
    .add_parallel("p", ["reserve", Child("pay", PAY)])
    .add_wait("shipped", timeout=3600)
    .build(register=False)
)
PACKED = WorkflowBuilder("again-packed").add_wait("packed").build(register=False)


@dataclass
class Gone:
    """What a process may still know of a run that is gone.

    Attributes:
        run: as it was loaded.
        child: the child, as it was loaded.
        claim: of its first step, by a worker that still works.
    """

    run: Snapshot
    child: Snapshot
    claim: Claim

    @property
    def reserve(self) -> Correlation:
        return self.run.state.correlation("reserve", Direction.DO, 1)

    @property
    def pay(self) -> Correlation:
        return self.run.state.correlation("pay", Direction.DO, 1)


@pytest.fixture
def gone(orchestrator: Orchestrator) -> Gone:
    orchestrator.start(ORDER, {"n": 1}, "order-1")
    run, child = orchestrator.store.load("order-1"), orchestrator.store.load("order-1:pay")
    return Gone(run, child, claimed(orchestrator, run.state.correlation("reserve", Direction.DO, 1)))


def claimed(orchestrator: Orchestrator, attempt: Correlation) -> Claim:
    return orchestrator.store.claim(attempt, ORDER.content_hash, owner="old", worker="w@old", timeout=None)


def replaced(orchestrator: Orchestrator) -> Run:
    orchestrator.get("order-1").terminate(reason="a mistake")
    return orchestrator.start(ORDER, {"n": 2}, "order-1", on_conflict="replace_ended")


def deleted(orchestrator: Orchestrator) -> Run:
    orchestrator.get("order-1").terminate(reason="a mistake")
    orchestrator.get("order-1").delete(reason="a mistake")
    return orchestrator.start(ORDER, {"n": 2}, "order-1")


def forgotten(orchestrator: Orchestrator) -> Run:
    orchestrator.get("order-1").terminate(reason="a mistake")
    assert orchestrator.store.forget(orchestrator.store.load("order-1").state.identity)
    return orchestrator.start(ORDER, {"n": 2}, "order-1")


# --- what it may still say


def a_message_or_link_of_it_comes(orchestrator: Orchestrator, gone: Gone) -> None:
    for attempt in (gone.reserve, gone.pay, gone.reserve._replace(direction=Direction.UNDO)):
        with pytest.raises(ClaimRefused):
            claimed(orchestrator, attempt)


def its_worker_is_done(orchestrator: Orchestrator, gone: Gone) -> None:
    event = ResultEvent.about(gone.reserve, {"reserved": 1}, at=orchestrator.store.now())
    orchestrator.engine.settle(event, gone.claim)


def its_worker_fails(orchestrator: Orchestrator, gone: Gone) -> None:
    error = ErrorInfo(type="ValueError", message="no")
    event = ErrorEvent.about(gone.reserve, error, at=orchestrator.store.now(), retryable=False)
    orchestrator.engine.settle(event, gone.claim)


def somebody_publishes_what_came_of_it(orchestrator: Orchestrator, gone: Gone) -> None:
    orchestrator.engine.receive(ResultEvent.about(gone.pay, {"paid": 1}, at=orchestrator.store.now()))


def its_attempts_are_given_up(orchestrator: Orchestrator, gone: Gone) -> None:
    engine, error = orchestrator.engine, ErrorInfo(type="WorkerLost", message="gone")
    event = ErrorEvent.about(gone.reserve, error, at=orchestrator.store.now())
    engine.revoked(gone.reserve, terminated=True)
    engine.revoked(gone.reserve, terminated=False)
    engine.not_registered(gone.reserve)
    engine.unclaimable(event, "old")
    assert not orchestrator.store.expire(gone.reserve)


def an_orchestrators_message_of_it_comes(orchestrator: Orchestrator, gone: Gone) -> None:
    orchestrator.engine.advance("order-1")
    orchestrator.engine.advance_linked("order-1")
    with pytest.raises(WorkflowNotFoundError):  # of the sweep, which knows whose entry it was
        orchestrator.engine.advance("order-1", gone.run.state.nonce)


def a_process_does_what_it_had_left_to_do(orchestrator: Orchestrator, gone: Gone) -> None:
    left = [TendChildren("order-1", ["pay"]), Advance("order-1"), AskForLock("order-1", "reserve")]
    orchestrator.engine._carry_out(left)


def its_deadline_passes(orchestrator: Orchestrator, gone: Gone) -> None:
    assert orchestrator.engine.interventions.deadline_passed("order-1", gone.run.state.nonce)


def a_process_that_has_it_before_it_looks_after_its_child(orchestrator: Orchestrator, gone: Gone) -> None:
    orchestrator.engine.tend_children(gone.run, ["pay"])


def its_child_is_over(orchestrator: Orchestrator, gone: Gone) -> None:
    for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.COMPENSATED, RunStatus.COMPENSATION_FAILED):
        state = gone.child.state._replace(status=status, finished_at=1)
        with suppress(WorkflowNotFoundError):  # a child that was deleted has nothing to tell
            Children(orchestrator.engine.pipeline).tell(replace(gone.child, state=state))


def whoever_was_to_answer_for_its_child_has_died(orchestrator: Orchestrator, gone: Gone) -> None:
    orchestrator.engine.resume_child(gone.pay, gone.run.in_flight["pay"])


@pytest.mark.parametrize(
    "speaks",
    [
        a_message_or_link_of_it_comes,
        its_worker_is_done,
        its_worker_fails,
        somebody_publishes_what_came_of_it,
        its_attempts_are_given_up,
        an_orchestrators_message_of_it_comes,
        a_process_does_what_it_had_left_to_do,
        its_deadline_passes,
        a_process_that_has_it_before_it_looks_after_its_child,
        its_child_is_over,
        whoever_was_to_answer_for_its_child_has_died,
    ],
    ids=lambda each: each.__name__,
)
@pytest.mark.parametrize("way", [replaced, deleted, forgotten], ids=lambda way: way.__name__)
def test_S32_who_speaks_for_a_run_that_is_gone_changes_nothing_of_the_one_that_has_its_id(
    orchestrator: Orchestrator,
    gone: Gone,
    way: Callable[[Orchestrator], Run],
    speaks: Callable[[Orchestrator, Gone], None],
) -> None:
    run = way(orchestrator)
    before, facts = orchestrator.store.load("order-1"), len(run.history())
    child = orchestrator.store.load("order-1:g2:pay")

    speaks(orchestrator, gone)

    after = orchestrator.store.load("order-1")
    assert (after.state, after.in_flight, len(run.history())) == (before.state, before.in_flight, facts)
    assert orchestrator.store.load("order-1:g2:pay").state == child.state
    # Nor does anything go on in the name of the one that is gone.
    alive = [orchestrator.store.load(each.transaction_id).state for each in orchestrator.list(status="running").runs]
    assert {state.transaction_id: state.nonce for state in alive if not state.cancel_requested} == {
        "order-1": before.state.nonce,
        "order-1:g2:pay": child.state.nonce,
    }


@pytest.mark.parametrize("end", ["cancel", "terminate"])
def test_S32_a_stranger_that_has_the_id_of_a_child_is_told_nothing_in_its_place(
    orchestrator: Orchestrator, end: str
) -> None:
    run = orchestrator.start(ORDER, {}, "order-1")
    orchestrator.store.forget(orchestrator.store.load("order-1:pay").state.identity)
    stranger = orchestrator.start(PACKED, {}, "order-1:pay")
    facts = len(stranger.history())

    getattr(run, end)(reason="a mistake")
    orchestrator.engine.advance("order-1")

    assert (stranger.status, len(stranger.history())) == ("running", facts)


def test_S32_a_stranger_that_has_the_id_of_a_completed_child_is_not_undone_in_its_place(
    orchestrator: Orchestrator, end_run: Callable[..., None]
) -> None:
    run = orchestrator.start(ORDER, {}, "order-1")
    end_run("order-1:pay")
    Children(orchestrator.engine.pipeline).tell(orchestrator.store.load("order-1:pay"))
    orchestrator.get("order-1:pay").delete(reason="too early")
    stranger = orchestrator.start(PAY, {}, "order-1:pay")
    end_run("order-1:pay")
    facts = len(stranger.history())

    run.cancel(reason="changed her mind")
    orchestrator.engine.advance("order-1")

    assert (stranger.status, len(stranger.history())) == ("completed", facts)


def test_S32_a_signal_of_the_run_before_has_no_say_in_whether_the_same_key_counts(orchestrator: Orchestrator) -> None:
    orchestrator.start(ORDER, {}, "order-1").signal("shipped", {"by": "sea"}, key="k")

    run = replaced(orchestrator)
    early = orchestrator.store.load("order-1").state.signals
    run.signal("shipped", {"by": "air"}, key="k")

    assert early == ()
    assert list(orchestrator.store.payloads("order-1").signals.values()) == [{"by": "air"}]


def test_S32_a_tick_whose_run_is_gone_does_not_start_it_again(
    orchestrator: Orchestrator, end_run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 6, 10, 3, tzinfo=UTC)
    orchestrator.app.conf.timezone = "UTC"
    monkeypatch.setattr(orchestrator.store, "now", lambda: now)
    schedule = orchestrator.schedule("nightly", PACKED, "30 2 * * *")
    [run] = schedule.tick()
    end_run(run.transaction_id)
    run.delete(reason="done with")

    again = schedule.tick()  # beat's message came twice, or somebody calls it

    assert (again, orchestrator.list().runs) == ([], [])


def test_S32_each_of_two_runs_with_one_id_has_its_end_told_by_a_run_of_its_own(
    orchestrator: Orchestrator, end_run: Callable[..., None]
) -> None:
    told = WorkflowBuilder("again-told", on_end="tell").add_wait("packed").build(register=False)
    for _ in range(2):
        orchestrator.start(told, {}, "order-1", on_conflict="replace_ended")
        end_run("order-1")  # at the same millisecond, as far as the run says
        orchestrator.engine.advance("order-1")

    ends = sorted(run.transaction_id for run in orchestrator.list("again-told.on_end").runs)

    assert ends == ["order-1:g2:on_end:1", "order-1:on_end:1"]
    assert [orchestrator.get(end).describe().input["status"] for end in ends] == ["completed"] * 2
