"""Runs of all kinds, by the hundred or by the thousand: when their retention is over, nothing of them is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery

from multiagents import TerminalError, WorkflowBuilder, init_app, worker
from multiagents.orchestrator.recovery import Sweep
from multiagents.state_store.memory import InMemoryStateStore

DAYS_90 = 90 * 86_400_000
#: A payload that is kept apart from its run.
LARGE = "x" * 300_000


@worker("growth.do")
def do(context: dict[str, Any]) -> dict[str, Any]:
    return {"n": context.get("n")}


@worker("growth.refuse")
def refuse(context: dict[str, Any]) -> None:
    raise TerminalError("no")


PLAIN = WorkflowBuilder("growth-plain").add_step("a", do).add_step("b", do, local=True).build()
CHILD = WorkflowBuilder("growth-child").add_step("a", do, compensation=do).build()
PARENT = (
    WorkflowBuilder("growth-parent", on_end=do).add_child("c", CHILD).add_child("free", CHILD, detached=True).build()
)
MAPPED = WorkflowBuilder("growth-mapped").add_map("each", do, over="items").add_map("run", CHILD, over="items").build()
WAITING = WorkflowBuilder("growth-waiting").add_wait("go", timeout=86_400).add_step("a", do).build()
LOCKED = WorkflowBuilder("growth-locked").add_lock("l", "stock:{n}", lease=1).add_step("a", do).build()
UNDONE = WorkflowBuilder("growth-undone").add_child("c", CHILD).add_step("b", refuse).build()
PARKED = WorkflowBuilder("growth-parked").add_step("a", do, compensation=refuse).add_step("b", refuse).build()


class World:
    """An orchestrator whose steps run at once, one whose steps wait for a worker, and the sweep of a worker."""

    def __init__(self, url: str | None, partitions: int) -> None:
        settings: dict[str, Any] = {"retention": 0.5, "lease": 1, "partitions": partitions, "key_prefix": "growth"}
        self.apps = []
        for eager in (True, False):
            app = Celery(f"growth-{uuid4().hex[:8]}", broker=url or "memory://", set_as_current=False)
            app.conf.task_always_eager = eager
            self.apps.append(app)
        self.now, self.later = (init_app(app, settings | ({"redis_url": url} if url else {})) for app in self.apps)
        self.client = redis.Redis.from_url(url, decode_responses=True) if url else None

    @property
    def store(self) -> Any:
        return self.now.store

    def drain(self, queue: str) -> None:
        """Take all messages out of a queue, as a worker would."""
        if self.client is not None:
            self.client.delete(*(self.client.keys(f"{queue}*") or ["none"]))
        else:
            for name in [each for each in self.store.lists if each.startswith(queue)]:
                del self.store.lists[name]

    def left(self) -> set[str]:
        """What is stored and not empty, by its kind."""
        if self.client is None:
            tables = self.store._tables
            return {name for name, value in vars(tables).items() if isinstance(value, dict | list) and value}
        tags = [part.tag for part in self.now.keys.of_each_partition()]
        numbers = {part.sequence for part in self.now.keys.of_each_partition()}
        keys = [key for key in self.client.keys("*") if key not in numbers or self.client.hkeys(key) != [""]]
        return {key.removeprefix(f"{tag}:") for tag in tags for key in keys if key.startswith(tag)}

    def close(self) -> None:
        for made in (self.now, self.later):
            made.store.close()
        if self.client is not None:
            self.client.close()
        InMemoryStateStore.shared(keys=self.now.keys).clear()
        for app in self.apps:
            app.close()


@pytest.fixture(params=["memory", "redis", "redis-3-partitions"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.delenv("MULTIAGENTS_REDIS_URL", raising=False)
    url = None if request.param == "memory" else request.getfixturevalue("new_redis_url")()
    made = World(url, 3 if request.param.endswith("partitions") else 1)
    yield made
    made.close()


def plain(world: World, n: int) -> None:
    attributes = {"customer": f"c-{n % 50}", "amount": n, "at": world.store.now()}
    world.now.start(PLAIN, {"n": n, "text": LARGE if n % 100 == 0 else ""}, attributes=attributes)


def family(world: World, n: int) -> None:
    world.now.start(PARENT, {"n": n}, f"family-{n}")


def mapped(world: World, n: int) -> None:
    world.now.start(MAPPED, {"items": [1, 2]})


def signalled(world: World, n: int) -> None:
    run = world.now.start(WAITING, {}, f"signalled-{n}", attributes={"order": str(n)})
    run.signal("go", {"paid": n}, key=f"webhook-{n}")


def locked(world: World, n: int) -> None:
    world.now.start(LOCKED, {"n": n % 7})


def undone(world: World, n: int) -> None:
    world.now.start(UNDONE, {"n": n}, f"undone-{n}")


def parked(world: World, n: int) -> None:
    world.now.start(PARKED, {"n": n}, f"parked-{n}")


def planned(world: World, n: int) -> None:
    plan = WorkflowBuilder("growth-plan", version=str(n)).add_step(f"tool-{n}", do).build(register=False)
    world.now.start(plan, {})


def queued(world: World, n: int) -> None:
    to_a_tenant = WorkflowBuilder(f"growth-tenant-{n}").add_step("a", do, queue=f"tenant-{n}").build(register=False)
    world.later.start(to_a_tenant, {}).cancel()
    world.drain(f"tenant-{n}")


def replaced(world: World, n: int) -> None:
    for workflow in (UNDONE, PARENT):
        world.now.start(workflow, {"n": n}, f"replaced-{n % 5}", on_conflict="replace_ended")


def deleted(world: World, n: int) -> None:
    world.now.start(PARENT, {"n": n}, f"deleted-{n}").delete(reason="asked for")


KINDS: list[Callable[[World, int], None]] = [
    plain,
    family,
    mapped,
    signalled,
    locked,
    undone,
    parked,
    planned,
    queued,
    replaced,
    deleted,
]
#: What may be left: dead letters and tombstones; and of each partition what does not grow.
BOUNDED = {"dead", "dead.since", "deleted", "generations", "meta", "buried"}


def until_nothing_is_due(world: World, seconds: float) -> None:
    sweep, until = Sweep(world.now.engine), time.monotonic() + seconds
    while "due" in world.left() and time.monotonic() < until:
        for _ in range(20):
            time.sleep(min(sweep.tick(), 0.02))


def nothing_is_left_of(rounds: int, world: World) -> None:
    for n, begin in enumerate(KINDS * rounds):
        begin(world, n)

    until_nothing_is_due(world, 60 + rounds)
    gone = world.store.tidy(DAYS_90)

    assert (world.now.count(), gone) == (0, [])
    assert world.left() <= BOUNDED
    assert len(world.now.dead_letters()) == rounds
    while world.store.tidy(0):
        pass
    assert world.now.dead_letters() == {}
    assert world.left() <= BOUNDED - {"dead", "dead.since", "buried"}


def test_of_runs_of_all_kinds_nothing_is_left_but_dead_letters_and_tombstones(world: World) -> None:
    nothing_is_left_of(10, world)


@pytest.mark.full
@pytest.mark.timeout(1_800)
def test_of_20_000_runs_nothing_is_left_but_dead_letters_and_tombstones(redis_url: str) -> None:
    world = World(redis_url, 1)

    nothing_is_left_of(800, world)  # of 25 runs each, with children, ends that are told, and those that are replaced

    world.close()
