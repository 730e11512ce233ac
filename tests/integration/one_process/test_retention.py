"""What is written has a way out: when the retention of runs is over, nothing of them is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import Celery

from multiagents import TerminalError, WorkflowBuilder, init_app, worker
from multiagents.event_bus import RedisEventBus
from multiagents.exceptions import WorkflowError
from multiagents.orchestrator.recovery import Sweep
from multiagents.state_store.memory import InMemoryStateStore
from multiagents.state_store.records import DueKind

RETENTION = 0.2


@worker("kept.do")
def do(context: dict[str, Any]) -> dict[str, Any]:
    if context.get("fail"):
        raise TerminalError("no")
    return {}


@worker("kept.refuse")
def refuse(context: dict[str, Any]) -> None:
    raise TerminalError("no")


REFUSED = WorkflowBuilder("kept-refused").add_step("charge", do, compensation=refuse).add_step("ship", refuse).build()
PAYMENT = WorkflowBuilder("kept-payment").add_step("charge", do).build()
DELIVERY = WorkflowBuilder("kept-delivery").add_child("pack", PAYMENT).build()
ORDER = (
    WorkflowBuilder("kept-order")
    .add_child("pay", PAYMENT)
    .add_child("deliver", DELIVERY)
    .add_child("survey", PAYMENT, detached=True)
    .build()
)
WAITING = WorkflowBuilder("kept-waiting").add_child("pay", PAYMENT).add_wait("go").build()


class World:
    """An orchestrator whose steps run at once, and the sweep of a worker, which the test moves on."""

    def __init__(self, url: str | None, partitions: int) -> None:
        self.url = url
        self.app = Celery(f"kept-{uuid4().hex[:8]}", broker="redis://127.0.0.1:1/0", set_as_current=False)
        self.app.conf.task_always_eager = True
        settings = {"retention": RETENTION, "lease": 1, "partitions": partitions, "key_prefix": "kept"}
        self.orchestrator = init_app(self.app, settings | ({"redis_url": url} if url else {}))
        self.client = redis.Redis.from_url(url, decode_responses=True) if url else None
        self.sweep = Sweep(self.orchestrator.engine)

    @property
    def runs(self) -> list[str]:
        """The ids of all runs, as they are listed."""
        return sorted(run.transaction_id for run in self.orchestrator.list(limit=1_000))

    def tend(self, seconds: float = RETENTION + 0.3) -> None:
        """Do what is due for a while, as a worker would."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.sweep.tick()
            time.sleep(0.01)

    def close(self) -> None:
        self.orchestrator.store.close()
        if self.client is not None:
            self.client.close()
        InMemoryStateStore.shared(keys=self.orchestrator.keys).clear()
        self.app.close()


@pytest.fixture(params=["memory", "redis", "redis-3-partitions"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.delenv("MULTIAGENTS_REDIS_URL", raising=False)
    url = None if request.param == "memory" else request.getfixturevalue("new_redis_url")()
    made = World(url, 3 if request.param.endswith("partitions") else 1)
    yield made
    made.close()


@pytest.fixture
def redis_world(new_redis_url: Callable[[], str]) -> Iterator[World]:
    made = World(new_redis_url(), 1)
    yield made
    made.close()


def test_children_and_theirs_go_when_the_retention_of_their_parent_is_over(world: World) -> None:
    world.orchestrator.start(ORDER, {}, "o")
    world.orchestrator.start(PAYMENT, {}, "alone")
    assert world.runs == ["alone", "o", "o:deliver", "o:deliver:pack", "o:pay", "o:survey"]

    world.tend()

    assert world.runs == []


def test_a_child_is_kept_as_long_as_its_parent_whatever_its_own_retention(world: World) -> None:
    run = world.orchestrator.start(WAITING, {}, "o")

    world.tend()
    assert world.runs == ["o", "o:pay"]
    run.signal("go")
    world.tend()

    assert world.runs == []


def test_the_children_of_a_run_that_is_replaced_go_with_it(world: World) -> None:
    world.orchestrator.start(ORDER, {"fail": True}, "o")
    assert {"o", "o:pay"} <= set(world.runs)

    run = world.orchestrator.start(WAITING, {}, "o", on_conflict="replace_ended")
    world.tend()

    assert world.runs == ["o", "o:g2:pay"]
    assert run.status == "running"


def test_a_child_whose_parent_went_when_nobody_could_tell_it_goes_at_its_next_look(world: World) -> None:
    world.orchestrator.start(ORDER, {}, "o")
    world.orchestrator.store.forget("o")

    world.tend()

    assert world.runs == []


def test_a_run_that_nobody_can_read_any_more_goes_all_the_same_when_its_retention_is_over(redis_world: World) -> None:
    world, keys = redis_world, redis_world.orchestrator.keys.of_run("o")
    assert world.client is not None
    world.orchestrator.start(PAYMENT, {}, "o", attributes={"customer": "c-1"})
    world.client.hset(keys.run, "s:charge", "no JSON at all")

    world.tend()

    assert world.runs == []
    assert world.client.keys(f"{keys.tag}:run:*") == world.client.keys(f"{keys.tag}:attribute:*") == []


def test_nothing_of_a_run_goes_before_its_place_in_the_indexes(redis_world: World) -> None:
    world, keys = redis_world, redis_world.orchestrator.keys.of_run("o")
    assert world.client is not None

    world.orchestrator.start(PAYMENT, {"text": "x" * 300_000}, "o", attributes={"customer": "c-1"})

    own = [keys.run, keys.results, keys.history, keys.blobs]
    assert [world.client.ttl(key) for key in own] == [-1] * 4
    assert (
        world.client.zscore(keys.due, DueKind.EXPIRY.entry(world.orchestrator.store.load("o").state.identity))
        is not None
    )


# --- dead letters ----------------------------------------------------------------------------------------------------


def test_what_lay_on_the_bus_and_what_belongs_to_no_run_are_one_list_and_can_be_taken_away(redis_world: World) -> None:
    orchestrator, keys = redis_world.orchestrator, redis_world.orchestrator.keys
    bus = RedisEventBus(redis_world.url, prefix=keys.prefix)
    assert redis_world.client is not None
    redis_world.client.xadd(keys.of_partition(0).bus, {"event": "no JSON"})
    assert bus.read_group("multiagents", "w") == []
    orchestrator.store.bury("o", "o/charge/do/1", {"why": "nobody waits for it"})

    letters = orchestrator.dead_letters()

    [on_the_bus] = [letter for key, letter in letters.items() if key.startswith("bus|")]
    assert len(letters) == 2
    assert (on_the_bus.is_undo, on_the_bus["raw"]) == (False, "no JSON")
    assert on_the_bus.why == bus.dead_letters()[0].error
    for letter in letters.values():
        letter.discard()
    assert (orchestrator.dead_letters(), bus.dead_letters()) == ({}, [])
    bus.close()


def test_a_letter_about_an_undo_is_taken_away_only_by_settling_it_while_its_run_is_there(world: World) -> None:
    run = world.orchestrator.start(REFUSED, {}, "o")
    assert run.status == "compensation_failed"
    [letter] = world.orchestrator.dead_letters().values()

    with pytest.raises(WorkflowError, match=r"is to be settled.*retry\(\), skip\(\)"):
        letter.discard()

    world.tend()
    assert world.runs == []
    assert list(world.orchestrator.dead_letters()) == [letter.key]
    letter.discard()
    assert world.orchestrator.dead_letters() == {}
