"""The code base of a shop after a deployment: version 2 of its workflows, and nothing of version 1."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from multiagents import WorkflowBuilder, init_app, worker

app = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL"))
app.conf.update(broker_connection_retry_on_startup=True)
init_app(app)


@worker("shop.reserve")
def reserve(context: dict[str, Any]) -> dict[str, Any]:
    return {"reserved": True}


@worker("shop.release")
def release(context: dict[str, Any]) -> None:
    pass


@worker("shop.check_fraud")
def check_fraud(context: dict[str, Any]) -> dict[str, Any]:
    """Only this code base has it."""
    return {"checked": True}


@worker("shop.ship")
def ship(context: dict[str, Any]) -> dict[str, Any]:
    return {"shipped_by": "new"}


order = (
    WorkflowBuilder("order", version="2")
    .add_step("reserve", reserve, compensation=release)
    .add_wait("paid", signal="payment")
    .add_step("fraud", check_fraud, when=lambda ctx: ctx["total"] > 100, schedule_to_start=3)
    .add_step("ship", ship)
    .build()
)
refill = (
    WorkflowBuilder("refill", version="2")
    .add_step("reserve", reserve, compensation=release)
    .add_wait("arrived")
    .add_step("reserve_more", reserve, compensation=release)
    .add_step("ship", ship)
    .build()
)
