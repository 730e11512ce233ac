"""The app whose runs an older release has begun (`tests/integration/deploys/recorded`) and today's has to finish.

Older releases import it, too, so it takes nothing but public names. What a step does is said by the run's input, as in
`scripted`: ``{"script": {"b": ["fail"], "a.undo": ["hold"]}}``; later attempts, and all other steps, succeed. Whoever
changes one of the workflows here has to record anew, as the recorded runs follow what they were started with.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from typing import Any

import redis
from celery import Celery

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
from multiagents.testing import faults

#: Set where runs are to stop at what ``hold`` says; elsewhere it succeeds.
RECORDING = "RECORDING"

app = Celery("recorded", broker=os.environ.get("CELERY_BROKER_URL"))
app.conf.update(broker_connection_retry_on_startup=True)
init_app(app)
faults.install()


def _act(context: dict[str, Any]) -> dict[str, Any]:
    """Do as the script says, then note that it has taken effect."""
    step = current_step()
    name = step.step if step.direction == "do" else f"{step.step}.undo"
    script = context.get("script", {}).get(name, [])
    deed = script[step.attempt - 1] if step.attempt <= len(script) else "ok"
    if deed == "hold" and os.environ.get(RECORDING):
        step.heartbeat({"done": 3})
        time.sleep(3600)
    elif deed == "fail":
        raise ValueError("no such thing")
    elif deed == "terminal":
        raise TerminalError("it will never work")
    elif deed == "unknown":
        raise OutcomeUnknownError("the provider did not answer")
    with closing(redis.Redis.from_url(os.environ["MULTIAGENTS_REDIS_URL"])) as journal:
        journal.rpush(f"journal:{step.transaction_id}", name)
    return {step.step: "done"}


@worker("recorded.do", retry=RetryPolicy(max_attempts=3, initial_interval=15))
def do(context: dict[str, Any]) -> dict[str, Any]:
    return _act(context)


@worker("recorded.undo")
def undo(context: dict[str, Any]) -> None:
    _act(context)


@worker("recorded.undo_later", queue="later")
def undo_later(context: dict[str, Any]) -> None:
    """Its queue has no consumer while it is recorded."""
    _act(context)


@worker("recorded.probe")
def probe(context: dict[str, Any]) -> dict[str, Any]:
    if os.environ.get(RECORDING):
        time.sleep(3600)
    return {"outcome": "succeeded", "result": {current_step().step: "found"}}


chain = (
    WorkflowBuilder("recorded-chain", deadline=86_400)
    .add_step("a", do, compensation=undo_later)
    .add_step("b", do, compensation=undo, on_unknown="park")
    .add_step("c", do)
    .build()
)
branches = (
    WorkflowBuilder("recorded-branches")
    .add_step("a", do, compensation=undo)
    .add_parallel("both", [Step("b", do, compensation=undo), Step("c", do, compensation=undo)])
    .add_step("d", do)
    .build()
)
posting = (
    WorkflowBuilder("recorded-posting")
    .add_step("a", do)
    .add_step("b", do, queue="later", inputs={"given": "wanted"})
    .add_step("c", do, when=lambda ctx: ctx["wanted"])
    .build()
)
queued = WorkflowBuilder("recorded-queued").add_step("a", do, queue="queued").add_step("b", do).build()
probing = (
    WorkflowBuilder("recorded-probing")
    .add_step("a", do, compensation=undo)
    .add_step("b", do, compensation=undo, on_unknown="resolve", resolve_with=probe)
    .add_step("c", do)
    .build()
)
transfer = (
    WorkflowBuilder("recorded-transfer")
    .add_step("a", do, compensation=undo)
    .add_step("b", do, pivot=True)
    .add_step("c", do)
    .build()
)
waiting = (
    WorkflowBuilder("recorded-waiting")
    .add_step("a", do, compensation=undo)
    .add_wait("paid", signal="payment")
    .add_approval("manager")
    .add_step("b", do)
    .build()
)
napping = WorkflowBuilder("recorded-napping").add_step("a", do).add_sleep("nap", 15).add_step("b", do).build()
album = (
    WorkflowBuilder("recorded-album")
    .add_map("resize", do, over="images", max_concurrency=2, compensation=undo)
    .add_step("b", do)
    .build()
)
pay = WorkflowBuilder("recorded-pay").add_step("charge", do, compensation=undo).add_step("receipt", do).build()
family = (
    WorkflowBuilder("recorded-family")
    .add_step("order", do, compensation=undo)
    .add_child("payment", pay)
    .add_step("ship", do)
    .build()
)
parcel = (
    WorkflowBuilder("recorded-parcel")
    .add_step("pack", do, compensation=undo)
    .add_savepoint("packed")
    .add_choice(
        "way",
        lambda ctx: "air" if ctx["packed"]["attempt"] == 1 else "road",
        {"air": [Step("fly", do, compensation=undo)], "road": [Step("drive", do, compensation=undo)]},
    )
    .add_step("deliver", do)
    .build()
)
drafts = (
    WorkflowBuilder("recorded-drafts")
    .add_loop("write", [Step("draft", do), Step("review", do)], lambda ctx: "draft#2" in ctx, 3)
    .add_step("b", do)
    .build()
)
locking = (
    WorkflowBuilder("recorded-locking").add_step("a", do).add_lock("stock", "stock:{sku}").add_step("b", do).build()
)
metered = WorkflowBuilder("recorded-metered").add_step("a", do, limit=Limit("bank:{sku}", concurrency=1)).build()
external = (
    WorkflowBuilder("recorded-external")
    .add_step("a", do, compensation=undo)
    .add_step("ship", external=True, compensation=undo)
    .add_step("b", do)
    .build()
)
