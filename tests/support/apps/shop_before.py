"""The code base of a shop before a deployment: version 1 of its workflows. `shop_after` is the one after it."""

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


@worker("shop.discount")
def discount(context: dict[str, Any]) -> dict[str, Any]:
    """Only this code base has it."""
    return {"total": context["total"] - 10}


@worker("shop.ship")
def ship(context: dict[str, Any]) -> dict[str, Any]:
    return {"shipped_by": "old"}


#: With code, which only this code base has.
order = (
    WorkflowBuilder("order", version="1")
    .add_step("reserve", reserve, compensation=release)
    .add_wait("paid", signal="payment")
    .add_step("discount", discount, when=lambda ctx: ctx["total"] > 100)
    .add_step("ship", ship)
    .build()
)
#: Without code: whoever has the workers can decide it.
refill = (
    WorkflowBuilder("refill", version="1")
    .add_step("reserve", reserve, compensation=release)
    .add_wait("arrived")
    .add_step("ship", ship)
    .build()
)
