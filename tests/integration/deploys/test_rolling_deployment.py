"""Rule S26: a deployment goes old, old and new, new, and back to old, and every run ends by the version it began with.

The client has neither code base: it knows the definitions as the state store keeps them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multiagents.testing import server_kind, wait_until
from multiagents.workflow.definition import Definition
from tests.support import ROOT
from tests.support.scenario import Deployment, Scenario


def definitions_of(app: str) -> tuple[Definition, Definition]:
    """The workflows of a code base, read from data: without their code, and without loading it here."""
    printed = f"import json, {app} as base; print(json.dumps([base.order.to_dict(), base.refill.to_dict()]))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", printed], env=env, capture_output=True, check=True, text=True)
    order, refill = map(Definition.from_dict, json.loads(out.stdout))
    return order, refill


class Shop(Scenario):
    """The runs of a shop; each is told that what it waits for has come."""

    def begin(self, workflow: Definition, total: int = 200) -> Any:
        run = self.start(workflow, {"total": total})
        wait_until(lambda: run.describe().steps["reserve"].status == "succeeded", 20, "the run to wait")
        return run

    def pay(self, *runs: Any) -> None:
        for run in runs:
            run.signal("payment" if run.describe().workflow == "order" else "arrived", key="once")

    def ends(self, *runs: Any) -> None:
        """Each completes, and did what its own version says."""
        for run in runs:
            seen = self.end(run)
            assert (seen.status, seen.error) == ("completed", None), run.transaction_id
            wanted = "succeeded" if seen.input["total"] > 100 else "skipped"
            own = {
                "order-1": {"discount": wanted},
                "order-2": {"fraud": wanted},
                "refill-2": {"reserve_more": "succeeded"},
            }
            special = {name: step.status for name, step in seen.steps.items() if name in _SPECIAL}
            assert special == own.get(f"{seen.workflow}-{seen.version}", {})


_SPECIAL = ("discount", "fraud", "reserve_more")


@pytest.mark.full
@pytest.mark.parametrize("mode", ["inline", "queued"])
def test_S26_a_rolling_deployment_and_its_rollback_strand_no_run(
    new_redis_url: Callable[[], str], request: pytest.FixtureRequest, tmp_path: Path, mode: str
) -> None:
    order_1, refill_1 = definitions_of("tests.support.apps.shop_before")
    order_2, refill_2 = definitions_of("tests.support.apps.shop_after")
    broker = request.getfixturevalue("rabbitmq").new_vhost() if server_kind() == "rabbitmq" else ""
    deployment = Deployment(new_redis_url(), tmp_path, broker=broker, mode=mode, schedule_to_start=60)
    shop = Shop(deployment, request.node.name)
    try:
        # Given: the old code base alone.
        old = deployment.start_worker(app="tests.support.apps.shop_before").ready()
        done, small, first, stock = (
            shop.begin(order_1),
            shop.begin(order_1, 50),
            shop.begin(order_1),
            shop.begin(refill_1),
        )
        shop.pay(done)
        shop.ends(done)

        # When: the new one comes beside it, both serve both versions.
        new = deployment.start_worker(app="tests.support.apps.shop_after").ready()
        second, third, back = shop.begin(order_1), shop.begin(order_2), shop.begin(refill_2)
        shop.pay(small, second, third)
        shop.ends(small, second, third)

        # When: the old one goes, the new one brings home what needs no code of version 1, and undoes what is cancelled.
        old.term()
        called_off, later, newest = shop.begin(order_1), shop.begin(order_1), shop.begin(order_2)
        shop.pay(stock, first)
        called_off.cancel()
        shop.ends(stock)
        assert stock.describe().context["shipped_by"] == "new"
        assert shop.end(called_off).status == "cancelled"
        # What needs that code waits for who has it, and is looked after.
        assert (first.status, first.describe().steps["discount"].status) == ("running", "not_started")
        assert deployment.orchestrator.store.visibility.unattended() == []
        left = shop.begin(order_2)
        shop.pay(left)
        shop.ends(left)

        # When: the deployment is taken back, what waited goes on.
        deployment.start_worker(app="tests.support.apps.shop_before").ready()
        new.term()
        shop.pay(later, back)
        shop.ends(first, later, back)
        assert back.describe().context["shipped_by"] == "old"
        # Of the version that was taken back, what needs its code is given up in time, and undone.
        shop.pay(newest)
        given_up = shop.end(newest)
        assert (given_up.status, given_up.version) == ("compensated", "2")
        assert given_up.error.message == (
            "when= of step 'fraud' is code of workflow 'order' version '2', and no worker process that has it came "
            "within the step's schedule_to_start (the last process that looked has version 1); have the workers import "
            "the module that builds this version until its last run is over"
        )
        shop.close()
    finally:
        for started in deployment.workers:
            started.kill()
        deployment.redis.close()
        deployment.orchestrator.store.close()
