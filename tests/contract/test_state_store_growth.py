"""What a store keeps beside its runs goes when nobody needs it any more. One suite over memory and Redis."""

from __future__ import annotations

import re

import pytest

from multiagents.exceptions import WorkflowNotFoundError
from multiagents.state_store.schedules import FORGOTTEN_AFTER_MS
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunStatus
from tests.support.store_kit import FLOW, LIST, StoreKit

ENDED = [status for status in RunStatus if status.is_end]
#: Of one partition, also where there are three.
ONE, OTHER = "order-1", "order-5"


def plan(number: int) -> Definition:
    return WorkflowBuilder("plan").add_step("reserve", f"tool-{number}").build(register=False)


def is_kept(kit: StoreKit, definition: Definition) -> bool:
    try:
        return kit.another().definition(definition.content_hash, ONE) == definition
    except WorkflowNotFoundError:
        return False


def test_a_definition_is_kept_as_long_as_a_run_follows_it(kit: StoreKit) -> None:
    for name in (ONE, OTHER):
        kit.begin(name)
        kit.end(name)

    kit.store.forget(ONE)
    assert is_kept(kit, FLOW)
    kit.store.delete(OTHER, status=RunStatus.COMPLETED, tombstone="stone-1")

    assert not is_kept(kit, FLOW)
    assert kit.begin(ONE).created
    assert is_kept(kit, FLOW)


def test_of_many_definitions_those_stay_that_runs_follow(kit: StoreKit) -> None:
    plans = [plan(number) for number in range(20)]
    for definition in plans:
        kit.begin(definition=definition, call=definition.content_hash, replaces=ENDED)
        kit.end()

    assert [is_kept(kit, each) for each in plans] == [False] * 19 + [True]
    kit.store.forget(ONE)
    assert not is_kept(kit, plans[-1])


def test_a_run_that_is_replaced_by_one_of_the_same_definition_leaves_it(kit: StoreKit) -> None:
    kit.begin()
    kit.end()

    kit.begin(call="call-1", replaces=ENDED)

    assert is_kept(kit, FLOW)
    kit.end()
    kit.store.forget(ONE)
    assert not is_kept(kit, FLOW)


def test_what_content_a_version_had_is_known_as_long_as_a_run_follows_it(kit: StoreKit) -> None:
    kit.begin(definition=plan(1))
    assert kit.begin(OTHER, definition=plan(2)).other == plan(1).content_hash
    for name in (ONE, OTHER):
        kit.end(name)
        kit.store.forget(name)

    assert kit.begin(definition=plan(3)).other == ""


def test_the_numbering_of_a_list_is_forgotten_when_nothing_waits_in_it_and_never_goes_back(kit: StoreKit) -> None:
    def number() -> int:
        [message] = kit.messages()
        return int(re.findall(r'"\d+:(\d+)"', message)[0])

    kit.begin(ONE)
    kit.store.tidy(60_000)
    before = number()
    kit.consume()
    kit.store.tidy(60_000)  # it is not claimed yet
    kit.claim()
    kit.store.tidy(60_000)

    kit.begin(OTHER)

    assert number() == before + 1
    assert kit.store.waiting(LIST).keys() == {LIST}


def test_a_schedule_that_is_no_more_is_forgotten_unless_somebody_paused_it(kit: StoreKit) -> None:
    now = round(kit.store.now().timestamp() * 1000)
    schedules = kit.store.schedules
    schedules.ticked("yearly", now - FORGOTTEN_AFTER_MS + 86_400_000)
    for name in ("gone", "paused"):
        schedules.ticked(name, now - FORGOTTEN_AFTER_MS - 1)
    schedules.pause("paused", "{}")

    schedules.ticked("nightly", now)

    known = {name for name in ("yearly", "gone", "paused", "nightly") if schedules.state(name)[0] is not None}
    assert known == {"yearly", "paused", "nightly"}


@pytest.mark.parametrize("verb", ["forget", "delete"])
def test_tidying_and_going_twice_changes_nothing(kit: StoreKit, verb: str) -> None:
    for name in (ONE, OTHER):
        kit.begin(name)
        kit.end(name)

    for _ in range(2):
        kit.store.tidy(60_000)
        if verb == "forget":
            kit.store.forget(ONE)
        else:
            kit.store.delete(ONE, status=RunStatus.COMPLETED, tombstone="stone-1")

    assert is_kept(kit, FLOW)


def test_dead_letters_go_when_nobody_has_settled_them_for_long_enough(kit: StoreKit) -> None:
    kit.begin()
    kit.finish(answers=None, dead_letters={"order-1/reserve/undo/1": {"why": "parked"}})
    kit.store.bury(ONE, "order-1/charge/do/1", {"why": "nobody waits for it"})
    kit.sleep(0.3)
    kit.store.bury("order-2", "order-2", {"why": "it cannot be read"})
    kit.store.bury(ONE, "order-1/charge/do/1", {"why": "it came again"})

    assert kit.store.tidy(60_000) == []
    assert kit.store.tidy(250) == ["order-1/reserve/undo/1"]

    assert sorted(kit.store.visibility.dead_letters()) == ["order-1/charge/do/1", "order-2"]
    kit.sleep(0.3)
    assert sorted(kit.store.tidy(250)) == ["order-1/charge/do/1", "order-2"]
    assert kit.store.visibility.dead_letters() == {}


def test_a_letter_that_was_settled_or_taken_away_leaves_nothing(kit: StoreKit) -> None:
    kit.begin()
    kit.finish(answers=None, dead_letters={"order-1/reserve/undo/1": {"why": "parked"}})
    for key in ("order-2", "order-1/charge/do/1"):
        kit.store.bury(key[:7], key, {"why": "?"})

    kit.finish(answers=None, answered=["order-1/reserve/undo/1"])
    kit.store.unbury("order-2")
    kit.store.unbury("nobody")
    kit.end()
    kit.store.delete(ONE, status=RunStatus.COMPLETED, tombstone="stone-1", dead_letters=["order-1/charge/do/1"])

    assert kit.store.visibility.dead_letters() == {}
    assert kit.store.tidy(0) == []
