"""What every state store does when its server's clock is set. One suite over memory and Redis.

Back: nothing is stopped for longer than its own period. Forward: nothing is due before its time, and nobody who lives
loses what he has in hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest

from multiagents.clock import to_ms
from multiagents.names import Correlation, Direction
from multiagents.state_store import Slot
from multiagents.state_store.records import Delivery, Dispatch, DueKind
from tests.support.store_kit import LEASE, RUN, RedisKit, StoreKit

#: Three partitions are one partition and more.
pytestmark = pytest.mark.parametrize("kit", ["memory", "redis-3-partitions"], indirect=True)

HOUR = 3_600.0
#: What is to happen after a second and a half, and what after a minute: ms.
SOON, LATER = 1_500, 60_000
ATTEMPT = DueKind.ATTEMPT.entry(RUN, "reserve", "d1")
LOCK = DueKind.LOCK.entry("sku-7")

Found = list[str]


def attempt(number: int = 1, step: str = "reserve", transaction_id: str = RUN) -> Correlation:
    return Correlation(transaction_id, step, Direction.DO, number)


def lock(kit: StoreKit, who: str, **options: Any) -> bool:
    return bool(kit.store.isolation.lock("sku-7", f"{who}~1", **{"asking_ms": 1_000, **options}).granted)


def slot(kit: StoreKit, number: int, **limits: Any) -> Slot:
    found: Slot = kit.store.isolation.take_slot("bank", attempt(number, "pay"), **{"pause_ms": 100, **limits})
    return found


def waits(delivery: Delivery, ms: int, **fields: Any) -> Callable[[StoreKit], Any]:
    return lambda kit: kit.begin(dispatch=Dispatch("reserve", "d1", delivery, delay_ms=ms, **fields))


def in_flight(kit: StoreKit, **limits: Any) -> None:
    kit.begin()
    kit.claim(**limits)


def to_start(kit: StoreKit, ms: int) -> None:
    kit.begin(dispatch=kit.message(RUN, "reserve", start_within_ms=ms))


def owed(kit: StoreKit) -> None:
    in_flight(kit)
    kit.finish(pending=True)


def lost(kit: StoreKit) -> None:
    kit.begin()
    kit.consume()
    kit.due()


def waiter_who_died(kit: StoreKit) -> None:
    lock(kit, "a")
    lock(kit, "b")
    held = kit.store.isolation.lock_of("sku-7")
    assert held is not None
    kit.store.isolation.unlock("sku-7", held.token)


def turned_away(kit: StoreKit) -> None:
    slot(kit, 1, concurrency=1)
    slot(kit, 2, concurrency=1)


# --- the clock goes back ---------------------------------------------------------------------------------------------

#: What is stored of time: how it comes to be, and whether it goes on (given what was due since), asked again and again.
STORED: dict[str, tuple[Callable[[StoreKit], Any], Callable[[StoreKit, Found], bool]]] = {
    "a sleep": (waits(Delivery.SLEEP, SOON), lambda _kit, found: ATTEMPT in found),
    "a pause before a retry": (waits(Delivery.TIMER, SOON), lambda _kit, found: ATTEMPT in found),
    "an undo's link": (waits(Delivery.LINK, SOON), lambda _kit, found: ATTEMPT in found),
    "what another broker was sent": (
        waits(Delivery.OUTBOX, SOON, target="queue"),
        lambda _kit, found: ATTEMPT in found,
    ),
    "a message that was lost": (lost, lambda _kit, found: ATTEMPT in found),
    "the lease of a worker that died": (in_flight, lambda _kit, found: ATTEMPT in found),
    "by when an attempt has to be begun": (
        lambda kit: to_start(kit, SOON),
        lambda _kit, found: DueKind.UNCLAIMED.entry(RUN, "reserve", "d1") in found,
    ),
    "a decision that is owed": (owed, lambda _kit, found: DueKind.DECISION.entry(RUN) in found),
    "a deadline": (
        lambda kit: kit.begin(deadline_ms=SOON),
        lambda _kit, found: DueKind.DEADLINE.entry(RUN) in found,
    ),
    "a retention": (
        lambda kit: (kit.begin(), kit.end(retention_ms=SOON)),
        lambda _kit, found: DueKind.EXPIRY.entry(RUN) in found,
    ),
    "the lease of a lock": (lambda kit: lock(kit, "a", lease_ms=SOON), lambda kit, _found: lock(kit, "b")),
    "a lock to look after": (lambda kit: lock(kit, "a", lease_ms=SOON), lambda _kit, found: LOCK in found),
    "a waiter for a lock who died": (waiter_who_died, lambda kit, _found: lock(kit, "c")),
    "the slot of an attempt that died": (
        lambda kit: slot(kit, 1, concurrency=1),
        lambda kit, _found: slot(kit, 2, concurrency=1).granted,
    ),
    "a rate": (
        lambda kit: slot(kit, 1, every_us=SOON * 1_000),
        lambda kit, _found: slot(kit, 2, every_us=SOON * 1_000).granted,
    ),
    "who was turned away by a limit": (turned_away, lambda kit, _found: slot(kit, 3, concurrency=1).wait_ms < SOON),
    "who wakes when something is due": (
        lambda kit: (waits(Delivery.SLEEP, LATER)(kit), kit.store.take_due(waker="dead")),
        lambda kit, _found: kit.store.take_due(waker="living")[1] < HOUR,
    ),
    "what a worker that died has announced": (
        lambda kit: kit.store.announce({"node:dead": {"queues": ["celery"]}}),
        lambda kit, _found: not kit.store.announced().nodes,
    ),
    "a schedule": (
        lambda kit: kit.store.schedules.ticked("nightly", to_ms(kit.store.now())),
        lambda kit, _found: kit.store.schedules.ticked("nightly", to_ms(kit.store.now())),
    ),
    "a dead letter": (
        lambda kit: kit.store.bury(RUN, "letter", {"why": "nobody"}),
        lambda kit, _found: kit.store.tidy(SOON) == ["letter"],
    ),
}


@pytest.mark.parametrize("what", STORED)
def test_a_clock_that_goes_back_an_hour_stops_nothing_for_longer_than_its_own_period(kit: StoreKit, what: str) -> None:
    prepare, goes_on = STORED[what]
    kit.due()
    prepare(kit)
    kit.due()

    kit.set_clock(-HOUR)

    found: Found = kit.due()
    until = kit.store.now().timestamp() + 20
    while not goes_on(kit, found):
        assert kit.store.now().timestamp() < until, f"{what} stands still"
        kit.sleep(LEASE / 20)
        found += kit.due()


def test_a_record_is_moved_as_what_is_due_is(kit: StoreKit) -> None:
    waits(Delivery.SLEEP, SOON)(kit)
    kit.due()

    kit.set_clock(-HOUR)
    kit.due()

    found = kit.store.load(RUN).in_flight["reserve"]
    assert 0 <= to_ms(kit.store.now()) - found.since_ms < 60_000
    assert abs(found.timer_ms - to_ms(kit.store.now())) < 60_000


def test_a_clock_that_goes_back_ends_no_lease_early_and_keeps_no_dead_worker_alive(kit: StoreKit) -> None:
    kit.begin()
    kit.begin("order-2")
    kit.claim(timeout=60)
    kit.claim(timeout=60, transaction_id="order-2")
    kit.due()
    before = kit.store.load(RUN).in_flight["reserve"]

    kit.set_clock(-HOUR)
    kit.store.renew(attempt(transaction_id="order-2"), "owner-1")
    kit.due()
    after = kit.store.load(RUN).in_flight["reserve"]

    assert before.deadline_ms - after.deadline_ms == pytest.approx(HOUR * 1000, abs=5_000)
    assert after.deadline_ms - after.since_ms == before.deadline_ms - before.since_ms
    found: Found = []
    while ATTEMPT not in found:
        kit.store.renew(attempt(transaction_id="order-2"), "owner-1")
        found += kit.due()
        kit.sleep(LEASE / 20)
    assert found == [ATTEMPT]


# --- the clock goes forward ------------------------------------------------------------------------------------------

#: What is not due for a minute, or belongs to somebody who lives; and whether that is still so.
KEPT: dict[str, tuple[Callable[[StoreKit], Any], Callable[[StoreKit], bool]]] = {
    "a sleep": (waits(Delivery.SLEEP, LATER), lambda _kit: True),
    "a pause before a retry": (waits(Delivery.TIMER, LATER), lambda _kit: True),
    "what another broker was sent": (waits(Delivery.OUTBOX, LATER, target="queue"), lambda _kit: True),
    "by when an attempt has to be begun": (lambda kit: to_start(kit, LATER), lambda _kit: True),
    "a deadline": (lambda kit: kit.begin(deadline_ms=LATER), lambda _kit: True),
    "a retention": (lambda kit: (kit.begin(), kit.end(retention_ms=LATER)), lambda _kit: True),
    "an attempt": (in_flight, lambda kit: bool(kit.store.renew(attempt(), "owner-1").alive)),
    "an attempt with a time limit": (
        lambda kit: in_flight(kit, timeout=60),
        lambda kit: bool(kit.store.renew(attempt(), "owner-1").alive),
    ),
    "an attempt with heartbeats": (
        lambda kit: in_flight(kit, heartbeat_timeout=60),
        lambda kit: bool(kit.store.renew(attempt(), "owner-1").alive),
    ),
    "a lock": (lambda kit: lock(kit, "a", lease_ms=LATER), lambda kit: not lock(kit, "b")),
    "a slot": (
        lambda kit: slot(kit, 1, concurrency=1),
        lambda kit: not slot(kit, 2, concurrency=1).granted and slot(kit, 1, keep=True).granted,
    ),
}


@pytest.mark.parametrize("what", KEPT)
@pytest.mark.parametrize("seen", ["at once", "later"])
def test_a_clock_that_goes_forward_an_hour_makes_nothing_due_and_takes_nothing_from_the_living(
    kit: StoreKit, what: str, seen: str
) -> None:
    prepare, is_kept = KEPT[what]
    kit.due()
    prepare(kit)
    kit.due()

    kit.set_clock(HOUR)

    if seen == "later":
        assert is_kept(kit), "before any sweep has seen it"
    until = kit.store.now().timestamp() + 2 * LEASE
    while kit.store.now().timestamp() < until:
        assert kit.due() == []
        assert is_kept(kit)
        kit.sleep(LEASE / 20)


@pytest.mark.parametrize("delivery", [Delivery.SLEEP, Delivery.TIMER])
def test_a_timer_rings_after_its_own_time_when_the_clock_has_gone_forward(kit: StoreKit, delivery: Delivery) -> None:
    waits(delivery, SOON)(kit)

    kit.due()

    kit.set_clock(HOUR)

    assert kit.due() == []
    assert kit.wait_due() == [ATTEMPT]

    assert kit.store.load(RUN).in_flight["reserve"].timer_ms <= to_ms(kit.store.now())


def test_a_deadline_that_is_a_moment_comes_when_the_clock_says_so(kit: StoreKit) -> None:
    kit.begin(deadline_ms=LATER)
    kit.spoil("fields", "deadline", str(to_ms(kit.store.now()) + LATER))
    kit.due()

    kit.set_clock(HOUR)

    assert kit.due() == [DueKind.DEADLINE.entry(RUN)]


def test_a_worker_that_dies_when_the_clock_has_gone_forward_is_found_after_a_lease(kit: StoreKit) -> None:
    in_flight(kit)
    kit.due()
    kit.set_clock(HOUR)
    kit.store.renew(attempt(), "owner-1")

    assert kit.due() == []
    assert kit.wait_due(20) == [ATTEMPT]


def test_what_is_begun_before_anybody_has_seen_the_clock_go_forward_has_its_own_time(kit: StoreKit) -> None:
    closes = to_ms(kit.store.now()) + LATER
    kit.begin(dispatch=kit.message(RUN, "reserve", close_ms=closes))
    kit.begin("order-2", dispatch=Dispatch("reserve", "d1", Delivery.SLEEP, delay_ms=SOON))
    kit.due()

    kit.set_clock(HOUR)
    claim = kit.claim(timeout=LATER / 1000)
    kit.begin("order-3", dispatch=Dispatch("reserve", "d1", Delivery.SLEEP, delay_ms=SOON))

    assert claim.deadline is not None
    assert claim.deadline > claim.now
    assert kit.due() == []
    found: Found = []
    while len(found) < 2:
        kit.store.renew(attempt(), "owner-1")
        found += kit.due()
        kit.sleep(LEASE / 20)
    assert set(found) == {DueKind.ATTEMPT.entry(name, "reserve", "d1") for name in ("order-2", "order-3")}
    assert kit.store.load(RUN).in_flight["reserve"].deadline_ms == to_ms(claim.deadline)


def test_an_outage_is_no_clock_that_goes_forward(kit: StoreKit, caplog: pytest.LogCaptureFixture) -> None:
    waits(Delivery.SLEEP, SOON)(kit)
    kit.due()

    if isinstance(kit, RedisKit):  # what is asked meanwhile is answered afterwards
        kit.client.client_pause(2 * SOON, all=True)
    else:
        kit.sleep(2 * SOON / 1000)

    assert kit.due() == [ATTEMPT]
    assert [each for each in caplog.records if "was set" in each.getMessage()] == []


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "way"), [(-HOUR, "back"), (HOUR, "forward")])
def test_a_clock_that_was_set_is_told_of_once(
    kit: StoreKit, caplog: pytest.LogCaptureFixture, by: float, way: str
) -> None:
    waits(Delivery.SLEEP, LATER)(kit)
    kit.due()
    kit.set_clock(by)

    for _ in range(3):
        kit.due()

    said = [record.getMessage() for record in caplog.records if f"was set {way} by" in record.getMessage()]
    assert len(said) == (kit.keys.partitions if isinstance(kit, RedisKit) else 1)
    assert "3600" in said[0] or "3599" in said[0]


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_more_than_a_page_is_moved_when_the_clock_was_set_twice(kit: StoreKit, by: float) -> None:
    names = [f"order-{number}" for number in range(2_100)]
    for name in names:
        kit.begin(name, dispatch=Dispatch("reserve", "d1", Delivery.SLEEP, delay_ms=600_000))
    kit.due()
    kit.set_clock(by)
    kit.due()
    kit.set_clock(by)

    for _ in range(4):
        kit.due()

    left = [kit.store.load(name).in_flight["reserve"].timer_ms - to_ms(kit.store.now()) for name in names]
    assert max(left) <= 601_000
    assert min(left) > 400_000
    assert kit.store.take_due()[1] == pytest.approx(600, abs=200)


@pytest.mark.parametrize("by", [-0.5, 0.5])
def test_a_clock_that_is_set_a_little_moves_nothing(kit: StoreKit, by: float) -> None:
    waits(Delivery.SLEEP, LATER)(kit)
    kit.due()
    before = kit.store.load(RUN).in_flight["reserve"]

    kit.set_clock(by)
    kit.due()

    assert kit.store.load(RUN).in_flight["reserve"] == before


def test_several_who_sweep_move_it_once(kit: StoreKit) -> None:
    waits(Delivery.SLEEP, LATER)(kit)
    stores = [kit.another() for _ in range(4)]
    for store in stores:
        store.take_due()
    kit.set_clock(HOUR)

    threads = [Thread(target=store.take_due) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    left = kit.store.load(RUN).in_flight["reserve"].timer_ms - to_ms(kit.store.now())
    assert 0 < left <= LATER


def test_the_clock_goes_on(kit: StoreKit) -> None:
    before = kit.store.now()
    kit.sleep(0.02)

    assert 0.02 <= (kit.store.now() - before).total_seconds() < 5
    assert abs(kit.another().now().timestamp() - time.time()) < 5
