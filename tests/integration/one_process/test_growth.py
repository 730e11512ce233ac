"""Runs of all kinds, by the hundred or by the thousand: when their retention is over, nothing of them is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from multiagents import TerminalError, WorkflowBuilder, worker
from tests.support.passing_world import PassingWorld

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


def plain(world: PassingWorld, n: int) -> None:
    attributes = {"customer": f"c-{n % 50}", "amount": n, "at": world.store.now()}
    world.now.start(PLAIN, {"n": n, "text": LARGE if n % 100 == 0 else ""}, attributes=attributes)


def family(world: PassingWorld, n: int) -> None:
    world.now.start(PARENT, {"n": n}, f"family-{n}")


def mapped(world: PassingWorld, n: int) -> None:
    world.now.start(MAPPED, {"items": [1, 2]})


def signalled(world: PassingWorld, n: int) -> None:
    run = world.now.start(WAITING, {}, f"signalled-{n}", attributes={"order": str(n)})
    run.signal("go", {"paid": n}, key=f"webhook-{n}")


def locked(world: PassingWorld, n: int) -> None:
    world.now.start(LOCKED, {"n": n % 7})


def undone(world: PassingWorld, n: int) -> None:
    world.now.start(UNDONE, {"n": n}, f"undone-{n}")


def parked(world: PassingWorld, n: int) -> None:
    world.now.start(PARKED, {"n": n}, f"parked-{n}")


def planned(world: PassingWorld, n: int) -> None:
    plan = WorkflowBuilder("growth-plan", version=str(n)).add_step(f"tool-{n}", do).build(register=False)
    world.now.start(plan, {})


def queued(world: PassingWorld, n: int) -> None:
    to_a_tenant = WorkflowBuilder(f"growth-tenant-{n}").add_step("a", do, queue=f"tenant-{n}").build(register=False)
    world.later.start(to_a_tenant, {}).cancel()
    world.drain(f"tenant-{n}")


def replaced(world: PassingWorld, n: int) -> None:
    for workflow in (UNDONE, PARENT):
        world.now.start(workflow, {"n": n}, f"replaced-{n % 5}", on_conflict="replace_ended")


def deleted(world: PassingWorld, n: int) -> None:
    world.now.start(PARENT, {"n": n}, f"deleted-{n}").delete(reason="asked for")


KINDS: list[Callable[[PassingWorld, int], None]] = [
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


def nothing_is_left_of(rounds: int, world: PassingWorld) -> None:
    for n, begin in enumerate(KINDS * rounds):
        begin(world, n)

    world.tend_until_nothing_is_due(60 + rounds)
    gone = world.store.tidy(DAYS_90)

    assert (world.now.count(), gone) == (0, [])
    assert world.left() <= BOUNDED
    assert len(world.now.dead_letters()) == rounds
    while world.store.tidy(0):
        pass
    assert world.now.dead_letters() == {}
    assert world.left() <= BOUNDED - {"dead", "dead.since", "buried"}


def test_of_runs_of_all_kinds_nothing_is_left_but_dead_letters_and_tombstones(passing_world: PassingWorld) -> None:
    nothing_is_left_of(10, passing_world)


@pytest.mark.full
@pytest.mark.timeout(1_800)
def test_of_20_000_runs_nothing_is_left_but_dead_letters_and_tombstones(redis_url: str) -> None:
    world = PassingWorld(redis_url)

    nothing_is_left_of(800, world)  # of 25 runs each, with children, ends that are told, and those that are replaced

    world.close()
