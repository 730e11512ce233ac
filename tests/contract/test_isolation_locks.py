"""Locks on business keys: the same on every store (rule S29)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from multiagents.state_store import Lock
from multiagents.state_store.records import DueKind
from tests.support.store_kit import StoreKit

MINUTE = 60_000


def ask(kit: StoreKit, holder: str, key: str = "sku|7", **options: Any) -> Lock:
    answer: Lock = kit.store.isolation.lock(key, f"{holder}~1", **{"asking_ms": MINUTE, **options})
    return answer


def test_S29_a_lock_is_given_to_one_run_at_a_time(kit: StoreKit) -> None:
    first = ask(kit, "a")

    second = ask(kit, "b")

    assert first == Lock(True, first.token, "a~1")
    assert second == Lock(False, first.token, "a~1", 0)
    assert kit.store.isolation.lock_of("sku|7") == Lock(False, first.token, "a~1")


def test_S29_a_run_that_asks_again_has_the_same_token(kit: StoreKit) -> None:
    first = ask(kit, "a")

    assert ask(kit, "a") == first
    assert kit.another().isolation.lock("sku|7", "a~1", asking_ms=MINUTE) == first


def test_other_keys_are_other_locks(kit: StoreKit) -> None:
    assert all(ask(kit, f"run-{number}", f"sku-{number}").granted for number in range(9))


def test_S29_of_many_who_ask_at_once_one_gets_it(kit: StoreKit) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: ask(kit, f"run-{number}"), range(24)))

    assert [answer.granted for answer in answers].count(True) == 1


def test_S29_who_came_first_is_given_it_first_and_the_token_grows(kit: StoreKit) -> None:
    held = ask(kit, "a")
    ask(kit, "b")
    assert ask(kit, "c").place == 1
    assert kit.store.isolation.unlock("sku|7", held.token)

    late = ask(kit, "c")
    first = ask(kit, "b")

    assert (late.granted, late.holder, late.place) == (False, "", 1)
    assert first.granted
    assert first.token > held.token


def test_a_waiter_who_does_not_ask_again_is_passed_over(kit: StoreKit) -> None:
    held = ask(kit, "a")
    ask(kit, "b", asking_ms=20)
    ask(kit, "c")
    kit.store.isolation.unlock("sku|7", held.token)

    kit.sleep(0.05)

    assert ask(kit, "c").granted


def test_S29_after_the_lease_others_may_have_it_and_the_token_tells(kit: StoreKit) -> None:
    held = ask(kit, "a", lease_ms=40)
    assert not ask(kit, "b").granted

    kit.sleep(0.06)
    taken = ask(kit, "b")

    assert taken.granted
    assert taken.token > held.token
    assert not ask(kit, "a").granted


def test_asking_again_begins_the_lease_anew_and_never_makes_it_shorter(kit: StoreKit) -> None:
    held = ask(kit, "a", lease_ms=MINUTE)
    until = kit.store.isolation.lock_of("sku|7").until_ms

    ask(kit, "a", lease_ms=10)
    assert kit.store.isolation.lock_of("sku|7").until_ms == until
    ask(kit, "a")

    assert kit.store.isolation.lock_of("sku|7") == Lock(False, held.token, "a~1", until_ms=0)


def test_S29_the_lock_of_a_run_that_is_over_goes_to_who_is_next(kit: StoreKit) -> None:
    held = ask(kit, "a")
    ask(kit, "b")

    taken = ask(kit, "b", over=held.token)

    assert taken.granted
    assert taken.token > held.token
    # Who found out as well, and comes later, takes nothing from the new holder.
    assert not ask(kit, "c", over=held.token).granted


def test_a_lock_that_is_forgotten_does_not_start_its_tokens_anew(kit: StoreKit) -> None:
    held = ask(kit, "a")
    kit.store.isolation.unlock("sku|7", held.token)
    assert kit.store.isolation.lock_of("sku|7") is None

    assert ask(kit, "b").token > held.token


def test_a_lock_is_looked_after_until_it_is_gone(kit: StoreKit) -> None:
    held = ask(kit, "a", lease_ms=1)
    kit.sleep(0.01)

    entries, _ = kit.store.take_due()

    assert [(entry.kind, entry.transaction_id, entry.member) for entry in entries] == [
        (DueKind.LOCK, "sku|7", DueKind.LOCK.entry("sku|7"))
    ]
    kit.store.isolation.unlock("sku|7", held.token)
    kit.sleep(0.6)
    assert kit.store.take_due()[0] == []


def test_a_run_with_the_name_of_a_key_takes_nothing_with_it(kit: StoreKit) -> None:
    kit.begin("order-1")
    ask(kit, "a", "order-1", lease_ms=1)
    kit.end("order-1", retention_ms=1)
    kit.sleep(0.01)

    kit.store.forget("order-1")

    assert DueKind.LOCK.entry("order-1") in [entry.member for entry in kit.store.take_due()[0]]
