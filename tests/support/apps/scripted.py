"""The app under test for the rules: workers that do what a run's own input tells them to.

A run's input may hold a ``script``: step (or ``<step>.undo``, ``<step>.probe``) -> what each attempt does, from the
first on; later attempts succeed. What an attempt does is a dict (returned as its result), one of `ACTIONS`, or a list
of these, done in turn. Every attempt notes in a journal what it was given, before it does anything.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from typing import Any

import redis
from celery import Celery, current_app, shared_task
from pydantic import BaseModel

from multiagents import (
    Limit,
    OutcomeUnknownError,
    RetryPolicy,
    Step,
    TerminalError,
    WorkflowBuilder,
    current_step,
    init_app,
    worker,
)
from multiagents.address import Address
from multiagents.exceptions import UndoMissingWarning
from multiagents.redis import pool_of

# Workflows of tests are about one matter each; a process that pytest does not see is to be as silent as pytest is.
warnings.simplefilter("ignore", UndoMissingWarning)

#: Leases are short, so that losses are found soon; longer than any pause a busy test machine makes.
SETTINGS = {"lease": 2.0, "sweep_interval": 0.3, "max_lost": 3, "schedule_to_start": 4.0}


def make_app(broker: str | None, **settings: Any) -> Celery:
    """A Celery app with all workers of this module, for a broker; ``settings`` as `multiagents.init_app` takes them."""
    made = Celery("rules", broker=broker, set_as_current=False)
    made.conf.update(worker_prefetch_multiplier=4, broker_connection_retry_on_startup=True)
    init_app(made, settings)
    return made


#: What ``celery -A tests.support.apps.scripted worker`` runs; its settings come from the environment.
app = make_app(os.environ.get("CELERY_BROKER_URL"))


# --- journal and gates ----------------------------------------------------------------------------------------------


def client(server: Address | str) -> redis.Redis:
    address = Address.parse(server) if isinstance(server, str) else server
    return redis.Redis.from_pool(pool_of(address, decode_responses=True, socket_timeout=40))


def _here() -> closing[redis.Redis]:
    # A connection of its own each time: it works in every pool, thread and event loop alike.
    return closing(client(current_app.multiagents.runtime.address))


def note(**more: Any) -> None:
    """Write into the run's journal what this attempt was given."""
    step = current_step()
    entry = {
        "step": step.step,
        "direction": step.direction,
        "attempt": step.attempt,
        "key": step.idempotency_key,
        "pid": os.getpid(),
        "probing": step.probing,
        **more,
    }
    if step.direction == "undo":
        entry |= {
            "input": step.input,
            "result": step.result,
            "outcome": step.outcome,
            "error": step.error.message if step.error else None,
        }
    with _here() as journal:
        journal.rpush(f"journal:{step.transaction_id}", json.dumps(entry))


def wait_at_gate(seconds: float = 30.0) -> None:
    """Wait until the test lets this step go on."""
    step = current_step()
    with _here() as gates:
        gates.blpop([f"gate:{step.transaction_id}:{step.step}"], timeout=seconds)


# --- what an attempt can be told to do ------------------------------------------------------------------------------


class CardDeclined(Exception):
    """As a user would write it."""


class Stubborn(Exception):
    """Cannot be pickled, nor made anew from its arguments."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code
        self.lock = threading.Lock()


def _raise(error: Exception) -> Any:
    raise error


def _wait_until_cancelled() -> dict[str, Any]:
    step = current_step()
    limit = time.monotonic() + 20
    while not step.is_cancelled() and time.monotonic() < limit:
        time.sleep(0.05)
    return {"saw_cancel": step.is_cancelled()}


def _wait() -> None:
    wait_at_gate()


def _beat() -> None:
    for number in range(12):
        current_step().heartbeat({"done": number})
        time.sleep(0.1)


#: How many files ``say`` says it has done.
FILES = 900


def _say() -> None:
    for number in range(FILES):
        current_step().stream({"file": number + 1, "of": FILES})


def _half() -> None:
    current_step().stream("half")
    time.sleep(0.3)  # until it is written


ACTIONS: dict[str, Callable[[], Any]] = {
    "ok": lambda: None,
    "fail": lambda: _raise(ValueError("no such thing")),
    "declined": lambda: _raise(CardDeclined("the card was declined")),
    "terminal": lambda: _raise(TerminalError("it will never work")),
    "unknown": lambda: _raise(OutcomeUnknownError("the provider did not answer")),
    "stubborn": lambda: _raise(Stubborn("it cannot be pickled", code=7)),
    "exit": lambda: _raise(SystemExit(3)),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "wait": _wait,
    "wait_until_cancelled": _wait_until_cancelled,
    "hang": lambda: time.sleep(1.7),
    "beat": _beat,
    "say": _say,
    "half": _half,
    "say_object": lambda: current_step().stream(object()),
    "say_much": lambda: current_step().stream("x" * 70_000),
    "none": lambda: None,
    "key": lambda: {"data": {1: "one"}},
    "not_json": lambda: {"now": object()},
    "nan": lambda: {"share": float("nan")},
    "11 MB": lambda: {"blob": "x" * 11_000_000},
    "number": lambda: 42,
}


def act(context: dict[str, Any]) -> Any:
    step = current_step()
    name = step.step if step.direction == "do" else f"{step.step}.undo"
    script = context.get("script", {}).get(name, [])
    return _do(script[step.attempt - 1] if step.attempt <= len(script) else "ok")


def _do(action: Any) -> Any:
    result = None
    for deed in action if isinstance(action, list) else [action]:
        result = deed if isinstance(deed, dict) else ACTIONS[deed]()
    return result


# --- workers --------------------------------------------------------------------------------------------------------

#: Quick retries: what is tested is that they come, not how long they take.
QUICK = RetryPolicy(max_attempts=3, initial_interval=0.05, backoff_coefficient=1.0, jitter=False)


@shared_task(name="somebody.elses", ignore_result=True)
def somebody_elses() -> None:
    """What others' tasks do beside the engine's."""
    time.sleep(0.05)


@worker("play", retry=QUICK)
def play(context: dict[str, Any]) -> Any:
    note()
    return act(context)


@worker("undo", retry=QUICK)
def undo(context: dict[str, Any]) -> Any:
    note(context={name: value for name, value in context.items() if name != "script"})
    return act(context)


@worker("probe", retry=RetryPolicy(max_attempts=2, initial_interval=0.05, jitter=False))
def probe(context: dict[str, Any]) -> Any:
    """Answer as the script says; what nobody told it, it cannot tell."""
    step = current_step()
    with _here() as asked:
        number = asked.incr(f"asked:{step.transaction_id}:{step.step}")
    note(input=step.input, error=step.error.message if step.error else None, number=number)
    script = context.get("script", {}).get(f"{step.step}.probe", [])
    return _do(script[number - 1] if number <= len(script) else {"outcome": "unknown"})


@worker("play_async", retry=QUICK)
async def play_async(context: dict[str, Any]) -> Any:
    await asyncio.to_thread(note)
    return await asyncio.to_thread(act, context)


@worker("hang_async", retry=RetryPolicy(max_attempts=1))
async def hang_async(context: dict[str, Any]) -> None:
    await asyncio.sleep(20)


@worker("limited", timeout=0.5, retry=RetryPolicy(max_attempts=1))
def limited(context: dict[str, Any]) -> Any:
    note()
    return act(context)


@worker("watched", heartbeat_timeout=0.7, retry=RetryPolicy(max_attempts=1))
def watched(context: dict[str, Any]) -> Any:
    note()
    return act(context)


@worker("echo")
def echo(context: Any) -> dict[str, Any]:
    """What it was given."""
    return {f"{current_step().step}_saw": context}


@worker("choosy", retry=RetryPolicy(max_attempts=4, initial_interval=0.05, jitter=False, non_retryable=(CardDeclined,)))
def choosy(context: dict[str, Any]) -> Any:
    note()
    return act(context)


class Order(BaseModel):
    order_id: str
    quantity: int


class Receipt(BaseModel):
    receipt: str
    total: float


@worker("price")
def price(order: Order) -> Receipt:
    return Receipt(receipt=f"R-{order.order_id}", total=2.5 * order.quantity)


@worker("price_badly")
def price_badly(order: Order) -> Receipt:
    return {"receipt": f"R-{order.order_id}", "total": "a lot"}  # type: ignore[return-value]


@worker("wait_for_other_run", retry=RetryPolicy(max_attempts=1))
def wait_for_other_run(context: dict[str, Any]) -> Any:
    return current_app.multiagents.get(context["other"]).result(timeout=5)


@worker("metered", retry=QUICK, limit=Limit("metered:{lane}", concurrency=2))
def metered(context: dict[str, Any]) -> Any:
    """How many of a lane run at once, this one included."""
    with _here() as meter:
        running = f"metered:{context['lane']}"
        now = meter.incr(running)
        note(now=now, at=time.time())
        try:
            time.sleep(0.15)
            return act(context)
        finally:
            meter.decr(running)


@worker("read_results")
def read_results(context: dict[str, Any]) -> dict[str, Any]:
    return {"results": dict(current_step().results)}


# --- definitions with code: the others are made in the tests, and the worker knows them from the store alone ----------

conditional = (
    WorkflowBuilder("conditional")
    .add_step("first", "play")
    .add_step("maybe", "play", when=lambda ctx: ctx["wanted"])
    .add_step("last", "play", after=["maybe"])
    .build()
)

#: A first step that may be skipped: decided by the caller of ``start``.
conditional_entry = (
    WorkflowBuilder("conditional_entry")
    .add_step("maybe", "play", when=lambda ctx: ctx["wanted"])
    .add_step("last", "play")
    .build()
)

narrowed = (
    WorkflowBuilder("narrowed")
    .add_step("first", "play")
    .add_step("called", "echo", inputs=lambda ctx: {"twice": ctx["n"] * 2})
    .build()
)


class Decision(BaseModel):
    approved: bool
    limit: int = 0


#: Waits, choices and sleeps whose code only the worker (and the test) has.
routed = (
    WorkflowBuilder("routed")
    .add_step("first", "play")
    .add_choice(
        "route",
        lambda ctx: ctx["kind"],
        {"card": [Step("charge", "play", compensation="undo"), Step("receipt", "play")], "cash": "play", "gift": []},
        default="gift",
    )
    .add_step("last", "play")
    .build()
)
looping = (
    WorkflowBuilder("looping")
    .add_step("first", "play")
    .add_loop(
        "write",
        [Step("draft", "play", compensation="undo"), Step("review", "play")],
        lambda ctx: ctx["good"] >= 2,
        3,
        "fail",
    )
    .add_step("last", "play")
    .build()
)
napping = (
    WorkflowBuilder("napping")
    .add_step("first", "play")
    .add_sleep("nap", lambda ctx: ctx["nap"])
    .add_step("last", "play")
    .build()
)
expense = (
    WorkflowBuilder("expense")
    .add_step("book", "play", compensation="undo")
    .add_approval("manager", schema=Decision)
    .add_step("pay", "echo", inputs=lambda ctx: {"limit": ctx["manager"]["limit"]})
    .build()
)

#: Every item of a list is a run that waits for a person.
review = (
    WorkflowBuilder("review")
    .add_step("open", "play", compensation="undo")
    .add_wait("verdict")
    .add_step("close", "play")
    .build()
)
reviews = (
    WorkflowBuilder("reviews")
    .add_step("first", "play", compensation="undo")
    .add_map("review", review, over=lambda ctx: ctx["papers"])
    .add_step("last", "play")
    .build()
)

#: The first pass goes by air, the next by road.
parcel = (
    WorkflowBuilder("parcel")
    .add_step("pack", "play", compensation="undo")
    .add_savepoint("packed", 1)
    .add_choice(
        "way",
        lambda ctx: "air" if ctx["packed"]["attempt"] == 1 else "road",
        {"air": [Step("fly", "play", compensation="undo")], "road": [Step("drive", "play", compensation="undo")]},
    )
    .add_parallel("papers", [Step("customs", "play", compensation="undo"), Step("stamp", "play")])
    .add_step("deliver", "play", retry=RetryPolicy(max_attempts=1))
    .add_step("last", "echo")
    .build()
)

#: Runs that must not work on the same thing at the same time; the key is code that only the worker (and the test) has.
locking = (
    WorkflowBuilder("locking")
    .add_step("first", "play", compensation="undo")
    .add_lock("stock", lambda ctx: f"stock:{ctx['sku']}")
    .add_step("pick", "echo", inputs=lambda ctx: {"token": ctx["stock"]["token"]})
    .add_wait("go")
    .add_step("ship", "play")
    .build()
)
