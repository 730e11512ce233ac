"""``@worker``: a Celery task of whatever app there is, and still the plain function."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from celery import VERSION, Celery, Task, current_task
from celery.exceptions import Ignore, MaxRetriesExceededError
from pydantic import BaseModel

from multiagents import worker
from multiagents.exceptions import (
    ConfigurationError,
    WorkerAlreadyRegisteredError,
    WorkerError,
    WorkerNotFoundError,
)
from multiagents.names import HEADER, Correlation, Direction
from multiagents.retry import RetryPolicy
from multiagents.state_store.records import ClaimRefused
from multiagents.worker_sdk import tasks, workers

IDS = {"transaction_id": "order-1", "step": "charge", "direction": "do", "attempt": 1, "definition": "abc", "nonce": ""}


class Order(BaseModel):
    order_id: str


def a_method(self: Any, order_id: str) -> None: ...


@worker("decorated_charge", retry_attempts=5, retry_delay=2, timeout=30, queue="payments")
def charge_card(context: dict[str, Any]) -> dict[str, Any]:
    """Charge the card."""
    return {"charged": context["total"]}


@worker
async def decorated_ship(context: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"shipped": context["total"]}


@worker()
def decorated_typed(order: Order) -> Order:
    return order


ran: list[Any] = []


@worker
def decorated_linked(context: dict[str, Any]) -> None:
    ran.append((current_task.request.parent_id, context))


@worker("decorated_tries")
def tries_again(context: dict[str, Any]) -> None:
    tries_again.retry(exc=ValueError("again"), countdown=0, max_retries=0)


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("shop", broker="memory://", backend="cache+memory://") as app:
        app.conf.task_always_eager = True
        yield app


def installed(app: Celery, run: Any) -> None:
    app.multiagents_invocation = lambda _process: SimpleNamespace(run=run)  # type: ignore[attr-defined]


def test_it_is_still_the_plain_function() -> None:
    assert charge_card({"total": 3}) == {"charged": 3}
    assert asyncio.run(decorated_ship({"total": 3})) == {"shipped": 3}
    assert charge_card.__doc__ == "Charge the card."
    assert charge_card.__module__ == __name__


def test_it_says_what_it_is_without_an_app() -> None:
    code = (
        "from multiagents import worker\n"
        "from celery import _state\n"
        "@worker('charge', timeout=5)\n"
        "def charge(context): return {'ok': True}\n"
        "assert (charge.name, charge.worker_name, charge.step_timeout) == ('charge', 'charge', 5)\n"
        "assert charge({}) == {'ok': True} and 'charge' in repr(charge)\n"
        "assert _state.default_app is None\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_its_attributes_are_the_workers() -> None:
    assert charge_card.name == charge_card.worker_name == "decorated_charge"
    assert charge_card.retry_policy == RetryPolicy(max_attempts=5, initial_interval=2)
    assert charge_card.step_timeout == 30
    assert workers["decorated_charge"].queue == "payments"
    assert decorated_ship.name == "decorated_ship"
    assert decorated_ship.retry_policy is None


def test_it_is_a_task_of_every_app_under_its_own_name(app: Celery) -> None:
    with Celery("later", broker="memory://") as later:
        for each in (app, later):
            task = each.tasks["decorated_charge"]
            assert task.app is each
            assert task.name == "decorated_charge"


def test_it_is_built_on_the_apps_own_task_class() -> None:
    entered = []

    class FlaskTask(Task):  # type: ignore[type-arg]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            entered.append(self.name)
            return self.run(*args, **kwargs)

    with Celery("flask", broker="memory://", task_cls=FlaskTask) as app:
        app.conf.task_always_eager = True

        assert app.Task is not FlaskTask or issubclass(app.Task, FlaskTask)
        assert charge_card.delay({"total": 3}).get() == {"charged": 3}

    assert entered == ["decorated_charge"]


def test_outside_a_run_delay_runs_the_plain_function(app: Celery) -> None:
    assert charge_card.delay({"total": 3}).get() == {"charged": 3}
    assert decorated_ship.delay({"total": 3}).get() == {"shipped": 3}
    assert decorated_typed.delay({"order_id": "A-1"}).get() == {"order_id": "A-1"}


def test_wrong_arguments_are_refused_by_delay_as_celery_does(app: Celery) -> None:
    app.conf.task_always_eager = False

    with pytest.raises(TypeError):
        charge_card.delay(1, 2, 3)


def test_a_plain_message_goes_to_the_workers_queue(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    app.conf.task_always_eager = False
    sent = []
    monkeypatch.setattr(app, "send_task", lambda name, *_, **options: sent.append(options.get("queue")))

    charge_card.delay({"total": 3})
    charge_card.apply_async(({"total": 3},), queue="elsewhere")

    assert sent == ["payments", "elsewhere"]


def test_a_message_of_the_engine_goes_through_the_invocation(app: Celery) -> None:
    calls: list[Any] = []

    def run(worker: Any, kwargs: Any, **about: Any) -> list[Any]:
        calls.append((worker.name, kwargs, about["pool"]))
        return []

    installed(app, run)

    answer = charge_card.apply_async(kwargs=IDS, headers={HEADER: {"v": 1}})

    assert answer.get() is None
    assert calls == [("decorated_charge", IDS, "main")]


def test_what_is_to_be_linked_runs_after_the_task_as_its_child(app: Celery) -> None:
    linked = app.tasks["decorated_linked"].si({"total": 9})
    installed(app, lambda *_, **__: (linked,))
    ran.clear()

    charge_card.apply_async(kwargs=IDS, task_id="order-1/charge/undo/1", headers={HEADER: {"v": 1}})

    # Celery 5.5 tells who runs in the process of its parent nothing of it.
    parent = None if VERSION < (5, 6) else "order-1/charge/undo/1"
    assert ran == [(parent, {"total": 9})]


def test_a_refused_claim_is_ignored(app: Celery) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise ClaimRefused(Correlation("order-1", "charge", Direction.DO, 1), "it is over")

    installed(app, run)

    answer = charge_card.apply_async(kwargs=IDS, headers={HEADER: {"v": 1}})

    assert answer.state == "IGNORED"
    assert isinstance(answer.result, Ignore) or answer.result is None


def test_the_runtime_is_made_by_the_first_step_of_a_process_and_anew_after_a_fork(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(tasks, "Invocation", lambda _runtime: SimpleNamespace(run=lambda *_, **__: []))
    tasks.install(app, lambda: made.append(os.getpid()))  # type: ignore[arg-type,return-value]

    def step() -> None:
        charge_card.apply_async(kwargs=IDS, headers={HEADER: {"v": 1}}, throw=True)

    assert made == []
    step()
    step()
    assert made == [os.getpid()]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of what this test is about
        child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not follow the fork
        step()
        step()
        os._exit(made[1:] != [os.getpid()])
    assert os.waitpid(child, 0)[1] == 0


def test_an_app_without_a_runtime_says_what_is_missing(app: Celery) -> None:
    with pytest.raises(ConfigurationError, match=r'app "shop" has no multiagents runtime.*init_app'):
        charge_card.apply_async(kwargs=IDS, headers={HEADER: {"v": 1}}, throw=True)


def test_retry_is_celerys_outside_a_run_and_a_failure_inside(app: Celery) -> None:
    with pytest.raises((ValueError, MaxRetriesExceededError)):
        tries_again.apply(({},), throw=True)

    installed(app, lambda worker, kwargs, **_: worker.fn(kwargs))

    with pytest.raises(ValueError, match="again"):
        tries_again.apply(kwargs=IDS, headers={HEADER: {"v": 1}}, throw=True)


class TestRegistration:
    def test_a_second_function_of_the_name_is_refused(self) -> None:
        with pytest.raises(WorkerAlreadyRegisteredError, match="registered already by"):

            @worker("decorated_charge")
            def another(context: dict[str, Any]) -> None: ...

    def test_a_reloaded_module_takes_the_place_of_the_old(self, app: Celery) -> None:
        def load(answer: int) -> Any:
            @worker("decorated_reloaded")
            def decorated_reloaded(context: dict[str, Any]) -> dict[str, Any]:
                return {"answer": answer}

            return decorated_reloaded

        load(1)
        assert app.tasks["decorated_reloaded"].delay({}).get() == {"answer": 1}
        load(2)

        assert app.tasks["decorated_reloaded"].delay({}).get() == {"answer": 2}

    def test_an_unknown_worker_names_the_nearest(self) -> None:
        with pytest.raises(WorkerNotFoundError, match='did you mean "decorated_charge"'):
            workers["decorated_chrage"]

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"retry": 3}, r"must be a RetryPolicy, got 3"),
            ({"retry": RetryPolicy(), "retry_attempts": 2}, "give one of them"),
            ({"timeout": -1}, "timeout must be a number of seconds of at least 0, got -1"),
            ({"timeout": True}, "timeout must be"),
            ({"heartbeat_timeout": 0}, "heartbeat_timeout must be a number of seconds above 0, got 0"),
            ({"bind": True}, r"option bind=; call current_step\(\)"),
            ({"autoretry_for": (ValueError,)}, "the engine retries"),
            ({"max_retries": 5}, "option max_retries=; say retry=RetryPolicy"),
            ({"timout": 5}, 'no option timout=, and neither has a Celery task; did you mean "timeout"'),
            ({"retrys": RetryPolicy()}, 'did you mean "retry"'),
        ],
    )
    def test_wrong_arguments_say_what_was_expected(self, arguments: dict[str, Any], says: str) -> None:
        with pytest.raises(WorkerError, match=says):
            worker("decorated_wrong", **arguments)

    def test_options_of_a_celery_task_and_of_its_own_kind_are_let_through(self) -> None:
        worker("decorated_options", rate_limit="10/m", throws=(ValueError,), queue_name="payments")(
            lambda context: None
        )

        assert "decorated_options" in workers

    def test_a_name_that_cannot_be_used_is_refused(self) -> None:
        with pytest.raises(WorkerError, match="worker name 'two words' cannot be used"):
            worker("two words")(lambda context: None)

    @pytest.mark.parametrize(
        ("function", "says"),
        [
            (lru_cache(lambda order_id: {}), "it is cached"),
            (lambda: (yield 1), "it yields, and a step has one result"),
            (a_method, "nobody gives it its self"),
            (pow, "a builtin that takes more than the context"),
        ],
        ids=["cached", "generator", "method", "builtin"],
    )
    def test_what_cannot_do_a_step_is_refused(self, function: Any, says: str) -> None:
        with pytest.raises(WorkerError, match=says):
            worker("decorated_refused")(function)

    @pytest.mark.parametrize(
        ("function", "given", "got"),
        [
            (lambda total: {"twice": total * 2}, {"total": 3}, {"twice": 6}),
            (partial(lambda total, by: total * by, by=5), {"total": 3}, 15),
            (len, {"total": 3}, 1),
            (lambda **context: context, {"total": 3}, {"total": 3}),
        ],
        ids=["lambda", "partial", "builtin", "rest"],
    )
    def test_whatever_else_can_be_called_can_do_a_step(
        self, app: Celery, function: Any, given: dict[str, Any], got: Any
    ) -> None:
        task = worker(f"decorated_{uuid4().hex[:8]}")(function)

        positional, keywords = task.worker.signature.arguments(given)

        assert task(*positional, **keywords) == got
        assert task.name in app.tasks

    def test_decorating_twice_is_refused(self) -> None:
        with pytest.raises(WorkerError, match="decorate the function itself, once"):
            worker("decorated_twice")(charge_card)


def test_it_is_pickled_as_the_celery_task(app: Celery) -> None:
    task = app.tasks["decorated_charge"]

    assert pickle.loads(pickle.dumps(task)).name == "decorated_charge"


def test_messages_of_the_engine_are_acknowledged_late_and_no_worker_is_lost_twice(app: Celery) -> None:
    task = app.tasks["decorated_charge"]

    assert (task.acks_late, task.reject_on_worker_lost, task.retry_on_worker_lost) == (True, False, False)
