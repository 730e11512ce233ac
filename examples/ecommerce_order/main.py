"""Four orders, one after the other: success, a declined card, sold out, and a failure after the payment.

``python -m examples.ecommerce_order.main``, from the project's folder. Where ``CELERY_BROKER_URL`` names a broker, a
worker is expected there (``celery -A celery_app worker``, started in this folder); else it starts a Valkey and a worker
of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console

from examples.ecommerce_order.order import Case, read_cases
from examples.ecommerce_order.shop import DATABASE
from examples.stage import BROKER, end_on_sigterm, own_folder, own_stage
from examples.timeline import bars_of, short_type, timeline
from multiagents.exceptions import WorkflowFailedError

#: One order of each kind, from ``orders.jsonl``.
SCENARIOS = ("A-1002", "A-1003", "A-1005", "A-1009")
#: Seconds that an order may take.
TIMEOUT = 60.0


async def main() -> bool:
    """Run the four orders and show each as a mirror timeline; whether all of them ended as expected."""
    if os.environ.get(BROKER):
        return await run_scenarios()
    with own_folder(Path(".multiagents"), "main") as folder, own_stage(folder, {DATABASE: str(folder / "shop.db")}):
        return await run_scenarios()


async def run_scenarios() -> bool:
    """Run the four orders on the broker that the environment names."""
    cases = {case.id: case for case in read_cases()}
    return all([await run_one(cases[order_id]) for order_id in SCENARIOS])


async def run_one(case: Case) -> bool:
    """Run one order, show what happened, and compare it with what was to happen."""
    # Imported only now: the app takes its broker from the environment.
    from celery_app import orchestrator
    from examples.ecommerce_order.workflow import ecommerce_order

    # A new id each time: to the shop, a repeated order would be one that was shipped already.
    order_id = f"{case.id}-{uuid4().hex[:6]}"
    run = orchestrator.start(ecommerce_order, {**case.order, "id": order_id}, transaction_id=order_id)
    reason = ""
    try:
        context: dict[str, Any] = await run.wait(timeout=TIMEOUT)
    except WorkflowFailedError as failure:
        context, reason = {}, short_type(failure.error.type) if failure.error else ""
    seen = run.describe()
    console = Console()
    heading, bars = f"{order_id}: {case.about}", bars_of(run.history())
    picture = timeline(heading, str(seen.status), list(seen.steps), bars, console.width)
    console.print(picture, no_wrap=True, overflow="ellipsis")
    if context:
        console.print(
            f"{context['confirmation']}\n{context['carrier']}: {context['tracking_number']}\n", highlight=False
        )
    return str(seen.status) == case.expect.status and reason == (case.expect.reason or "")


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(0 if asyncio.run(main()) else 1)
