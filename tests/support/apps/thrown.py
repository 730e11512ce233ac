"""The app under test for what steps throw: each step raises what its run's input names, or has it put in."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import celery.exceptions
from celery import Celery

from multiagents import RetryPolicy, TerminalError, WorkflowBuilder, current_step, init_app, worker

if "THROWN_GROUP" in os.environ:  # a control group of this worker and its children
    (Path(os.environ["THROWN_GROUP"]) / "cgroup.procs").write_text(str(os.getpid()))

#: Longer than any test waits for an end: no attempt may be left to its lease.
SETTINGS = {"lease": 60.0, "sweep_interval": 0.3, "max_lost": 3}

app = Celery("thrown", broker=os.environ.get("CELERY_BROKER_URL"))
app.conf.update(worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
init_app(app, SETTINGS)


class PanicException(BaseException):
    """As a library in Rust raises it."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise PanicException("no words")

    __repr__ = __str__


class Stubborn(Exception):
    """Cannot be pickled, nor made anew from its arguments."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code
        self.lock = threading.Lock()


class Poison(Exception):
    """Ends whoever reads its pickle."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit(9)",))


def _gevent_timeout() -> BaseException:
    from gevent import Timeout

    return Timeout(5)


def _nested() -> BaseException:
    error: BaseException = ValueError("the first")
    for _ in range(3000):
        error.__context__, error = None, _caused(error)
    return error


def _caused(cause: BaseException) -> BaseException:
    error = ValueError("because of")
    error.__cause__ = cause
    return error


#: What a step may raise, by name. All of it is a failed attempt, recorded at once, and the worker goes on.
RAISED: dict[str, Callable[[], BaseException]] = {
    "value error": lambda: ValueError("no such thing"),
    "exit": lambda: SystemExit("bad input file"),
    "exit 0": lambda: SystemExit(0),
    "memory": lambda: MemoryError("Unable to allocate 50.3 GiB"),
    "panic": lambda: PanicException("index out of bounds"),
    "keyboard": KeyboardInterrupt,
    "cancelled": asyncio.CancelledError,
    "generator exit": GeneratorExit,
    "gevent timeout": _gevent_timeout,
    "worker shutdown": lambda: celery.exceptions.WorkerShutdown(0),
    "worker terminate": lambda: celery.exceptions.WorkerTerminate(1),
    "ignore": celery.exceptions.Ignore,
    "reject": lambda: celery.exceptions.Reject("no", requeue=True),
    "retry": lambda: celery.exceptions.Retry("later"),
    "worker lost": lambda: celery.exceptions.WorkerLostError("not me"),
    "task revoked": lambda: celery.exceptions.TaskRevokedError("no"),
    "group": lambda: BaseExceptionGroup("both", [PanicException("a"), MemoryError("b")]),
    "unspeakable": Unspeakable,
    "stubborn": lambda: Stubborn("it cannot be pickled", code=7),
    "poison": Poison,
    "nested": _nested,
    "surrogate": lambda: type("\udc80", (Exception,), {"__module__": "\udc80"})("\udc80" * 10),
    "stop iteration": StopIteration,
    "recursion": lambda: RecursionError("too deep"),
}

_BEATS: dict[str, Callable[[], Any]] = {
    "datetime": lambda: {"at": datetime.now(UTC)},
    "decimal": lambda: Decimal("1.5"),
    "set": lambda: {1, 2},
    "nan": lambda: float("nan"),
    "object": object,
    "surrogate": lambda: "\udc80",
    "huge": lambda: "x" * 50_000_000,
    "keys": lambda: {(1, 2): 3},
    "deep": lambda: __import__("functools").reduce(lambda inner, _: [inner], range(5000), []),
    "unspeakable": Unspeakable,
}
BEATS = tuple(_BEATS)


@worker("throw", retry=RetryPolicy(max_attempts=2, initial_interval=0.1, jitter=False))
def throw(context: dict[str, Any]) -> Any:
    if context["what"] is not None:
        error = RAISED[context["what"]]()
        raise error


@worker("throw_async", retry=RetryPolicy(max_attempts=2, initial_interval=0.1, jitter=False))
async def throw_async(context: dict[str, Any]) -> Any:
    await asyncio.sleep(0)
    if context["what"] == "loop":
        asyncio.get_running_loop().stop()
    elif context["what"] is not None:
        error = RAISED[context["what"]]()
        raise error


@worker("idle")
def idle(context: dict[str, Any]) -> None:
    pass


@worker("beat")
def beat(context: dict[str, Any]) -> dict[str, Any]:
    for _ in range(10):
        current_step().heartbeat(_BEATS[context["what"]]())
        time.sleep(0.05)
    return {"runs": 1}


@worker("linger", retry=RetryPolicy(max_attempts=2, initial_interval=0.1, jitter=False))
def linger(context: dict[str, Any]) -> dict[str, Any]:
    """Take long the first time."""
    if current_step().attempt == 1:
        time.sleep(context.get("seconds", 60))
    return {"attempt": current_step().attempt}


@worker("declines")
def declines(context: dict[str, Any]) -> None:
    raise TerminalError("the card was declined")


@worker("dawdles", time_limit=1, retry=RetryPolicy(max_attempts=1))
def dawdles(context: dict[str, Any]) -> None:
    time.sleep(30)


@worker("waits_for_another", retry=RetryPolicy(max_attempts=1))
def waits_for_another(context: dict[str, Any]) -> Any:
    return app.multiagents.get(current_step().transaction_id).result(timeout=1)  # type: ignore[attr-defined]


DEATHS: dict[str, Callable[[], Any]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "abort": os.abort,
    "exit 3": lambda: os._exit(3),
    "exit 0": lambda: os._exit(0),
    "memory": lambda: bytearray(b"x" * 400_000_000),
    "ulimit": lambda: (resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)), bytearray(2**31)),
}


@worker("die", retry=RetryPolicy(max_attempts=1))
def die(context: dict[str, Any]) -> None:
    DEATHS[context["how"]]()


@worker("grow", retry=RetryPolicy(max_attempts=1))
def grow(context: dict[str, Any]) -> dict[str, Any]:
    """Keep more memory than a process may have that is to go on."""
    _kept.append(bytearray(b"x" * 200_000_000))
    return {current_step().step: os.getpid()}


_kept: list[bytearray] = []


@worker("die_once", retry=RetryPolicy(max_attempts=1))
def die_once(context: dict[str, Any]) -> dict[str, Any]:
    if current_step().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"attempt": current_step().attempt}


#: A local step runs in the process of the one before it, and has a time limit of its own.
long_held = (
    WorkflowBuilder("long_held").add_step("first", "idle", timeout=1).add_step("then", "linger", local=True).build()
)
held = WorkflowBuilder("held").add_step("first", "idle").add_step("then", "die_once", local=True).build()
declining = WorkflowBuilder("declining").add_step("pay", "declines").build()
dawdling = WorkflowBuilder("dawdling").add_step("it", "dawdles", timeout=60).build()
lazing = WorkflowBuilder("lazing").add_step("linger", "linger", retry=RetryPolicy(max_attempts=1)).build()
asking = WorkflowBuilder("asking").add_step("it", "waits_for_another").build()
growing = WorkflowBuilder("growing").add_step("first", "grow").add_step("second", "grow").build()
dying = WorkflowBuilder("dying").add_step("die", "die").build()
sync_flow = WorkflowBuilder("sync_flow").add_step("throw", "throw").build()
async_flow = WorkflowBuilder("async_flow").add_step("throw", "throw_async").build()
beating = WorkflowBuilder("beating").add_step("beat", "beat").build()
lingering = WorkflowBuilder("lingering").add_step("linger", "linger").build()


def _raise(context: dict[str, Any]) -> Any:
    error = RAISED[context["what"]]()
    raise error


#: User code that is asked between two steps.
deciding = WorkflowBuilder("deciding").add_step("first", "idle").add_step("second", "throw", when=_raise).build()
