"""The app under test for who listens to Celery tasks: their own hooks, and receivers of Celery's signals."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery, Task, signals
from celery.exceptions import Ignore, Reject

from multiagents import RetryPolicy, WorkflowBuilder, celery_task, init_app

SETTINGS = {"lease": 60.0, "sweep_interval": 0.3}

app = Celery("heard", broker=os.environ.get("CELERY_BROKER_URL"))
init_app(app, SETTINGS)


def message_id(task: str) -> str:
    """The id of the task's own message, which is there to be compared with."""
    return f"message-{task}"


def _write(what: str, task: Any, /, **told: Any) -> None:
    """Write down what was told of a task, in words that are the same for each execution of it."""
    words = {name: _in_words(value, task) for name, value in told.items()}
    with Path(os.environ["HEARD"]).open("a") as file:
        file.write(json.dumps([task.name, what, words]) + "\n")


def _in_words(value: Any, task: Any) -> Any:
    kind = type(value).__name__
    if isinstance(value, str):
        looks_so = value == message_id(task.name) or "/it/do/" in value
        is_id = looks_so and value == (task.request.id or value)  # a main process has no request
        return "its id" if is_id else "traceback" if value.startswith("Traceback") else value
    if kind == "ExceptionInfo":
        raised = getattr(value.exception, "exc", value.exception)  # as it is in the process that raised it
        return [kind, type(raised).__name__, "in heard_" in str(value)]
    if kind == "Context":
        return [kind, value.id == task.request.id, value.task, list(value.args), dict(value.kwargs), value.retries]
    if kind in ("float", "traceback"):
        return kind
    return value.name if isinstance(value, Task) else value if isinstance(value, (list, dict)) else repr(value)


def _hook(name: str, *arguments: str) -> Any:
    def hook(self: Any, *given: Any) -> None:
        _write(name, self, **dict(zip(arguments, given, strict=True)))

    return hook


class Listening(Task):
    """A task whose hooks write down what they are told."""

    before_start = _hook("before_start", "task_id", "args", "kwargs")
    on_success = _hook("on_success", "retval", "task_id", "args", "kwargs")
    on_failure = _hook("on_failure", "exc", "task_id", "args", "kwargs", "einfo")
    on_retry = _hook("on_retry", "exc", "task_id", "args", "kwargs", "einfo")
    after_return = _hook("after_return", "status", "retval", "task_id", "args", "kwargs", "einfo")


def _listen(name: str) -> None:
    def told(sender: Any = None, signal: Any = None, **told_of: Any) -> None:
        if sender.name.startswith("heard."):
            _write(name, sender, **told_of)

    getattr(signals, name).connect(told, weak=False)


if "HEARD" in os.environ:
    for _name in ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry", "task_internal_error"):
        _listen(_name)


@app.task(name="heard.returns", base=Listening)
def heard_returns(amount: int, currency: str = "EUR") -> Any:
    return {"paid": f"{amount} {currency}"}


@app.task(name="heard.raises", base=Listening)
def heard_raises(amount: int, currency: str = "EUR") -> Any:
    raise ValueError("no money")


@app.task(name="heard.retries", base=Listening, bind=True, max_retries=1)
def heard_retries(self: Any, amount: int, currency: str = "EUR") -> Any:
    if not self.request.retries:
        raise self.retry(exc=ValueError("not yet"), countdown=0.5)
    return {"retries": self.request.retries}


@app.task(name="heard.gives_up", base=Listening, autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0.5)
def heard_gives_up(amount: int, currency: str = "EUR") -> Any:
    raise ValueError("never")


@app.task(name="heard.ignores", base=Listening)
def heard_ignores(amount: int, currency: str = "EUR") -> Any:
    raise Ignore


@app.task(name="heard.rejects", base=Listening)
def heard_rejects(amount: int, currency: str = "EUR") -> Any:
    raise Reject("never", requeue=False)


#: Which task is executed how often.
EXECUTIONS = {"returns": 1, "raises": 1, "retries": 2, "gives_up": 2, "ignores": 1, "rejects": 1}
FLOWS = {
    name: WorkflowBuilder(f"heard_{name}")
    .add_step(
        "it",
        celery_task(f"heard.{name}"),
        inputs={"amount": "amount", "currency": "currency"},
        retry=RetryPolicy(max_attempts=1),
    )
    .build()
    for name in EXECUTIONS
}
