"""Sagas in one process: Celery's ``task_always_eager``, and a worker thread on ``memory://``. No server runs here."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker

from multiagents import (
    Orchestrator,
    OutcomeUnknownError,
    Resolution,
    RetryPolicy,
    Sleep,
    Step,
    TerminalError,
    WorkflowBuilder,
    WorkflowFailedError,
    current_step,
    init_app,
    worker,
)
from multiagents.events import ErrorEvent, ErrorInfo, ResultEvent
from multiagents.state_store.memory import InMemoryStateStore
from multiagents.state_store.redis import RedisStateStore
from multiagents.workflow.definition import Definition

#: Nobody listens there: whoever asks it anything fails.
NO_BROKER = "redis://127.0.0.1:1/0"

called: list[str] = []


@worker("eager.reserve")
def reserve(context: dict[str, Any]) -> dict[str, Any]:
    called.append("reserve")
    return {"reserved": context["quantity"]}


@worker("eager.release")
def release(context: dict[str, Any]) -> None:
    called.append(f"release {context['reserved']}")


@worker("eager.price")
async def price(context: dict[str, Any]) -> dict[str, Any]:
    called.append("price")
    return {"price": context["quantity"] * 2}


@worker("eager.charge", retry=RetryPolicy(max_attempts=4, initial_interval=60, max_interval=600))
def charge(context: dict[str, Any]) -> dict[str, Any]:
    attempt = current_step().attempt
    called.append(f"charge {attempt}")
    if attempt <= context.get("declined", 0):
        raise ConnectionError("no answer")
    return {"charged": context["price"]}


@worker("eager.refuse")
def refuse(context: dict[str, Any]) -> None:
    raise TerminalError("no")


@worker("eager.depth")
def depth(context: dict[str, Any]) -> int:
    frame, frames = inspect.currentframe(), 0
    while frame is not None:
        frame, frames = frame.f_back, frames + 1
    return frames


@worker("eager.nested")
def nested(context: dict[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = context["_start"] and _orchestrators[-1].start("eager-price", {"quantity": 4}).result()
    return {"inner": inner["price"]}


@worker("eager.cancel_me")
def cancel_me(context: dict[str, Any]) -> None:
    _orchestrators[-1].get(current_step().transaction_id).cancel(reason="from within")
    called.append("told to stop")


@worker("eager.hold")
def hold(context: dict[str, Any]) -> None:
    _orchestrators[-1].get(current_step().transaction_id).pause(timers="stop")


@worker("eager.doubtful")
def doubtful(context: dict[str, Any]) -> None:
    raise OutcomeUnknownError("no answer")


@worker("eager.look")
def look(context: dict[str, Any]) -> Resolution:
    called.append(f"look {current_step().probing} {current_step().idempotency_key}")
    if len(called) <= context["fails"]:
        raise ConnectionError("no answer, again")
    resolution: Resolution = context["answer"]
    return resolution


@worker("eager.ctrl_c")
def ctrl_c(context: dict[str, Any]) -> None:
    raise KeyboardInterrupt


_orchestrators: list[Orchestrator] = []

order = (
    WorkflowBuilder("eager-order")
    .add_step("reserve", reserve, compensation=release)
    .add_parallel("both", [Step("price", price), [Step("again", "eager.reserve"), Step("third", "eager.price")]])
    .add_step("charge", charge)
    .build()
)
WorkflowBuilder("eager-price").add_step("price", price).build()


def define(*steps: Any, **first: Any) -> Definition:
    """A definition of these steps, after one that reserves."""
    builder = WorkflowBuilder(f"eager-{uuid4().hex[:8]}").add_step("reserve", reserve, compensation=release, **first)
    for number, step in enumerate(steps):
        builder.add_step(f"step-{number}", step)
    return builder.build()


@pytest.fixture(params=["inline", "queued"])
def orchestrator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchestrator]:
    monkeypatch.delenv("MULTIAGENTS_REDIS_URL", raising=False)
    app = Celery(f"eager-{uuid4().hex[:8]}", broker=NO_BROKER)
    app.conf.task_always_eager = True
    app.conf.multiagents_orchestration = request.param
    made = init_app(app)
    called.clear()
    _orchestrators.append(made)
    yield made
    _orchestrators.pop()
    InMemoryStateStore.shared().clear()
    app.close()


def test_S22_a_sleep_of_a_run_whose_timers_are_stopped_ends_when_it_is_resumed(orchestrator: Orchestrator) -> None:
    workflow = WorkflowBuilder("eager-held").add_parallel("both", ["eager.hold", Sleep("nap", 60)]).build()

    run = orchestrator.start(workflow, {})

    assert (run.status, run.describe().steps["nap"].status) == ("paused", "scheduled")
    assert run.resume() == "completed"


# --- task_always_eager -----------------------------------------------------------------------------------------------


def test_a_run_is_over_when_start_returns(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(order, {"quantity": 3}, transaction_id="order-1")

    assert run.status == "completed"
    assert run.result(timeout=0) == {"quantity": 3, "reserved": 3, "price": 6, "charged": 6}
    assert orchestrator.count(status="completed") == 1
    assert orchestrator.store.visibility.unattended() == []
    seen = run.describe().steps["charge"]
    assert (seen.status, seen.attempts, seen.task_id) == ("succeeded", 1, "order-1/charge/do/1")


def test_a_failed_run_is_undone_when_start_returns(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(define(price, "eager.refuse"), {"quantity": 3})

    assert run.status == "compensated"
    assert called == ["reserve", "price", "release 3"]
    with pytest.raises(WorkflowFailedError, match="TerminalError: no"):
        run.result()


def test_retries_do_not_wait_for_their_back_off(orchestrator: Orchestrator) -> None:
    started = time.monotonic()

    run = orchestrator.start(order, {"quantity": 3, "declined": 3})

    assert run.status == "completed"
    assert called[-4:] == ["charge 1", "charge 2", "charge 3", "charge 4"]
    assert time.monotonic() - started < 30


def test_retries_end_as_their_policy_says(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(order, {"quantity": 3, "declined": 9})

    assert run.status == "compensated"
    assert run.describe().steps["charge"].attempts == 4


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"outcome": "succeeded", "result": {"paid": 7}}, "completed"),
        ({"outcome": "failed"}, "failed"),
        ({"outcome": "unknown"}, "paused"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_S3_a_probe_is_asked_in_process_and_again_as_its_policy_says(
    orchestrator: Orchestrator, answer: Any, status: str
) -> None:
    definition = (
        WorkflowBuilder(f"eager-{uuid4().hex[:8]}")
        .add_step("pay", "eager.doubtful", compensation=release, on_unknown="resolve", resolve_with=look)
        .build()
    )

    run = orchestrator.start(definition, {"answer": answer, "fails": 2}, transaction_id="order-1")

    assert run.status == status
    assert called == ["look True order-1/pay"] * 3
    assert run.describe().context.get("paid") == (7 if status == "completed" else None)


def test_S3_S15_a_step_of_another_pass_is_asked_about_too(orchestrator: Orchestrator) -> None:
    definition = (
        WorkflowBuilder(f"eager-{uuid4().hex[:8]}")
        .add_savepoint("before")
        .add_step("pay", "eager.doubtful", compensation=release, on_unknown="resolve", resolve_with=look)
        .build()
    )

    run = orchestrator.start(definition, {"answer": {"outcome": "failed"}, "fails": 0}, transaction_id="order-1")

    assert run.status == "failed"
    assert called == ["look True order-1/pay", "look True order-1/pay#2"]


def test_a_long_run_takes_no_more_stack_than_a_short_one(orchestrator: Orchestrator) -> None:
    results = orchestrator.start(define(*["eager.depth"] * 150), {"quantity": 1}).result()

    depths = [results[f"step-{number}"] for number in range(150)]
    assert len(set(depths)) == 1


def test_an_undo_of_many_steps_takes_no_more_stack_either(orchestrator: Orchestrator) -> None:
    builder = WorkflowBuilder(f"eager-{uuid4().hex[:8]}")
    for number in range(40):
        builder.add_step(f"step-{number}", "eager.reserve", compensation="eager.release")
    run = orchestrator.start(builder.add_step("last", "eager.refuse").build(), {"quantity": 1})

    assert run.status == "compensated"
    assert called.count("release 1") == 40


def test_a_repeated_start_gives_the_run_that_exists(orchestrator: Orchestrator) -> None:
    orchestrator.start(order, {"quantity": 3}, transaction_id="order-1")
    first = list(called)

    again = orchestrator.start(order, {"quantity": 3}, transaction_id="order-1")

    assert again.result()["charged"] == 6
    assert called == first


def test_a_worker_may_start_another_run_and_wait_for_it(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(define("eager.nested"), {"quantity": 1, "_start": True})

    assert run.result()["inner"] == 8


def test_a_worker_may_cancel_its_own_run(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(define(cancel_me, "eager.charge"), {"quantity": 5})

    assert run.status == "cancelled"
    assert called == ["reserve", "told to stop", "release 5"]


def test_a_worker_that_is_not_registered_is_a_definite_failure_that_names_it(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(define("eager.prise"), {"quantity": 5})

    seen = run.describe()
    assert run.status == "compensated"
    assert seen.error is not None
    assert seen.error.type == "multiagents.exceptions.WorkerNotFoundError"
    assert "step 'step-0': no worker named \"eager.prise\" is registered here" in seen.error.message
    assert 'did you mean "eager.price"?' in seen.error.message
    assert called == ["reserve", "release 5"]


def test_a_task_that_says_nothing_of_its_outcome_does_not_hold_up_the_run(orchestrator: Orchestrator) -> None:
    # It passes for a worker's task, and knows nothing of attempts.
    @orchestrator.app.task(name="eager.mute", shared=False, worker_queue=None)
    def mute(**kwargs: Any) -> None:
        called.append("mute")

    run = orchestrator.start(define("eager.mute"), {"quantity": 5})

    assert run.status == "compensated"
    assert called == ["reserve", *["mute"] * 5, "release 5"]
    assert run.describe().steps["step-0"].status == "unknown"


def test_a_celery_task_that_is_named_as_a_worker_is_called_with_what_it_takes(orchestrator: Orchestrator) -> None:
    @orchestrator.app.task(name="eager.mail", shared=False)
    def mail(quantity: int) -> dict[str, int]:
        called.append(f"mail {quantity}")
        return {"mailed": quantity}

    run = orchestrator.start(define("eager.mail"), {"quantity": 5})

    assert (run.status, run.describe().context["mailed"]) == ("completed", 5)
    assert called == ["reserve", "mail 5"]


def test_a_step_that_others_do_is_waited_for_and_then_the_run_goes_on(orchestrator: Orchestrator) -> None:
    paid = WorkflowBuilder(f"eager-{uuid4().hex[:8]}").add_step("pay", "provider", external=True)
    run = orchestrator.start(paid.add_step("price", price).build(), {"quantity": 2}, transaction_id="order-1")
    assert run.status == "running"
    with pytest.raises(TimeoutError):
        run.result(timeout=0.01)

    answer = ResultEvent(transaction_id="order-1", correlation_id="order-1/pay/do/1", payload={"paid": True})
    orchestrator.engine.receive(answer)

    assert run.result(timeout=0) == {"quantity": 2, "paid": True, "price": 4}


@pytest.mark.parametrize(
    ("transaction_id", "correlation_id"),
    [
        ("order-1", "order-1/pay/do/one"),
        ("order-1", "pay"),
        ("order-1", ""),
        ("order-1", "order-1/no-such-step/do/1"),
        ("order-1", "order-1/pay/do/7"),
        ("order-1", "order-2/pay/do/1"),
        ("no such id", "no such id/pay/do/1"),
        ("order-9", "order-9/pay/do/1"),
    ],
)
@pytest.mark.parametrize("kind", [ResultEvent, ErrorEvent])
def test_an_outcome_that_is_nobodys_is_buried_and_nobody_is_told_off(
    orchestrator: Orchestrator, kind: Any, transaction_id: str, correlation_id: str
) -> None:
    builder = WorkflowBuilder(f"eager-{uuid4().hex[:8]}").add_step("pay", "provider", external=True)
    run = orchestrator.start(builder.build(), {"quantity": 2}, transaction_id="order-1")
    says = {"payload": {"paid": True}} if kind is ResultEvent else {"error": ErrorInfo(type="E", message="no")}

    orchestrator.engine.receive(kind(transaction_id=transaction_id, correlation_id=correlation_id, **says))

    [letter] = orchestrator.dead_letters(transaction_id=transaction_id).values()
    assert letter.why
    assert run.status == "running"
    orchestrator.engine.receive(
        ResultEvent(transaction_id="order-1", correlation_id="order-1/pay/do/1", payload={"paid": True})
    )
    assert run.status == "completed"


def test_a_waiting_run_is_cancelled_and_undone_at_once(orchestrator: Orchestrator) -> None:
    builder = WorkflowBuilder(f"eager-{uuid4().hex[:8]}").add_step("reserve", reserve, compensation=release)
    run = orchestrator.start(
        builder.add_step("pay", "provider", external=True, cancel_safe=True).build(), {"quantity": 2}
    )

    assert run.cancel() == "cancelled"
    assert called == ["reserve", "release 2"]


def test_what_a_person_does_to_the_process_passes_through(orchestrator: Orchestrator) -> None:
    with pytest.raises(KeyboardInterrupt):
        orchestrator.start(define(ctrl_c), {"quantity": 2}, transaction_id="order-1")

    assert orchestrator.get("order-1").status == "running"


def test_errors_stay_in_the_run_though_tasks_propagate_theirs(orchestrator: Orchestrator) -> None:
    orchestrator.app.conf.task_eager_propagates = True

    assert orchestrator.start(define("eager.refuse"), {"quantity": 2}).status == "compensated"


def test_many_threads_run_their_own(orchestrator: Orchestrator) -> None:
    ends: list[tuple[str, int]] = []

    def go(number: int) -> None:
        run = orchestrator.start(order, {"quantity": number}, transaction_id=f"order-{number}")
        ends.append((run.status, run.result()["charged"]))

    threads = [threading.Thread(target=go, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(ends) == [("completed", number * 2) for number in range(6)]


def test_data_that_would_not_survive_the_way_to_redis_does_not_pass(orchestrator: Orchestrator) -> None:
    @worker(f"eager.{uuid4().hex[:8]}")
    def gives_an_object(context: dict[str, Any]) -> Any:
        return {"a": object()}

    run = orchestrator.start(define(gives_an_object), {"quantity": 2})

    assert run.describe().steps["step-0"].status == "unknown"
    assert run.status == "compensated"


def test_the_setting_may_change_while_the_process_lives(orchestrator: Orchestrator) -> None:
    eager = orchestrator.engine
    orchestrator.start(order, {"quantity": 1})

    orchestrator.app.conf.task_always_eager = False
    assert orchestrator.engine is not eager

    orchestrator.app.conf.task_always_eager = True
    assert orchestrator.engine is eager


def test_with_a_redis_url_the_runs_of_eager_mode_live_there(new_redis_url: Callable[[], str]) -> None:
    app = Celery(f"eager-{uuid4().hex[:8]}", broker=NO_BROKER)
    app.conf.task_always_eager = True
    called.clear()
    orchestrator = init_app(app, {"redis_url": new_redis_url()})

    run = orchestrator.start(define("eager.refuse"), {"quantity": 3})

    assert isinstance(orchestrator.store, RedisStateStore)
    assert run.status == "compensated"
    assert called == ["reserve", "release 3"]
    assert orchestrator.store.take_due()[0] == []
    orchestrator.store.close()
    app.close()


# --- memory:// -------------------------------------------------------------------------------------------------------


def test_a_worker_thread_on_the_memory_broker_runs_sagas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULTIAGENTS_REDIS_URL", raising=False)
    app = Celery(f"memory-{uuid4().hex[:8]}", broker="memory://")
    app.conf.broker_transport_options = {"polling_interval": 0.01}
    app.conf.multiagents_lease = 3
    orchestrator = init_app(app)
    called.clear()

    with start_worker(app, pool="solo", perform_ping_check=False, loglevel="WARNING"):
        done = orchestrator.start(order, {"quantity": 3}).result(timeout=20)
        failed = orchestrator.start(define(price, "eager.refuse"), {"quantity": 7})
        with pytest.raises(WorkflowFailedError):
            failed.result(timeout=20)

    assert done["charged"] == 6
    assert called[-1] == "release 7"
    InMemoryStateStore.shared().clear()
    app.close()


def test_waits_sleeps_and_choices_run_in_process_too(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("eager-waits")
        .add_sleep("a_month", 30 * 86_400)
        .add_wait("paid", signal="payment")
        .add_choice("route", lambda ctx: ctx["paid"]["how"], {"card": "eager.reserve", "cash": []})
        .build()
    )

    run = orchestrator.start(workflow, {"quantity": 2})
    outcome = run.signal("payment", {"how": "card"})

    assert outcome == "received"
    assert run.result(timeout=1)["route"] == "card"


def test_maps_of_children_that_wait_and_local_steps_run_in_process_too(orchestrator: Orchestrator) -> None:
    review = WorkflowBuilder("eager-review").add_wait("verdict").add_step("eager.price", local=True).build()
    reviews = (
        WorkflowBuilder("eager-reviews")
        .add_map("review", review, over="papers")
        .add_savepoint("reviewed")
        .add_step("count", "eager.reserve", local=True)
        .build()
    )

    run = orchestrator.start(reviews, {"papers": ["p", "q"], "quantity": 2}, transaction_id="eager-papers")
    for number in range(2):
        orchestrator.get(f"eager-papers:review:{number}").signal("verdict", {"grade": number})

    assert run.result(timeout=1)["review"] == [{"verdict": {"grade": n}, "price": 4} for n in range(2)]


def test_S29_in_process_a_run_waits_for_a_lock_until_the_run_that_has_it_is_over(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("eager-locks")
        .add_lock("alone", "eager:{sku}", timeout=0.01)
        .add_wait("go")
        .add_step("reserve", "eager.reserve")
        .build()
    )
    first, second, third = (orchestrator.start(workflow, {"sku": "a", "quantity": n}) for n in (1, 2, 3))
    for run in (second, third):
        run.signal("go")
    assert {run.status for run in (first, second, third)} == {"running"}

    first.signal("go")

    tokens = [run.result(timeout=1)["alone"]["token"] for run in (first, second, third)]
    assert tokens == sorted(set(tokens))
