"""What is written has a way out: when the retention of runs is over, nothing of them is left."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import TerminalError, WorkflowBuilder, worker
from multiagents.event_bus import RedisEventBus
from multiagents.exceptions import WorkflowError
from multiagents.state_store.records import DueKind
from tests.support.passing_world import PassingWorld


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


def test_children_and_theirs_go_when_the_retention_of_their_parent_is_over(passing_world: PassingWorld) -> None:
    passing_world.now.start(ORDER, {}, "o")
    passing_world.now.start(PAYMENT, {}, "alone")
    assert passing_world.runs == ["alone", "o", "o:deliver", "o:deliver:pack", "o:pay", "o:survey"]

    passing_world.tend()

    assert passing_world.runs == []


def test_a_child_is_kept_as_long_as_its_parent_whatever_its_own_retention(passing_world: PassingWorld) -> None:
    run = passing_world.now.start(WAITING, {}, "o")

    passing_world.tend()
    assert passing_world.runs == ["o", "o:pay"]
    run.signal("go")
    passing_world.tend()

    assert passing_world.runs == []


def test_the_children_of_a_run_that_is_replaced_go_with_it(passing_world: PassingWorld) -> None:
    passing_world.now.start(ORDER, {"fail": True}, "o")
    assert {"o", "o:pay"} <= set(passing_world.runs)

    run = passing_world.now.start(WAITING, {}, "o", on_conflict="replace_ended")
    passing_world.tend()

    assert passing_world.runs == ["o", "o:g2:pay"]
    assert run.status == "running"


def test_a_child_whose_parent_went_when_nobody_could_tell_it_goes_at_its_next_look(passing_world: PassingWorld) -> None:
    passing_world.now.start(ORDER, {}, "o")
    passing_world.now.store.forget("o")

    passing_world.tend()

    assert passing_world.runs == []


def test_a_run_that_nobody_can_read_any_more_goes_all_the_same_when_its_retention_is_over(
    redis_world: PassingWorld,
) -> None:
    world, keys = redis_world, redis_world.now.keys.of_run("o")
    assert world.client is not None
    world.now.start(PAYMENT, {}, "o", attributes={"customer": "c-1"})
    world.client.hset(keys.run, "s:charge", "no JSON at all")

    world.tend()

    assert world.runs == []
    assert world.client.keys(f"{keys.tag}:run:*") == world.client.keys(f"{keys.tag}:attribute:*") == []


def test_nothing_of_a_run_goes_before_its_place_in_the_indexes(redis_world: PassingWorld) -> None:
    world, keys = redis_world, redis_world.now.keys.of_run("o")
    assert world.client is not None

    world.now.start(PAYMENT, {"text": "x" * 300_000}, "o", attributes={"customer": "c-1"})

    own = [keys.run, keys.results, keys.history, keys.blobs]
    assert [world.client.ttl(key) for key in own] == [-1] * 4
    assert world.client.zscore(keys.due, DueKind.EXPIRY.entry(world.now.store.load("o").state.identity)) is not None


# --- dead letters ----------------------------------------------------------------------------------------------------


def test_what_lay_on_the_bus_and_what_belongs_to_no_run_are_one_list_and_can_be_taken_away(
    redis_world: PassingWorld,
) -> None:
    orchestrator, keys = redis_world.now, redis_world.now.keys
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


def test_a_letter_about_an_undo_is_taken_away_only_by_settling_it_while_its_run_is_there(
    passing_world: PassingWorld,
) -> None:
    run = passing_world.now.start(REFUSED, {}, "o")
    assert run.status == "compensation_failed"
    [letter] = passing_world.now.dead_letters().values()

    with pytest.raises(WorkflowError, match=r"is to be settled.*retry\(\), skip\(\)"):
        letter.discard()

    passing_world.tend()
    assert passing_world.runs == []
    assert list(passing_world.now.dead_letters()) == [letter.key]
    letter.discard()
    assert passing_world.now.dead_letters() == {}
