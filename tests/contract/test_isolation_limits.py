"""Limits by key: the same on every store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from multiagents.names import Correlation, Direction
from multiagents.state_store import Slot
from tests.support.store_kit import StoreKit

LEASE_MS = 500


def attempt(number: int, direction: Direction = Direction.DO) -> Correlation:
    return Correlation(f"order-{number}", "pay", direction, 1)


def ask(kit: StoreKit, number: int, key: str = "bank", **limits: Any) -> Slot:
    answer: Slot = kit.store.isolation.take_slot(key, attempt(number), **{"pause_ms": 100, **limits})
    return answer


def test_no_more_than_the_limit_run_at_once_however_many_ask(kit: StoreKit) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: ask(kit, number, concurrency=3), range(40)))

    assert [answer.granted for answer in answers].count(True) == 3


def test_a_slot_that_is_given_back_is_given_to_another(kit: StoreKit) -> None:
    assert ask(kit, 1, concurrency=1) == Slot(True)
    assert ask(kit, 2, concurrency=1) == Slot(False, 100)

    kit.store.isolation.free_slot("bank", attempt(1))
    kit.store.isolation.free_slot("bank", attempt(1))

    assert ask(kit, 2, concurrency=1).granted


def test_asking_twice_takes_one_slot(kit: StoreKit) -> None:
    assert [ask(kit, 1, concurrency=2).granted for _ in range(3)] == [True] * 3

    assert ask(kit, 2, concurrency=2).granted


def test_doing_and_undoing_a_step_are_two(kit: StoreKit) -> None:
    kit.store.isolation.take_slot("bank", attempt(1), concurrency=1)

    assert not kit.store.isolation.take_slot("bank", attempt(1, Direction.UNDO), concurrency=1, pause_ms=1).granted


def test_other_keys_have_slots_of_their_own(kit: StoreKit) -> None:
    assert all(ask(kit, 1, f"bank:{customer}", concurrency=1).granted for customer in range(5))
    assert all(not ask(kit, 2, f"bank:{customer}", concurrency=1).granted for customer in range(5))


def test_a_slot_runs_out_with_the_lease_unless_it_is_kept(kit: StoreKit) -> None:
    ask(kit, 1, concurrency=2)
    ask(kit, 2, concurrency=2)
    kit.sleep(LEASE_MS / 1000 * 0.7)
    kit.store.isolation.take_slot("bank", attempt(1), keep=True)
    kit.sleep(LEASE_MS / 1000 * 0.5)

    assert ask(kit, 3, concurrency=2).granted
    assert not ask(kit, 4, concurrency=2).granted


def test_who_runs_keeps_his_slot_though_it_was_given_to_another_meanwhile(kit: StoreKit) -> None:
    ask(kit, 1, concurrency=1)
    kit.sleep(LEASE_MS / 1000 + 0.1)
    assert ask(kit, 2, concurrency=1).granted

    assert kit.store.isolation.take_slot("bank", attempt(1), keep=True).granted
    kit.store.isolation.free_slot("bank", attempt(2))

    assert not ask(kit, 3, concurrency=1).granted


def test_beginnings_are_evenly_spread(kit: StoreKit) -> None:
    assert ask(kit, 1, every_us=60_000).granted
    refused = ask(kit, 2, every_us=60_000)
    assert 0 < refused.wait_ms <= 60

    kit.sleep(0.065)

    assert ask(kit, 2, every_us=60_000).granted
    assert not ask(kit, 3, every_us=60_000).granted


def test_a_rate_that_was_not_used_is_not_saved_up(kit: StoreKit) -> None:
    ask(kit, 1, every_us=40_000)
    kit.sleep(0.3)

    assert [ask(kit, number, every_us=40_000).granted for number in (2, 3, 4)] == [True, False, False]


def test_who_is_turned_away_comes_again_behind_those_before(kit: StoreKit) -> None:
    ask(kit, 0, every_us=1_000_000)

    waits = [ask(kit, number, every_us=1_000_000).wait_ms for number in (1, 2, 3)]

    assert all(abs(wait - at) < 60 for wait, at in zip(waits, (1_000, 2_000, 3_000), strict=True)), waits


def test_a_refused_rate_takes_no_slot_and_a_refused_slot_no_beginning(kit: StoreKit) -> None:
    limits = {"concurrency": 1, "every_us": 400_000}  # half of it is time to ask the second one in
    assert ask(kit, 1, **limits).granted
    kit.store.isolation.free_slot("bank", attempt(1))
    assert not ask(kit, 2, **limits).granted  # the rate
    assert ask(kit, 3, concurrency=1).granted  # so the slot is free
    kit.sleep(0.45)
    assert not ask(kit, 4, **limits).granted  # the slot
    kit.store.isolation.free_slot("bank", attempt(3))

    assert ask(kit, 5, **limits).granted  # so the beginning is there


def test_who_asks_for_no_pause_is_turned_away_all_the_same(kit: StoreKit) -> None:
    ask(kit, 1, concurrency=1)

    assert not ask(kit, 2, concurrency=1, pause_ms=0).granted


# --- calls within an attempt, which have weights ---------------------------------------------------------------------


def test_a_call_counts_for_as_many_beginnings_as_it_weighs(kit: StoreKit) -> None:
    assert ask(kit, 1, every_us=1_000, call="1", weight=400).granted

    refused = ask(kit, 2, every_us=1_000, call="1", weight=50)

    assert not refused.granted
    assert 300 < refused.wait_ms <= 400
    kit.sleep(0.41)
    assert ask(kit, 2, every_us=1_000, call="1", weight=50).granted


def test_a_call_that_is_asked_for_twice_counts_once(kit: StoreKit) -> None:
    assert all(ask(kit, 1, every_us=1_000, call="1", weight=200).granted for _ in range(3))

    assert ask(kit, 2, every_us=1_000, call="1").wait_ms <= 200


def test_a_call_that_was_lighter_or_heavier_than_it_was_thought_is_corrected_once(kit: StoreKit) -> None:
    ask(kit, 1, every_us=1_000, call="1", weight=5_000)
    for _ in range(2):
        kit.store.isolation.free_slot("bank", attempt(1), call="1", later_us=-3_000_000)
    assert 1_000 < ask(kit, 2, every_us=1_000, call="1").wait_ms <= 2_000

    ask(kit, 1, "other", every_us=1_000, call="1", weight=1_000)
    for _ in range(2):
        kit.store.isolation.free_slot("other", attempt(1), call="1", later_us=2_000_000)
    assert 2_000 < ask(kit, 2, "other", every_us=1_000, call="1").wait_ms <= 3_000


def test_calls_of_one_attempt_have_slots_of_their_own(kit: StoreKit) -> None:
    assert [ask(kit, 1, concurrency=2, call=call).granted for call in "123"] == [True, True, False]

    kit.store.isolation.free_slot("bank", attempt(1), call="1")

    assert ask(kit, 1, concurrency=2, call="3").granted


def test_a_call_whose_worker_is_gone_gives_its_slot_back_by_its_lease_and_corrects_nothing(kit: StoreKit) -> None:
    ask(kit, 1, concurrency=1, call="1")
    kit.sleep(LEASE_MS / 1000 + 0.1)
    assert ask(kit, 2, concurrency=1, call="1").granted

    kit.store.isolation.free_slot("bank", attempt(1), call="1", later_us=5_000_000)

    kit.store.isolation.free_slot("bank", attempt(2), call="1")
    assert ask(kit, 3, concurrency=1, every_us=1_000, call="1").granted
