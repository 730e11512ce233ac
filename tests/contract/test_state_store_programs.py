"""What every store does with the programs that agents have learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from multiagents import failpoints
from multiagents.exceptions import StateStoreError
from multiagents.failpoints import WriteSite
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.payloads.codecs.gzip import GzipCodec
from multiagents.state_store.programs import Programs
from multiagents.state_store.records import MAX_PROGRAM_CHANGES, MAX_PROGRAMS, Placement
from tests.support.store_kit import RedisKit, StoreKit

WORKER = "classify"
PROGRAM = {"state": {"demos": [{"text": "fine", "mood": "good"}], "lm": None}}


@pytest.fixture
def programs(kit: StoreKit) -> Programs:
    return kit.store.programs


def learned(programs: Programs, number: int = 1) -> list[int]:
    return [
        programs.add(WORKER, {**PROGRAM, "n": one}, {"by": f"run-{one}"}, token=str(one))
        for one in range(1, number + 1)
    ]


def place(programs: Programs, change: Callable[[Placement], Placement]) -> bool:
    return programs.place(WORKER, change(programs.placement(WORKER)), {"actor": "ann"})


# --- programs --------------------------------------------------------------------------------------------------------


def test_a_worker_that_has_learned_nothing_asks_as_its_code_says(programs: Programs) -> None:
    assert programs.placement(WORKER) == Placement()
    assert programs.records(WORKER) == []
    assert programs.changes(WORKER) == []
    assert programs.get(WORKER, 1) is None


def test_programs_are_numbered_in_the_order_in_which_they_come(programs: Programs) -> None:
    assert learned(programs, 2) == [1, 2]
    programs.add("another", {}, {}, token="1")

    assert [(each.version, each.about) for each in programs.records(WORKER)] == [
        (1, {"by": "run-1"}),
        (2, {"by": "run-2"}),
    ]
    assert programs.get(WORKER, 2) == {**PROGRAM, "n": 2}
    assert [each.version for each in programs.records("another")] == [1]


def test_a_program_that_is_put_in_twice_is_one(programs: Programs) -> None:
    assert learned(programs) + learned(programs) == [1, 1]
    assert len(programs.records(WORKER)) == 1


def test_when_a_program_came_is_told_by_the_stores_clock(kit: StoreKit) -> None:
    before = kit.store.now().timestamp() * 1000
    learned(kit.store.programs)

    [record] = kit.store.programs.records(WORKER)
    assert before - 1 <= record.made_ms <= kit.store.now().timestamp() * 1000 + 1


def test_the_oldest_that_nobody_needs_go(programs: Programs) -> None:
    learned(programs, 3)
    place(programs, lambda placed: placed.promoted(1))
    place(programs, lambda placed: placed.promoted(3))

    learned(programs, MAX_PROGRAMS + 2)

    kept = [each.version for each in programs.records(WORKER)]
    assert len(kept) == MAX_PROGRAMS
    assert kept[:4] == [1, 3, 5, 6]
    assert programs.get(WORKER, 2) is None
    assert programs.add(WORKER, {}, {}, token="2") == MAX_PROGRAMS + 3


# --- placements ------------------------------------------------------------------------------------------------------


def test_what_is_in_place_is_what_was_last_put_there(programs: Programs) -> None:
    learned(programs, 2)

    assert place(programs, lambda placed: placed.promoted(1))
    assert place(programs, lambda placed: placed.promoted(2, 0.1))
    assert programs.placement(WORKER) == Placement(2, current=1, canary=2, share=0.1, former=(0,))

    assert place(programs, lambda placed: placed.back())
    assert programs.placement(WORKER) == Placement(3, current=1, former=(0,))


def test_of_two_changes_at_once_one_is_told_to_look_again(programs: Programs) -> None:
    learned(programs, 2)
    seen = programs.placement(WORKER)

    assert programs.place(WORKER, seen.promoted(1), {"actor": "ann"})
    assert not programs.place(WORKER, seen.promoted(2), {"actor": "bob"})
    assert programs.place(WORKER, seen.promoted(1), {"actor": "ann"})  # sent twice
    assert programs.placement(WORKER).current == 1


def test_a_program_that_is_not_kept_is_put_nowhere(programs: Programs) -> None:
    learned(programs)

    assert not place(programs, lambda placed: placed.promoted(2))
    assert not place(programs, lambda placed: placed.promoted(2, 0.1))
    assert programs.placement(WORKER) == Placement()


def test_changes_are_told_with_who_and_when(kit: StoreKit) -> None:
    programs = kit.store.programs
    learned(programs, 2)
    for version in range(MAX_PROGRAM_CHANGES + 5):
        assert place(programs, lambda placed, version=version: placed.promoted(version % 2 + 1))

    changes = programs.changes(WORKER)
    assert [each.revision for each in changes] == list(range(6, MAX_PROGRAM_CHANGES + 6))
    assert changes[-1].about == {"actor": "ann"}
    assert abs(changes[-1].at_ms - kit.store.now().timestamp() * 1000) < 60_000


# --- payloads and faults ---------------------------------------------------------------------------------------------


def test_programs_and_notes_go_through_the_codecs(redis_kit: RedisKit) -> None:
    redis_kit.under(PayloadPolicy(codecs=(GzipCodec(least=0),)))
    programs = redis_kit.store.programs
    learned(programs)
    place(programs, lambda placed: placed.promoted(1))

    fields = redis_kit.client.hgetall(redis_kit.keys.of_key(WORKER).programs(WORKER))
    assert fields["v:1"].startswith("!")
    assert not any(word in str(fields) for word in ("fine", "run-1", "ann"))
    assert programs.get(WORKER, 1) == {**PROGRAM, "n": 1}
    assert programs.records(WORKER)[0].about == {"by": "run-1"}
    assert programs.changes(WORKER)[0].about == {"actor": "ann"}


@pytest.mark.parametrize("is_made", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("site", [WriteSite.PROGRAM_ADD, WriteSite.PROGRAM_PLACE])
def test_G5_who_never_hears_of_a_write_repeats_it_and_nothing_is_different(
    redis_kit: RedisKit, site: WriteSite, is_made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[WriteSite] = []

    def injector(at: WriteSite, action: Any) -> Any:
        if at is not site or failed:
            return action()
        failed.append(at)
        if is_made:
            action()
        raise StateStoreError("nobody has heard of it")

    def repeated(action: Callable[[], Any]) -> Any:
        try:
            return action()
        except StateStoreError:
            return action()

    programs = redis_kit.store.programs
    monkeypatch.setattr(failpoints, "injector", injector)
    seen = programs.placement(WORKER)

    assert repeated(lambda: learned(programs)) == [1]
    assert repeated(lambda: programs.place(WORKER, seen.promoted(1), {}))
    assert failed
    assert programs.placement(WORKER) == Placement(1, current=1, former=(0,))
    assert len(programs.changes(WORKER)) == 1
