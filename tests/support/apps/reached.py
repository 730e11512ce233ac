"""The app of the tests about how servers are reached: all that it is told is in Celery's own settings.

They come from the environment variable ``MULTIAGENTS_TEST_CONF`` (JSON). It has no setting of this library but a short
lease, so that where runs live is the broker's matter alone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from celery import Celery, shared_task

from multiagents import Limit, TerminalError, WorkflowBuilder, init_app, worker
from multiagents.testing import wait_until


def make_app(conf: dict[str, Any]) -> Celery:
    """An app with these settings."""
    made = Celery("reached", set_as_current=False)
    made.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=2)
    made.conf.update(conf)
    init_app(made, {"lease": 2.0, "sweep_interval": 0.2})
    return made


@shared_task(name="reached.plain")
def plain() -> None:
    """An ordinary task."""


@worker("reached.reserve")
def reserve(order: int) -> dict[str, Any]:
    """Reserve it."""
    return {"reserved": order}


@worker("reached.release")
def release() -> None:
    """Undo it."""


@worker("reached.charge")
def charge(order: int, refused: bool = False) -> dict[str, Any]:
    """Charge, or refuse for good."""
    if refused:
        raise TerminalError("the card was refused")
    return {"charged": order}


@worker("reached.hold")
def hold(gate: str) -> None:
    """Wait until this file is there."""
    wait_until(Path(gate).exists, 100, "the gate")


held = WorkflowBuilder("reached.held").add_step("hold", hold).build()

order = (
    WorkflowBuilder("reached")
    .add_step("reserve", reserve, compensation=release)
    .add_sleep("nap", 0.1)
    .add_step("charge", charge)
    .build()
)


@worker("reached.ship")
def ship() -> None:
    """Tell the carrier, who answers on the bus."""


@worker("reached.pack", limit=Limit("packers", concurrency=2, rate=1000, per=1.0))
def pack(context: dict[str, Any]) -> dict[str, Any]:
    """Pack an item; there is room for two of those who do."""
    return {"packed": context["item"]}


#: What there is beside steps and their undos, one after the other.
everything = (
    WorkflowBuilder("reached.everything")
    .add_lock("hold", "order:{order}")
    .add_map("pack", "reached.pack", over="items")
    .add_child("billing", order)
    .add_step("ship", "reached.ship", external=True)
    .add_wait("answer", "answer")
    .build()
)

app = make_app(json.loads(os.environ.get("MULTIAGENTS_TEST_CONF", "{}")))
