"""Workers in real ``celery worker`` processes, on every pool: claims, coroutines, limits, leases, acknowledgements.

The engine is not here: a small store in Redis hands out claims, and a list takes what is delivered.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from multiagents.testing import WorkerProcess, wait_until
from multiagents.testing.plugin import WorkerStarter

POOLS = ["prefork", "threads", "gevent", "solo"]

APP = """
import asyncio, contextvars, json, os, threading, time
from datetime import timedelta
from types import SimpleNamespace

import redis
from celery import Celery, Task, current_task, signals

from multiagents import WorkflowBuilder, current_step, worker
from multiagents.clock import from_ms
from multiagents.state_store.records import Claim, ClaimRefused, Renewal
from multiagents.worker_sdk import WorkerRuntime, install
from multiagents.workflow.state import RunState

URL = os.environ["MULTIAGENTS_REDIS_URL"]
app = Celery("pools", broker=os.environ["CELERY_BROKER_URL"])
app.conf.worker_prefetch_multiplier = 4
ORDER = WorkflowBuilder("order").add_step("charge", "charge", compensation="charge").build(register=False)


class Store:
    def __init__(self):
        self.redis = redis.Redis.from_url(URL, socket_timeout=5)

    def claim(self, correlation, definition_hash, *, owner, worker, timeout, heartbeat_timeout, task):
        if not self.redis.set(f"claim:{correlation}", owner, nx=True):
            raise ClaimRefused(correlation, "somebody else has it")
        seconds, micros = self.redis.time()
        now = from_ms(seconds * 1000)
        return Claim(
            correlation=correlation, definition=ORDER, context={"total": 3}, input={"total": 3}, owner=owner,
            state=RunState(correlation.transaction_id, "order"), epoch=0, merged={}, now=now,
            deadline=now + timedelta(seconds=timeout) if timeout else None,
        )

    def now(self):
        return from_ms(round(time.time() * 1000))

    def renew(self, correlation, owner, *, beat=False, detail=None):
        self.redis.rpush(f"renewals:{correlation}", json.dumps([threading.get_native_id(), beat, detail]))
        return Renewal(alive=not self.redis.exists(f"lost:{correlation}"), cancelled=False)

    def results(self, transaction_id):
        return {"seen": self.redis.ping()}


STORE = Store()


def settle(event, claim, *, may_go_on):
    STORE.redis.rpush("delivered", event.to_json())
    undo = claim.correlation.direction == "undo"
    return SimpleNamespace(links=[app.tasks["linked"].si({"after": "undo"})] if undo else [], local=None)


RUNTIME = WorkerRuntime(
    store=STORE,
    new_store=Store,
    settings=SimpleNamespace(lease=1.5, step_timeout=60.0, max_payload_bytes=10000),
    settle=settle,
    unclaimable=lambda event, owner: None,
    came_late=lambda event: None,
    limited=True,
)
install(app, lambda: RUNTIME)


@worker
def charge(context):
    return {"charged": context["total"], "pid": os.getpid(), "key": current_step().idempotency_key}


@worker
def linked(context):
    STORE.redis.rpush("linked", json.dumps([current_task.request.parent_id, context]))
    return context


@worker
async def charge_async(context):
    step = current_step()
    await asyncio.sleep(0.3)
    looked_up = await asyncio.get_running_loop().run_in_executor(None, lambda: "in a thread")
    return {"loop": id(asyncio.get_running_loop()), "step": step.step, "looked_up": looked_up,
            "results": dict(step.results), "pid": os.getpid()}


@worker(timeout=0.5)
def hangs(context):
    time.sleep(5)
    return {"late": True}


@worker(timeout=0.5)
async def hangs_async(context):
    await asyncio.sleep(30)


@worker
def long_and_busy(context):
    step = current_step()
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        pass
    step.heartbeat({"done": 1})
    time.sleep(0.3)
    return {"thread": threading.get_native_id()}


@worker
def fails(context):
    raise ValueError("declined")


class Unpicklable(Exception):
    def __init__(self, code, lock):
        super().__init__(f"code {code}")
        self.lock = lock


@worker
def fails_unpicklable(context):
    raise Unpicklable(7, threading.Lock())


@worker
def exits(context):
    raise SystemExit(3)


@app.task(name="ordinary")
def ordinary(context):
    STORE.redis.rpush("waiting", "here")
    STORE.redis.blpop("go", timeout=4)


@worker
def waits(context):
    STORE.redis.rpush("waiting", "here")
    STORE.redis.blpop("go", timeout=4)
    return {"went": True}
"""


class Shop:
    """A worker process and what it does to the store."""

    def __init__(self, url: str, worker: WorkerProcess) -> None:
        self.redis = redis.Redis.from_url(url, decode_responses=True)
        self.app = Celery("sender", broker=url, set_as_current=False)
        self.worker = worker

    def send(self, worker: str, transaction_id: str = "order-1", *, step: str = "charge", direction: str = "do") -> str:
        correlation_id = f"{transaction_id}/{step}/{direction}/1"
        self.app.send_task(
            worker,
            kwargs={
                "transaction_id": transaction_id,
                "step": step,
                "direction": direction,
                "attempt": 1,
                "definition": "abc",
                "nonce": "",
            },
            task_id=correlation_id,
            headers={"multiagents": {"v": 1}},
            ignore_result=True,
        )
        return correlation_id

    def delivered(self, count: int = 1, timeout: float = 20) -> list[dict[str, Any]]:
        wait_until(lambda: self.redis.llen("delivered") >= count, timeout, f"{count} outcomes")
        return [json.loads(event) for event in self.redis.lrange("delivered", 0, -1)]

    def unacked(self) -> int:
        return int(self.redis.hlen("unacked"))

    def idle(self) -> None:
        wait_until(lambda: self.unacked() == 0, 10, "all messages to be acknowledged")

    def empty(self) -> None:
        """Remove what the tests before have left, once the worker has nothing more in hand."""
        self.idle()
        left = [key for kind in ("claim:*", "renewals:*") for key in self.redis.scan_iter(kind)]
        self.redis.delete("delivered", "linked", "waiting", "go", *left)

    def close(self) -> None:
        self.app.close()
        self.redis.close()


@pytest.fixture(scope="module", params=POOLS)
def pool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def started(
    pool: str, new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, WorkerProcess]]:
    """Where the worker is that all tests of a pool share, and the worker."""
    folder = tmp_path_factory.mktemp(f"pools-{pool}")
    (folder / "pools.py").write_text(APP)
    url = new_redis_url()
    env = {"CELERY_BROKER_URL": url, "MULTIAGENTS_REDIS_URL": url, "PYTHONPATH": str(Path.cwd())}
    concurrency = 1 if pool == "solo" else 4
    with WorkerProcess(
        "pools", folder / "worker.log", pool=pool, concurrency=concurrency, cwd=folder, env=env
    ) as worker:
        yield url, worker


@pytest.fixture
def shop(started: tuple[str, WorkerProcess]) -> Iterator[Shop]:
    shop = Shop(*started)
    shop.empty()
    yield shop
    print(f"--- {shop.worker.node}\n{shop.worker.log}")  # pytest shows it of a test that failed
    shop.close()


@pytest.fixture
def closing_shop(pool: str, redis_url: str, start_worker: WorkerStarter, tmp_path: Path) -> Iterator[Shop]:
    """One with a worker of its own, to be shut down."""
    (tmp_path / "pools.py").write_text(APP)
    env = {"CELERY_BROKER_URL": redis_url, "PYTHONPATH": str(Path.cwd())}
    shop = Shop(redis_url, start_worker("pools", pool=pool, concurrency=1, cwd=tmp_path, env=env))
    yield shop
    shop.close()


def test_a_step_is_claimed_run_delivered_and_never_run_twice(shop: Shop) -> None:
    shop.send("charge")
    [result] = shop.delivered()
    shop.send("charge")
    shop.send("charge", "order-2")

    [first, second] = shop.delivered(2)

    assert first == result
    assert (result["type"], result["correlation_id"]) == ("result", "order-1/charge/do/1")
    assert (result["payload"]["charged"], result["payload"]["key"]) == (3, "order-1/charge")
    assert result["worker"] == shop.worker.node
    assert second["transaction_id"] == "order-2"
    shop.idle()


def test_coroutines_run_side_by_side_in_one_loop_and_may_ask_the_store(shop: Shop, pool: str) -> None:
    for number in range(8):
        shop.send("charge_async", f"order-{number}")

    outcomes = [event["payload"] for event in shop.delivered(8)]

    assert {(o["step"], o["looked_up"], o["results"]["seen"]) for o in outcomes} == {("charge", "in a thread", True)}
    assert len({(o["pid"], o["loop"]) for o in outcomes}) == len({o["pid"] for o in outcomes})


def test_failures_of_any_kind_are_delivered_and_the_worker_goes_on(shop: Shop) -> None:
    for number, worker in enumerate(["fails", "fails_unpicklable", "exits", "charge"]):
        shop.send(worker, f"order-{number}")

    outcomes = {event["transaction_id"]: event for event in shop.delivered(4)}

    assert [outcomes[f"order-{n}"]["type"] for n in range(4)] == ["error", "error", "error", "result"]
    assert outcomes["order-0"]["error"]["message"] == "declined"
    assert outcomes["order-1"]["error"]["type"] == "pools.Unpicklable"
    assert "sys.exit(3)" in outcomes["order-2"]["error"]["message"]
    shop.idle()
    assert "WorkerLostError" not in shop.worker.log


def test_time_limits_stop_what_can_be_stopped(shop: Shop, pool: str) -> None:
    shop.send("hangs_async", "order-1")
    shop.send("hangs", "order-2")

    outcomes = {event["transaction_id"]: event for event in shop.delivered(2)}

    assert (outcomes["order-1"]["kind"], "time limit" in outcomes["order-1"]["error"]["message"]) == ("timeout", True)
    if pool == "threads":
        assert outcomes["order-2"]["payload"] == {"late": True}
        assert "slot of this worker stays taken" in shop.worker.log
    else:
        assert outcomes["order-2"]["kind"] == "timeout"


def test_a_lease_is_renewed_by_another_thread_while_the_step_computes(shop: Shop) -> None:
    correlation_id = shop.send("long_and_busy")

    [result] = shop.delivered()
    renewals = [json.loads(entry) for entry in shop.redis.lrange(f"renewals:{correlation_id}", 0, -1)]

    assert [detail for _, beat, detail in renewals if beat] == [{"done": 1}]
    assert len([beat for _, beat, _ in renewals if not beat]) >= 2
    assert result["payload"]["thread"] not in {thread for thread, _, _ in renewals}


def test_the_next_undo_is_linked_to_this_one(shop: Shop) -> None:
    shop.send("charge", direction="undo")

    wait_until(lambda: shop.redis.llen("linked"), 10, "the linked task")

    assert json.loads(shop.redis.lindex("linked", 0)) == ["order-1/charge/undo/1", {"after": "undo"}]


def test_a_refused_or_failed_undo_links_nothing(shop: Shop) -> None:
    shop.redis.set("claim:order-1/charge/undo/1", "somebody")
    shop.send("charge", "order-1", direction="undo")
    shop.send("fails", "order-2", direction="undo")
    shop.send("charge", "order-3", direction="undo")

    wait_until(lambda: shop.redis.llen("linked"), 10, "the linked task")
    shop.idle()

    parents = [json.loads(entry)[0] for entry in shop.redis.lrange("linked", 0, -1)]
    assert parents == ["order-3/charge/undo/1"]


def test_engine_messages_are_acknowledged_late_and_plain_ones_as_celery_does(shop: Shop, pool: str) -> None:
    def held_while_running() -> int:
        wait_until(lambda: shop.redis.lpop("waiting"), 10, "the task to run")
        # Celery acknowledges in its own thread, a moment after the task began; on solo it cannot before the task ends.
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: shop.unacked() == 0, 1)
        held = shop.unacked()
        shop.redis.rpush("go", 1)
        shop.idle()
        return held

    shop.send("waits")
    of_the_engine = held_while_running()
    shop.app.send_task("ordinary", args=[{}], ignore_result=True)
    of_an_ordinary_task = held_while_running()
    shop.app.send_task("waits", args=[{}], ignore_result=True)
    of_a_plain_call = held_while_running()

    assert of_the_engine == 1
    assert of_a_plain_call == of_an_ordinary_task == (1 if pool == "solo" else 0)


def test_workers_are_registered_under_their_own_names(shop: Shop) -> None:
    # Under gevent a worker may be ready before it listens for broadcasts, and who does not listen misses one.
    inspect = shop.app.control.inspect(timeout=2, limit=1)

    registered = wait_until(inspect.registered, 20, "a worker that answers")

    [names] = registered.values()
    assert {"charge", "charge_async", "hangs"} <= set(names)


def test_a_warm_shutdown_lets_the_step_finish(closing_shop: Shop) -> None:
    shop = closing_shop
    shop.send("waits")
    wait_until(lambda: shop.redis.llen("waiting") == 1, 10, "the step to run")
    started = time.monotonic()

    shop.redis.rpush("go", 1)
    code = shop.worker.term()

    assert code == 0
    assert time.monotonic() - started < 15
    assert shop.delivered()[0]["payload"] == {"went": True}
