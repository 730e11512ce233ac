"""`Orchestrator.start` with keys and policies, over memory and Redis; no worker runs, so nothing goes on by itself."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from multiagents import (
    ErrorEvent,
    ErrorInfo,
    Orchestrator,
    ResultEvent,
    RetryPolicy,
    Step,
    TerminalError,
    WorkflowAlreadyExistsError,
    WorkflowBuilder,
    current_step,
    init_app,
    worker,
)
from multiagents.exceptions import WorkflowError
from multiagents.names import TRANSACTION_ID, Correlation, Direction, transaction_id_of
from multiagents.orchestrator.engine import OnConflict
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunStatus
from tests.support.letters import letter_about

ORDER = WorkflowBuilder("keyed-order").add_step("reserve", "reserve_stock").build(register=False)
RETURN = WorkflowBuilder("keyed-return").add_step("reserve", "reserve_stock").build(register=False)

keys: list[str] = []


@worker("starting.charge")
def charge(context: dict[str, Any]) -> None:
    keys.append(current_step().idempotency_key)


@worker("starting.refuse")
def refuse(context: dict[str, Any]) -> None:
    if current_step().direction == "undo":
        keys.append(current_step().idempotency_key)
    raise TerminalError("no")


CHARGE = (
    WorkflowBuilder("keyed-charge")
    .add_step("charge", charge, compensation=refuse, undo_retry=RetryPolicy(max_attempts=1))
    .add_step("ship", refuse)
    .build(register=False)
)


@pytest.mark.parametrize("key", ["A-1", "basket 7/ü\n", "x" * 100_000, "\ud800", " "])
def test_the_same_key_gives_the_same_run(orchestrator: Orchestrator, key: str) -> None:
    first = orchestrator.start(ORDER, {"n": 1}, idempotency_key=key)

    assert orchestrator.start(ORDER, {"n": 1}, idempotency_key=key) == first
    assert TRANSACTION_ID.fullmatch(first.transaction_id)
    assert orchestrator.count() == 1


def test_another_key_or_workflow_is_another_run(orchestrator: Orchestrator) -> None:
    runs = [
        orchestrator.start(ORDER, idempotency_key="1"),
        orchestrator.start(ORDER, idempotency_key="2"),
        orchestrator.start(RETURN, idempotency_key="1"),
    ]

    assert len(set(runs)) == orchestrator.count() == 3


def test_a_key_and_an_id_together_or_an_empty_key_are_refused(orchestrator: Orchestrator) -> None:
    with pytest.raises(WorkflowError, match="the id follows from the key: give one of them"):
        orchestrator.start(ORDER, transaction_id="order-1", idempotency_key="1")
    for key in ("", 7):
        with pytest.raises(WorkflowError, match=f"idempotency_key={key!r}; expected a str that is not empty"):
            orchestrator.start(ORDER, idempotency_key=key)  # type: ignore[arg-type]
    with pytest.raises(WorkflowError, match=r"on_conflict='restart'.*expected one of return_same, return, fail"):
        orchestrator.start(ORDER, on_conflict="restart")


@pytest.mark.parametrize("workers", [20])
def test_twenty_threads_that_start_with_one_key_at_once_get_one_run(orchestrator: Orchestrator, workers: int) -> None:
    gate = Barrier(workers)

    def start(_: int) -> Any:
        gate.wait()
        return orchestrator.start(ORDER, {"n": 1}, idempotency_key="A-1")

    with ThreadPoolExecutor(workers) as threads:
        runs = set(threads.map(start, range(workers)))

    assert len(runs) == orchestrator.count() == 1
    assert len(runs.pop().history()) == 2


@pytest.mark.parametrize("workers", [20])
def test_of_twenty_that_want_a_new_run_at_once_one_gets_it(orchestrator: Orchestrator, workers: int) -> None:
    gate = Barrier(workers)

    def start(_: int) -> bool:
        gate.wait()
        try:
            orchestrator.start(ORDER, {"n": 1}, idempotency_key="A-1", on_conflict="fail")
        except WorkflowAlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(workers) as threads:
        assert list(threads.map(start, range(workers))).count(True) == 1


#: policy, what became of the run before, workflow and input of the second start -> the run it gives
OLD, NEW, ERROR = "old", "new", "error"
SAME, OTHER_INPUT, OTHER_WORKFLOW = (ORDER, {"n": 1}), (ORDER, {"n": 2}), (RETURN, {"n": 1})
TABLE = [
    ("return_same", None, SAME, OLD),
    ("return_same", "completed", SAME, OLD),
    ("return_same", None, OTHER_INPUT, ERROR),
    ("return_same", None, OTHER_WORKFLOW, ERROR),
    ("return", None, OTHER_INPUT, OLD),
    ("return", "failed", OTHER_WORKFLOW, OLD),
    ("fail", None, SAME, ERROR),
    ("fail", "completed", SAME, ERROR),
    ("replace_ended", None, SAME, OLD),
    ("replace_ended", None, OTHER_INPUT, ERROR),
    ("replace_ended", "completed", SAME, NEW),
    ("replace_ended", "cancelled", OTHER_INPUT, NEW),
    ("replace_ended", "compensated", OTHER_WORKFLOW, NEW),
    ("replace_failed", "completed", SAME, OLD),
    ("replace_failed", "completed", OTHER_INPUT, ERROR),
    ("replace_failed", "compensated", OTHER_INPUT, NEW),
    ("replace_failed", None, SAME, OLD),
]


@pytest.mark.parametrize(("policy", "status", "second", "expected"), TABLE)
def test_what_a_start_does_with_a_run_that_exists(
    orchestrator: Orchestrator,
    end_run: Callable[..., None],
    policy: str,
    status: str | None,
    second: tuple[Definition, dict[str, Any]],
    expected: str,
) -> None:
    first = orchestrator.start(ORDER, {"n": 1}, "order-1")
    if status is not None:
        end_run("order-1", status)
    before = first.describe()

    if expected == ERROR:
        with pytest.raises(WorkflowAlreadyExistsError, match="'order-1' exists already"):
            orchestrator.start(*second, "order-1", on_conflict=policy)
    else:
        assert orchestrator.start(*second, "order-1", on_conflict=policy) == first

    after = first.describe()
    if expected == NEW:
        assert (after.status, after.workflow, after.input) == (RunStatus.RUNNING, second[0].name, second[1])
    else:
        assert after == before


def test_a_free_id_is_started_under_every_policy(orchestrator: Orchestrator) -> None:
    for policy in OnConflict:
        run = orchestrator.start(ORDER, transaction_id=f"order-{policy}", on_conflict=policy)
        assert run.status is RunStatus.RUNNING


def test_a_start_that_the_client_sends_twice_is_no_conflict_with_itself(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = orchestrator.store.start
    monkeypatch.setattr(orchestrator.store, "start", lambda *args, **kw: (start(*args, **kw), start(*args, **kw))[1])

    assert orchestrator.start(ORDER, transaction_id="order-1", on_conflict="fail").status is RunStatus.RUNNING


def test_the_id_that_is_made_of_a_key_is_the_same_in_every_release() -> None:
    long = "w" * 128

    assert transaction_id_of("order", "basket 7/ü") == "order:key:e10b08d7731ef7401ed7fedd4c3edff2"
    assert transaction_id_of(long, "1") != transaction_id_of(long[:-1] + "v", "1")
    assert transaction_id_of(long[:-1], "w1") != transaction_id_of(long, "1")


@pytest.mark.parametrize("mode", ["inline", "queued"])
@pytest.mark.parametrize("outcome", ["result", "error"])
def test_a_worker_that_comes_back_with_an_outcome_of_the_replaced_run_does_not_move_the_new_one(
    orchestrator: Orchestrator, end_run: Callable[..., None], outcome: str, mode: str
) -> None:
    orchestrator.runtime.settings = replace(orchestrator.settings, orchestration=mode)
    run = orchestrator.start(ORDER, {"n": 1}, "order-1")
    correlation = orchestrator.store.load("order-1").state.correlation("reserve", Direction.DO, 1)
    claim = orchestrator.store.claim(correlation, ORDER.content_hash, owner="old", worker="w", timeout=None)
    end_run("order-1", "terminated")
    orchestrator.start(ORDER, {"n": 2}, "order-1", on_conflict="replace_ended")
    before = run.describe(), len(run.history())
    said = {"transaction_id": "order-1", "correlation_id": str(correlation), "step": "reserve", "attempt": 1}

    orchestrator.engine.settle(
        (
            ResultEvent(**said, payload={"late": True})
            if outcome == "result"
            else ErrorEvent(**said, error=ErrorInfo(type="ValueError", message="late"), retryable=False)
        ),
        claim,
    )

    assert (run.describe(), len(run.history())) == before
    letter = letter_about(orchestrator, str(correlation))
    assert letter["why"] == "the run has been replaced by a new one since"


def test_S25_the_steps_of_a_run_that_replaces_another_have_keys_of_their_own() -> None:
    app = Celery("starting-eager", set_as_current=False, task_always_eager=True)
    app.set_current()
    orchestrator = init_app(app, {"key_prefix": f"t{uuid4().hex[:8]}"})
    keys.clear()

    first = orchestrator.start(CHARGE, {"fail": True}, "order-1")
    assert first.status is RunStatus.COMPENSATION_FAILED
    letter = letter_about(orchestrator, "order-1/charge/undo/1")
    orchestrator.start(CHARGE, {"fail": True}, "order-1", on_conflict="replace_failed")
    [second] = [found for key, found in orchestrator.dead_letters().items() if key != letter.key]

    assert keys == ["order-1/charge"] * 2 + ["order-1~2/charge"] * 2
    assert (letter["idempotency_key"], second["idempotency_key"]) == ("order-1/charge", "order-1~2/charge")


def test_S28_a_step_that_waits_in_its_queue_has_no_effect_yet(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("keyed-pending")
        .add_parallel("all", ["reserve", Step("published", "reserve", external=True)])
        .build(register=False)
    )

    run = orchestrator.start(workflow, {})
    waiting = run.describe().effects
    nonce = orchestrator.store.load(run.transaction_id).state.nonce
    orchestrator.store.claim(
        Correlation(run.transaction_id, "reserve", Direction.DO, 1, nonce),
        workflow.content_hash,
        owner="o",
        worker="w",
        timeout=None,
    )

    assert waiting == {"reserve": "pending", "published": "unknown"}
    assert run.describe().effects == {"reserve": "unknown", "published": "unknown"}


def test_S28_what_a_step_did_is_live_while_its_undo_waits_in_its_queue(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("keyed-undone-later")
        .add_step("charge", "charge", compensation="refund", external=True)
        .add_wait("go")
        .build(register=False)
    )
    run = orchestrator.start(workflow, {})
    nonce = orchestrator.store.load(run.transaction_id).state.nonce
    done, undone = (
        Correlation(run.transaction_id, "charge", direction, 1, nonce) for direction in (Direction.DO, Direction.UNDO)
    )
    orchestrator.engine.receive(ResultEvent(correlation_id=str(done), transaction_id=run.transaction_id, nonce=nonce))
    run.cancel()

    waiting = run.describe().effects
    orchestrator.store.claim(undone, workflow.content_hash, owner="o", worker="w", timeout=None)

    assert (run.status, waiting) == ("compensating", {"charge": "live"})
    assert run.describe().effects == {"charge": "unknown"}


def test_S32_a_dead_letter_of_an_earlier_run_settles_nothing_of_the_one_that_has_its_id() -> None:
    app = Celery("starting-eager", set_as_current=False, task_always_eager=True)
    app.set_current()
    orchestrator = init_app(app, {"key_prefix": f"t{uuid4().hex[:8]}"})
    orchestrator.start(CHARGE, {"fail": True}, "order-1")
    letter = letter_about(orchestrator, "order-1/charge/undo/1")
    run = orchestrator.start(CHARGE, {"fail": True}, "order-1", on_conflict="replace_failed")
    before = len(run.history())

    with pytest.raises(WorkflowError, match="that another one has replaced under its id; nothing was done"):
        letter.skip("the customer was paid back by hand")
    assert (run.status, len(run.history())) == ("compensation_failed", before)
    [second] = [found for key, found in orchestrator.dead_letters().items() if key != letter.key]
    second.skip("the customer was paid back by hand")
    assert run.status == "compensated_partially"
