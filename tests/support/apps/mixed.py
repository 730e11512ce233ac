"""The app of the tests that mix plain Celery with sagas: ordinary tasks, and workers whose steps say what they got.

Celery settings come from the environment variable ``MULTIAGENTS_TEST_CONF`` (JSON), those of the library as always.
What runs is written to lists in the store's database: ``seen:<task>``, and ``gate:<name>`` lets a waiting task go on.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import closing
from typing import Any

import redis
from celery import Celery, current_task, shared_task, signals

from multiagents import RetryPolicy, WorkflowBuilder, celery_task, init_app, worker

#: Makes the worker's process add this header to all that it publishes.
TRACE = "MULTIAGENTS_TEST_TRACE"
#: ``<task>``: the process that is about to publish this task for the first time is killed in that moment.
KILL = "MULTIAGENTS_TEST_KILL_BEFORE_PUBLISH"


def make_app(broker: str, store: str, conf: dict[str, Any] | None = None, **settings: Any) -> Celery:
    """An app for a broker and a store; the store's database is the result backend, too."""
    made = Celery("plain", broker=broker, backend=store, set_as_current=False)
    made.conf.update(
        worker_prefetch_multiplier=4,
        broker_connection_retry_on_startup=True,
        worker_send_task_events=True,
        task_routes={"plain.routed": {"queue": "urgent", "priority": 6}},
        beat_schedule={"often": {"task": "plain.tick", "schedule": 0.3}},
    )
    made.conf.update(conf or {})
    init_app(made, {"redis_url": store, **settings})
    return made


def client() -> closing[redis.Redis]:
    url = os.environ["MULTIAGENTS_REDIS_URL"]
    return closing(redis.Redis.from_url(url, decode_responses=True, socket_timeout=40))


def note(**more: Any) -> None:
    """Tell the test what this task got from Celery."""
    request = current_task.request
    entry = {
        "id": request.id,
        "queue": request.delivery_info["routing_key"],
        "priority": request.delivery_info.get("priority"),
        "time_limit": request.timelimit,
        "root": request.root_id,
        "parent": request.parent_id,
        "trace": request.get("x_trace"),
        "at": time.time(),
        **more,
    }
    with client() as store:
        store.rpush(f"seen:{request.task}", json.dumps(entry))


def wait_at_gate(name: str) -> None:
    with client() as store:
        store.rpush("waiting", name)
        store.blpop([f"gate:{name}"], timeout=30)


# --- ordinary tasks -------------------------------------------------------------------------------------------------


@shared_task(name="plain.add")
def add(x: int, y: int) -> int:
    return x + y


@shared_task(name="plain.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task(name="plain.refuse")
def refuse() -> None:
    raise ValueError("no")


@shared_task(name="plain.tick")
def tick() -> None:
    note()


@shared_task(name="plain.early")
def early(gate: str) -> str:
    wait_at_gate(gate)
    return gate


@shared_task(name="plain.late", acks_late=True)
def late(gate: str) -> str:
    wait_at_gate(gate)
    return gate


@shared_task(name="plain.limited", rate_limit="5/s")
def limited() -> None:
    note()


# --- workers --------------------------------------------------------------------------------------------------------


@shared_task(name="plain.charge", bind=True, max_retries=3)
def charge(self: Any, amount: int, currency: str = "EUR") -> dict[str, Any]:
    """Know nothing of workflows."""
    if amount < 0:
        raise self.retry(exc=ValueError("less than nothing"), countdown=0.05)
    return {"charge_id": f"{amount} {currency}"}


@shared_task(name="plain.refund")
def refund(charge_id: str) -> dict[str, Any]:
    return {"refunded": charge_id}


#: Tasks as they are, as a step and its undo.
CHARGE = celery_task(charge, retry=RetryPolicy(max_attempts=2, initial_interval=0.05, jitter=False))
REFUND = celery_task("plain.refund")


@shared_task(name="plain.nothing", ignore_result=True)
def nothing() -> None:
    """What others' tasks do beside the engine's."""
    time.sleep(0.02)


@worker("plain.take")
def take(context: dict[str, Any]) -> dict[str, Any]:
    note()
    return {"taken": context.get("item", "nothing")}


@worker("plain.deaf", timeout=1, retry=RetryPolicy(max_attempts=1))
def deaf(context: dict[str, Any]) -> dict[str, Any]:
    # As a library in C does that neither returns nor lets Python handle a signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)
    return {}


@worker("plain.put_back")
def put_back(context: dict[str, Any]) -> dict[str, Any]:
    note()
    return {}


@worker("plain.routed")
def routed(context: dict[str, Any]) -> dict[str, Any]:
    note()
    return {}


@worker("plain.of_orders", queue="orders")
def of_orders(context: dict[str, Any]) -> dict[str, Any]:
    note()
    return {}


@worker("plain.slow", rate_limit="5/s")
def slow(context: dict[str, Any]) -> dict[str, Any]:
    note()
    return {}


@worker("plain.held")
def held(context: dict[str, Any]) -> dict[str, Any]:
    note(pid=os.getpid())
    wait_at_gate(context["gate"])
    return {"held": True}


@worker("plain.held_late", acks_late=True)
def held_late(context: dict[str, Any]) -> dict[str, Any]:
    return held(context)


@worker("plain.break_down", retry=RetryPolicy(max_attempts=1))
def break_down(context: dict[str, Any]) -> dict[str, Any]:
    note()
    raise RuntimeError("it broke")


deaf_step = WorkflowBuilder("deaf").add_step("deaf", deaf).build()
one_step = WorkflowBuilder("plain.one_step").add_step("take", take).build()
three_steps = (
    WorkflowBuilder("plain.three_steps").add_step("one", take).add_step("two", take).add_step("three", take).build()
)
held_up = (
    WorkflowBuilder("plain.held_up")
    .add_step("held", held, retry=RetryPolicy(max_attempts=2, initial_interval=0.05))
    .add_step("take", take)
    .build()
)
taken_back = (
    WorkflowBuilder("plain.taken_back")
    .add_step("one", take, compensation=put_back)
    .add_step("two", take, compensation=put_back)
    .add_step("three", take, compensation=put_back)
    .add_step("break", break_down)
    .build()
)
sent_about = (
    WorkflowBuilder("plain.sent_about")
    .add_step("by_route", routed)
    .add_step("by_worker", of_orders)
    .add_step("by_step", take, queue="urgent", priority=9, timeout=20)
    .add_step("by_default", take)
    .build()
)
of_tasks = (
    WorkflowBuilder("plain.of_tasks")
    .add_step("charge", CHARGE, inputs={"amount": "total"}, compensation=REFUND)
    .add_step("again", celery_task("plain.add"), inputs={"x": "total", "y": "total"})
    .add_step("break", break_down, when=lambda ctx: ctx.get("breaks", False))
    .build()
)
rationed = WorkflowBuilder("plain.rationed").add_step("slow", slow).build()


# --- what the environment asks for ----------------------------------------------------------------------------------


def _before_publish(sender: str | None = None, headers: dict[str, Any] | None = None, **_kwargs: Any) -> None:
    if headers is not None and os.environ.get(TRACE):
        headers["x_trace"] = os.environ[TRACE]
    if sender is not None and os.environ.get(KILL) == sender:
        with client() as store:
            if store.set(f"killed:{sender}", os.getpid(), nx=True):
                os.kill(os.getpid(), signal.SIGKILL)


if TRACE in os.environ or KILL in os.environ:
    signals.before_task_publish.connect(_before_publish)

if "CELERY_BROKER_URL" in os.environ and "MULTIAGENTS_REDIS_URL" in os.environ:
    app = make_app(
        os.environ["CELERY_BROKER_URL"],
        os.environ["MULTIAGENTS_REDIS_URL"],
        json.loads(os.environ.get("MULTIAGENTS_TEST_CONF", "{}")),
    )
