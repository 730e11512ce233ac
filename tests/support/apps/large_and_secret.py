"""Workers that handle secrets and large data, and keep no journal: what is in Redis is what the engine put there."""

from __future__ import annotations

import os
from typing import Any

from multiagents import RetryPolicy, Step, TerminalError, WorkflowBuilder, current_step, worker
from tests.support.apps.scripted import make_app

SECRET = "4111-1111-1111-1111"
SIZE = 2_000_000
app = make_app(os.environ.get("CELERY_BROKER_URL"))
ONCE = RetryPolicy(max_attempts=1)


@worker("payload.take")
def take(context: dict) -> dict:
    assert context["card"] == SECRET
    current_step().heartbeat({"card": context["card"]})
    return {"taken": context["card"]}


@worker("payload.check")
def check(context: dict) -> dict:
    assert context == {"number": SECRET}, context
    return {"checked": context["number"]}


@worker("payload.refuse", retry=ONCE)
def refuse(context: dict) -> dict:
    assert (context["taken"], context["checked"]) == (SECRET, SECRET)
    raise TerminalError(f"card {context['card']} was declined")


@worker("payload.cannot_undo", retry=ONCE)
def cannot_undo(context: dict) -> dict:
    assert current_step().result == {"taken": SECRET}
    raise TerminalError(f"card {context['taken']} cannot be refunded")


@worker("payload.undo")
def undo(context: dict) -> None:
    assert current_step().result == {"checked": SECRET}


@worker("payload.scan")
def scan(context: dict) -> dict:
    return {"scan": "x" * SIZE, "name": "passport"}


@worker("payload.measure")
def measure(context: dict) -> dict:
    return {"measured": len(context["scan"])}


@worker("payload.shred", retry=ONCE)
def shred(context: dict) -> None:
    """Undo a scan; only if it is given all of it."""
    result: Any = current_step().result
    assert (len(result["scan"]), result["name"]) == (SIZE, "passport")


SECRETS = (
    WorkflowBuilder("payload-secrets")
    .add_step("take", "payload.take", compensation="payload.cannot_undo", undo_retry=ONCE)
    .add_parallel(
        "both",
        [
            Step("check", "payload.check", compensation="payload.undo", inputs={"number": "card"}),
            Step("again", "payload.take"),
        ],
    )
    .add_step("refuse", "payload.refuse")
    .build()
)
SCANS = (
    WorkflowBuilder("payload-scans")
    .add_step("scan", "payload.scan", compensation="payload.shred", undo_retry=ONCE)
    .add_step("measure", "payload.measure")
    .add_step("refuse", "payload.refuse_unless_asked")
    .build()
)


@worker("payload.refuse_unless_asked", retry=ONCE)
def refuse_unless_asked(context: dict) -> dict:
    assert context["measured"] == SIZE
    if context.get("refuse"):
        raise TerminalError("no such passport")
    return {}
