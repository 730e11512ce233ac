"""The app under test for Celery tasks that were there already: what they ask of Celery, a step answers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, SoftTimeLimitExceeded

from multiagents import RetryPolicy, WorkflowBuilder, celery_task, init_app

SETTINGS = {"lease": 60.0, "sweep_interval": 0.3}

app = Celery("borrowed", broker=os.environ.get("CELERY_BROKER_URL"), backend=os.environ.get("CELERY_BROKER_URL"))
init_app(app, SETTINGS)


@app.task(name="shop.retries", bind=True, max_retries=3)
def retries(self: Any) -> Any:
    if self.request.retries < 3:
        raise self.retry(exc=ValueError("not yet"), countdown=0.1)
    return {"retries": self.request.retries}


@app.task(name="shop.gives_up", bind=True, max_retries=1, default_retry_delay=0.1)
def gives_up(self: Any) -> Any:
    raise self.retry(exc=ValueError("never"))


@app.task(name="shop.has_a_way_out", bind=True, max_retries=1, default_retry_delay=0.1)
def has_a_way_out(self: Any) -> Any:
    try:
        self.retry()
    except MaxRetriesExceededError:
        return {"way": "out"}


@app.task(name="shop.does_not_throw", bind=True, max_retries=2)
def does_not_throw(self: Any) -> Any:
    if self.request.retries == 0:
        self.retry(countdown=0.1, throw=False)
    return {"retries": self.request.retries}


@app.task(name="shop.auto", autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0.1)
def auto() -> Any:
    raise ValueError("auto")


@app.task(name="shop.raises")
def raises() -> Any:
    raise KeyError("its own")


@app.task(name="shop.ignores")
def ignores() -> Any:
    raise Ignore


@app.task(name="shop.rejects")
def rejects() -> Any:
    raise Reject("never", requeue=False)


@app.task(name="shop.comes_again")
def comes_again() -> Any:
    times = Path(os.environ["BORROWED_TIMES"])
    with times.open("a") as file:
        file.write("x")
    if times.stat().st_size < 3:
        raise Reject("later", requeue=True)
    return {"times": times.stat().st_size}


@app.task(name="shop.replaces", bind=True)
def replaces(self: Any) -> Any:
    raise self.replace(ignores.s())


@app.task(name="shop.soft", soft_time_limit=0.3, time_limit=20)
def soft() -> Any:
    try:
        time.sleep(10)
    except SoftTimeLimitExceeded:
        return {"partial": True}


@app.task(name="shop.hard", soft_time_limit=0.2, time_limit=0.6)
def hard() -> Any:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            time.sleep(10)
        except SoftTimeLimitExceeded:
            pass


@app.task(name="shop.looks", bind=True)
def looks(self: Any) -> Any:
    self.update_state(state="PROGRESS", meta={"done": 1})
    request = self.request
    return {
        "id": request.id,
        "hostname": request.hostname,
        "queue": request.delivery_info["routing_key"],
        "root": request.root_id,
        "progress": self.AsyncResult(request.id).info,
        "called_directly": request.called_directly,
    }


QUICK = RetryPolicy(max_attempts=2, initial_interval=0.1, jitter=False)
NAMES = (
    "retries",
    "gives_up",
    "has_a_way_out",
    "does_not_throw",
    "auto",
    "raises",
    "ignores",
    "rejects",
    "comes_again",
)
NAMES += ("replaces", "soft", "hard", "looks")
FLOWS = {
    name: WorkflowBuilder(f"of_{name}").add_step("it", celery_task(f"shop.{name}"), retry=QUICK).build()
    for name in NAMES
}
