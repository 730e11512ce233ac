"""What every event bus does: one suite over the in-memory one and the one on Redis Streams."""

from __future__ import annotations

import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from uuid import uuid4

import pytest
import redis

from multiagents.embedded import EmbeddedServer
from multiagents.event_bus import DeadLetter, ErrorEvent, EventBus, InMemoryEventBus, RedisEventBus, ResultEvent
from multiagents.event_bus import redis as adapter
from multiagents.events import ErrorInfo, Event
from multiagents.exceptions import ConfigurationError, EventBusError
from multiagents.redis import ADVICE

WAIT = 10.0


def result(number: int = 0, transaction_id: str = "order-1", **fields: object) -> ResultEvent:
    return ResultEvent(transaction_id=transaction_id, step="charge", payload={"n": number}, **fields)


def numbers(found: list[tuple[str, Event]]) -> list[int]:
    return [event.payload["n"] for _, event in found]


def eventually(condition: Callable[[], bool], seconds: float = WAIT) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


class Seen:
    """A handler that keeps what it gets."""

    def __init__(self) -> None:
        self.events: queue.Queue[Event] = queue.Queue()

    def __call__(self, event: Event) -> None:
        self.events.put(event)

    def next(self) -> Event:
        return self.events.get(timeout=WAIT)

    def numbers(self, count: int) -> list[int]:
        return [self.next().payload["n"] for _ in range(count)]

    def no_more(self) -> bool:
        return self.events.empty()


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, message: str) -> None:
        self.lines.append(message)

    error = warning


@pytest.fixture(params=["memory", "redis", "redis-3-partitions"])
def make_bus(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Callable[..., EventBus]]:
    """Make buses of one kind; each test has keys of its own, and all buses of a test share them."""
    made: list[EventBus] = []
    prefix = f"test-{uuid4().hex[:8]}"

    def make(**options: object) -> EventBus:
        bus: EventBus
        if request.param == "memory":
            bus = InMemoryEventBus(**options)  # type: ignore[arg-type]
        else:
            partitions = 3 if request.param.endswith("partitions") else 1
            bus = RedisEventBus(redis_url, prefix=prefix, partitions=partitions, **options)  # type: ignore[arg-type]
        made.append(bus)
        return bus

    yield make
    for bus in made:
        bus.close()


@pytest.fixture
def bus(make_bus: Callable[..., EventBus]) -> EventBus:
    return make_bus()


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid4().hex[:8]}"


# Publish and replay.


def test_published_events_are_replayed_unchanged_and_in_order(bus: EventBus) -> None:
    events = [result(n) for n in range(5)]

    for event in events:
        bus.publish(event)

    assert [event for _, event in bus.read()] == events


def test_reading_goes_on_after_the_id_that_publish_returned(bus: EventBus) -> None:
    bus.publish(result(0))
    cursor = bus.publish(result(1))
    bus.publish(result(2))

    assert numbers(bus.read(after=cursor)) == [2]


def test_what_other_runs_publish_later_is_read_from_an_id_too(bus: EventBus) -> None:
    cursor = bus.publish(result(0))
    for n in range(1, 20):
        bus.publish(result(n, transaction_id=f"order-{n}"))
    seen = Seen()

    assert set(numbers(bus.read(after=cursor))) == set(range(1, 20))
    with bus.subscribe(seen, start=cursor):
        assert set(seen.numbers(19)) == set(range(1, 20))


def test_paging_through_many_runs_misses_and_repeats_nothing(bus: EventBus) -> None:
    for n in range(300):
        bus.publish(result(n, transaction_id=f"order-{n}"))

    found: list[int] = []
    cursor = "0"
    while page := bus.read(after=cursor, count=7):
        assert len(page) == 7 or len(found) + len(page) == 300
        found += numbers(page)
        cursor = page[-1][0]

    assert sorted(found) == list(range(300))


def test_a_page_is_full_though_other_runs_events_and_rubbish_lie_between(bus: EventBus) -> None:
    for n in range(250):
        bus.publish(result(n, transaction_id="order-1" if n % 100 == 0 else "order-2"))
        if n % 50 == 0:
            bus.append("order-1", b"rubbish")

    assert numbers(bus.read(count=3, transaction_id="order-1")) == [0, 100, 200]


def test_an_event_passes_through_json_on_its_way(bus: EventBus) -> None:
    bus.publish(ResultEvent(transaction_id="order-1", payload={"pair": (1, 2), "price": Decimal("9.90")}))

    assert bus.read()[0][1].payload == {"pair": [1, 2], "price": "9.90"}


@pytest.mark.parametrize(
    "event",
    [
        ResultEvent(transaction_id="a", payload={"x": object()}),
        ResultEvent(transaction_id="a", payload={"x": float("nan")}),
        Event(transaction_id="a", type="rumour"),
    ],
    ids=["payload that is not JSON", "number that is none in JSON", "kind that nobody can read"],
)
def test_what_no_reader_could_read_is_refused_by_publish(bus: EventBus, event: Event) -> None:
    with pytest.raises(EventBusError, match="was not published"):
        bus.publish(event)

    assert bus.read() == []


def test_a_cursor_that_is_none_is_refused_in_words(bus: EventBus) -> None:
    with pytest.raises(EventBusError, match="'yesterday' is not a place on the bus"):
        bus.read(after="yesterday")


# Subscriptions without a group.


def test_a_subscription_gets_each_event_published_after_it_once(bus: EventBus) -> None:
    bus.publish(result(0))
    seen = Seen()

    with bus.subscribe(seen):
        for n in range(1, 50):
            bus.publish(result(n))

        assert seen.numbers(49) == list(range(1, 50))
    assert seen.no_more()


def test_a_subscription_from_the_start_gets_the_past_too(bus: EventBus) -> None:
    bus.publish(result(0))
    seen = Seen()

    with bus.subscribe(seen, start="0"):
        bus.publish(result(1))

        assert seen.numbers(2) == [0, 1]


def test_a_subscription_begins_after_an_id(bus: EventBus) -> None:
    bus.publish(result(0))
    cursor = bus.publish(result(1))
    bus.publish(result(2))
    seen = Seen()

    with bus.subscribe(seen, start=cursor):
        assert seen.numbers(1) == [2]


def test_a_subscription_takes_only_the_kinds_and_the_run_it_asked_for(bus: EventBus) -> None:
    seen = Seen()

    with bus.subscribe(seen, types=[ResultEvent], transaction_id="order-1"):
        bus.publish(ErrorEvent(transaction_id="order-1", error=ErrorInfo(type="E", message="no")))
        bus.publish(result(1, transaction_id="order-2"))
        bus.publish(result(2))

        assert seen.numbers(1) == [2]
    assert seen.no_more()


def test_without_a_group_an_event_whose_handler_raises_is_logged_and_passed(
    make_bus: Callable[..., EventBus],
) -> None:
    log = Log()
    bus = make_bus(logger=log)
    seen = Seen()

    def handler(event: Event) -> None:
        seen(event)
        if event.payload["n"] == 0:
            raise RuntimeError("card reader on fire")

    with bus.subscribe(handler):
        bus.publish(result(0))
        bus.publish(result(1))

        assert seen.numbers(2) == [0, 1]
    assert seen.no_more()
    assert any("RuntimeError: card reader on fire" in line for line in log.lines)


def test_a_stopped_subscription_has_no_thread_and_gets_nothing(bus: EventBus) -> None:
    seen = Seen()
    subscription = bus.subscribe(seen)
    assert subscription.is_running

    assert subscription.stop()

    bus.publish(result(0))
    assert not subscription.is_running
    assert seen.no_more()


def test_a_handler_may_stop_its_own_subscription(bus: EventBus) -> None:
    ready = threading.Event()
    stopped: list[Event] = []

    def handler(event: Event) -> None:
        ready.wait(WAIT)
        stopped.append(event)
        subscription.stop()

    subscription = bus.subscribe(handler)
    bus.publish(result(0))
    bus.publish(result(1))
    ready.set()

    assert eventually(lambda: not subscription.is_running)
    assert len(stopped) == 1


# Groups.


def test_consumers_that_are_no_more_are_forgotten_and_lose_nothing(bus: EventBus) -> None:
    bus.publish(result(0))
    bus.read_group("billing", "holds-one")
    bus.read_group("billing", "idle")

    for _ in range(2):
        bus.remove_silent_consumers("billing", 0)
    bus.remove_silent_consumers("nobody", 0)

    assert numbers(bus.claim_stale("billing", "next", 0)) == [0]
    bus.publish(result(1))
    assert len(bus.read_group("billing", "idle")) == 1


def test_two_consumers_of_a_group_share_the_events_without_doubles(bus: EventBus) -> None:
    both = Seen()
    shares: dict[str, int] = {"a": 0, "b": 0}

    def handler(name: str) -> Callable[[Event], None]:
        def handle(event: Event) -> None:
            shares[name] += 1
            both(event)
            # Each waits for the other once, so that neither can take all.
            eventually(lambda: all(shares.values()), 2.0)

        return handle

    with bus.subscribe(handler("a"), group="billing"), bus.subscribe(handler("b"), group="billing"):
        for n in range(60):
            bus.publish(result(n, transaction_id=f"order-{n}"))
        got = both.numbers(60)

    assert sorted(got) == list(range(60))
    assert both.no_more()
    assert all(shares.values())


def test_each_group_gets_every_event(bus: EventBus) -> None:
    first, second = Seen(), Seen()

    with bus.subscribe(first, group="billing"), bus.subscribe(second, group="audit"):
        bus.publish(result(0))
        bus.publish(result(1))

        assert first.numbers(2) == second.numbers(2) == [0, 1]


def test_a_new_group_misses_nothing_published_before_it(bus: EventBus) -> None:
    bus.publish(result(0))
    seen = Seen()

    with bus.subscribe(seen, group="billing"):
        assert seen.numbers(1) == [0]


def test_a_new_group_may_begin_at_the_end(bus: EventBus) -> None:
    bus.publish(result(0))
    seen = Seen()

    with bus.subscribe(seen, group="billing", start="$"):
        bus.publish(result(1))

        assert seen.numbers(1) == [1]


def test_a_group_goes_on_where_its_last_consumer_stopped(bus: EventBus) -> None:
    first, second = Seen(), Seen()
    with bus.subscribe(first, group="billing"):
        bus.publish(result(0))
        assert first.numbers(1) == [0]
    bus.publish(result(1))

    with bus.subscribe(second, group="billing", redeliver_after=0.1):
        assert second.numbers(1) == [1]
        time.sleep(0.3)  # longer than redelivery takes: what was acknowledged must not come again
    assert second.no_more()


def test_an_event_whose_handler_raised_comes_again_until_it_is_handled(bus: EventBus) -> None:
    seen = Seen()
    attempts = 0

    def handler(event: Event) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise RuntimeError("not yet")
        seen(event)

    with bus.subscribe(handler, group="billing", redeliver_after=0.05):
        bus.publish(result(7))

        assert seen.numbers(1) == [7]
    assert attempts == 3
    assert bus.dead_letters() == []
    assert bus.claim_stale("billing", "other", 0) == []


def test_a_poison_event_is_given_up_with_its_error_and_does_not_block_the_next(bus: EventBus) -> None:
    seen = Seen()
    attempts = 0

    def handler(event: Event) -> None:
        nonlocal attempts
        if event.payload["n"] == 0:
            attempts += 1
            raise RuntimeError("I am poison")
        seen(event)

    poison = result(0)
    with bus.subscribe(handler, group="billing", redeliver_after=0.05, max_deliveries=3):
        entry_id = bus.publish(poison)
        bus.publish(result(1))

        assert seen.numbers(1) == [1]
        assert eventually(lambda: bool(bus.dead_letters()))

    expected = DeadLetter(entry_id, poison.to_json().encode(), "RuntimeError: I am poison", "billing", 3)
    assert bus.dead_letters() == [expected]
    assert attempts == 3
    assert bus.claim_stale("billing", "other", 0) == []
    bus.discard(expected.id)
    assert bus.dead_letters() == []


def test_what_a_dead_consumer_left_is_taken_over_once_it_is_stale(bus: EventBus) -> None:
    bus.publish(result(0))
    assert numbers(bus.read_group("billing", "dead")) == [0]

    assert bus.claim_stale("billing", "heir", 60_000) == []
    ((entry_id, event),) = bus.claim_stale("billing", "heir", 0)

    assert event.payload == {"n": 0}
    bus.ack("billing", entry_id)
    assert bus.claim_stale("billing", "heir", 0) == []


def test_what_was_handed_out_before_the_servers_clock_went_back_is_taken_over_like_any_other(
    redis_url: str, prefix: str
) -> None:
    bus = RedisEventBus(redis_url, prefix=prefix)
    bus.publish(result(0))
    assert numbers(bus.read_group("billing", "dead")) == [0]
    with redis.Redis.from_url(redis_url) as client:
        stream = f"{prefix}:{{0}}:bus"
        [pending] = client.xpending_range(stream, "billing", "-", "+", 1)
        in_an_hour = round(time.time() * 1000) + 3_600_000
        client.xclaim(stream, "billing", "dead", 0, [pending["message_id"]], time=in_an_hour, justid=True)

    found: list[int] = []
    assert eventually(lambda: bool(found.extend(numbers(bus.claim_stale("billing", "heir", 500))) or found))

    assert found == [0]
    assert bus.claim_stale("billing", "other", 60_000) == []
    bus.close()


def test_a_subscription_takes_over_what_a_dead_consumer_left(bus: EventBus) -> None:
    bus.publish(result(0))
    bus.read_group("billing", "dead")
    seen = Seen()

    with bus.subscribe(seen, group="billing", redeliver_after=0.2):
        assert seen.numbers(1) == [0]
    assert bus.claim_stale("billing", "other", 0) == []


def test_an_event_that_kills_every_consumer_is_given_up(bus: EventBus) -> None:
    entry_id = bus.publish(result(0))
    bus.read_group("billing", "victim-1")
    assert numbers(bus.claim_stale("billing", "victim-2", 0, max_deliveries=2)) == [0]

    assert bus.claim_stale("billing", "victim-3", 0, max_deliveries=2) == []

    (letter,) = bus.dead_letters()
    assert (letter.entry_id, letter.group, letter.deliveries) == (entry_id, "billing", 2)
    assert letter.error == "handed out 2 times and never acknowledged"
    assert bus.claim_stale("billing", "victim-4", 0) == []


def test_reading_as_a_group_makes_it_and_does_not_wait_unless_asked(bus: EventBus) -> None:
    bus.publish(result(0))

    started = time.monotonic()
    first = bus.read_group("sweep", "w1")
    second = bus.read_group("sweep", "w1")

    assert (numbers(first), second) == ([0], [])
    assert time.monotonic() - started < 0.4


def test_a_blocking_read_of_a_group_returns_when_an_event_comes(bus: EventBus) -> None:
    bus.ensure_group("sweep")
    timer = threading.Timer(0.8, bus.publish, [result(3)])
    timer.start()

    found = bus.read_group("sweep", "w1", block=WAIT)

    timer.join()
    assert numbers(found) == [3]


def test_a_blocking_read_of_a_group_ends_after_its_time(bus: EventBus) -> None:
    bus.ensure_group("sweep")
    started = time.monotonic()

    assert bus.read_group("sweep", "w1", block=0.7) == []

    assert 0.6 < time.monotonic() - started < 3


def test_acknowledging_twice_or_for_a_group_that_is_not_there_does_nothing(bus: EventBus) -> None:
    entry_id = bus.publish(result(0))
    bus.ack("nobody", entry_id)
    bus.ensure_group("sweep")
    bus.read_group("sweep", "w1")

    bus.ack("sweep", entry_id)
    bus.ack("sweep", entry_id)

    assert bus.claim_stale("sweep", "w2", 0) == []


# What cannot be read.


def test_an_entry_that_cannot_be_read_is_set_aside_with_its_bytes_and_blocks_nobody(bus: EventBus) -> None:
    raw = b'{"type": "result", \xff\x00'
    entry_id = bus.append("order-1", raw)
    bus.publish(result(1))
    alone, shared = Seen(), Seen()

    with bus.subscribe(alone, start="0"), bus.subscribe(shared, group="billing"):
        assert (alone.numbers(1), shared.numbers(1)) == ([1], [1])
    assert numbers(bus.read()) == [1]
    assert numbers(bus.read_group("sweep", "w1")) == [1]

    (letter,) = bus.dead_letters()
    assert (letter.id, letter.raw, letter.group) == (entry_id, raw, None)
    assert "must be a JSON object" in letter.error
    # Either group acknowledged it: it does not come again.
    assert bus.claim_stale("billing", "other", 0) == []
    assert numbers(bus.claim_stale("sweep", "other", 0)) == [1]


# Trimming.


def test_without_a_group_the_stream_keeps_about_the_newest_maxlen(make_bus: Callable[..., EventBus]) -> None:
    bus = make_bus(maxlen=100)
    for n in range(1000):
        bus.publish(result(n))

    kept = numbers(bus.read(count=2000))

    assert kept == list(range(1000 - len(kept), 1000))
    assert 100 <= len(kept) <= 220


def test_what_a_group_has_not_acknowledged_is_never_trimmed(make_bus: Callable[..., EventBus]) -> None:
    bus = make_bus(maxlen=10)
    bus.ensure_group("reader")
    bus.ensure_group("keen")
    for n in range(400):
        bus.publish(result(n))
        for entry_id, _ in bus.read_group("keen", "k1"):
            bus.ack("keen", entry_id)
    bus.trim()
    assert len(bus.read(count=1000)) == 400

    # One that was read and not acknowledged holds the stream up as an unread one does.
    taken = bus.read_group("reader", "r1", count=1000)
    bus.ack("reader", *[entry_id for entry_id, event in taken if event.payload["n"] != 350])
    bus.trim()
    kept = numbers(bus.read(count=1000))
    assert 350 in kept
    assert len(kept) < 200

    bus.ack("reader", *[entry_id for entry_id, event in taken if event.payload["n"] == 350])
    bus.trim()
    assert 10 <= len(bus.read(count=1000)) < 120


def test_a_group_that_is_gone_holds_trimming_up_no_longer(make_bus: Callable[..., EventBus]) -> None:
    log = Log()
    bus = make_bus(maxlen=50, logger=log)
    bus.ensure_group("forgotten")
    for n in range(500):
        bus.publish(result(n))
    assert len(bus.read(count=1000)) == 500
    if isinstance(bus, RedisEventBus):
        assert any("remove_group('forgotten')" in line for line in log.lines)

    bus.remove_group("forgotten")

    assert bus.trim() > 250
    assert len(bus.read(count=1000)) < 180


def test_trimming_to_a_length_keeps_the_newest(bus: EventBus) -> None:
    for n in range(500):
        bus.publish(result(n))

    trimmed = bus.trim(100)

    kept = numbers(bus.read(count=1000))
    assert len(kept) == 500 - trimmed
    assert 100 <= len(kept) <= 220
    assert kept[-1] == 499


# Monitoring.


class Monitor:
    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[object, ...]] = queue.Queue()

    def published(self, event: Event) -> None:
        self.calls.put(("published", event.id))

    def received(self, event: Event) -> None:
        self.calls.put(("received", event.id))

    def handled(self, event: Event, seconds: float, error: BaseException | None) -> None:
        assert 0 <= seconds < WAIT
        self.calls.put(("handled", event.id, type(error).__name__))


def test_a_monitor_is_told_the_whole_life_of_an_event(make_bus: Callable[..., EventBus]) -> None:
    monitor = Monitor()
    bus = make_bus(event_monitor=monitor)
    event = result(0)
    bus.publish(event)

    def handler(event: Event) -> None:
        raise ValueError("no")

    with bus.subscribe(handler, start="0"):
        calls = [monitor.calls.get(timeout=WAIT) for _ in range(3)]

    assert calls == [("published", event.id), ("received", event.id), ("handled", event.id, "ValueError")]


def test_a_monitor_that_raises_loses_no_event(make_bus: Callable[..., EventBus]) -> None:
    log = Log()
    bus = make_bus(event_monitor=object(), logger=log)  # has none of the methods
    seen = Seen()

    with bus.subscribe(seen, group="billing"):
        bus.publish(result(0))
        assert seen.numbers(1) == [0]

    assert any("the event monitor raised AttributeError" in line for line in log.lines)
    assert bus.claim_stale("billing", "other", 0) == []


# Redis alone.


def test_json_written_by_a_plain_xadd_in_another_language_is_an_event(redis_url: str, prefix: str) -> None:
    bus = RedisEventBus(redis_url, prefix=prefix)
    seen = Seen()
    client = redis.Redis.from_url(redis_url)
    with bus.subscribe(seen, group="billing"):
        client.execute_command(
            "XADD", f"{prefix}:{{0}}:bus", "*",
            "event", '{"type":"result","transaction_id":"o-1","correlation_id":"o-1/pay/do/1","payload":{"ok":true}}',
        )  # fmt: skip
        event = seen.next()

    assert isinstance(event, ResultEvent)
    assert (event.correlation_id, event.payload) == ("o-1/pay/do/1", {"ok": True})
    bus.close()
    client.close()


def test_an_entry_without_the_field_event_is_set_aside_with_what_it_had(redis_url: str, prefix: str) -> None:
    bus = RedisEventBus(redis_url, prefix=prefix)
    client = redis.Redis.from_url(redis_url)
    client.xadd(f"{prefix}:{{0}}:bus", {"data": '{"type":"result"}'})

    assert bus.read() == []

    (letter,) = bus.dead_letters()
    assert letter.raw == b'{"data": "{\\"type\\":\\"result\\"}"}'
    assert "has no field 'event' (fields: data)" in letter.error
    bus.close()
    client.close()


def test_a_consumer_process_killed_in_its_handler_loses_no_event(redis_url: str, prefix: str) -> None:
    bus = RedisEventBus(redis_url, prefix=prefix)
    bus.publish(result(5))
    code = (
        "import os, signal, threading\n"
        "from multiagents.event_bus import RedisEventBus\n"
        f"bus = RedisEventBus({redis_url!r}, prefix={prefix!r})\n"
        "bus.subscribe(lambda event: os.kill(os.getpid(), signal.SIGKILL), group='billing')\n"
        "threading.Event().wait(20)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == -signal.SIGKILL
    seen = Seen()

    with bus.subscribe(seen, group="billing", redeliver_after=0.3):
        assert seen.numbers(1) == [5]
    bus.close()


def test_subscriptions_survive_a_server_that_is_killed_and_started_again(
    crash_server: EmbeddedServer, prefix: str
) -> None:
    bus = RedisEventBus(crash_server.url, prefix=prefix)
    alone, shared = Seen(), Seen()
    with bus.subscribe(alone), bus.subscribe(shared, group="billing", redeliver_after=5):
        bus.publish(result(0))
        assert (alone.numbers(1), shared.numbers(1)) == ([0], [0])

        crash_server.kill()
        with pytest.raises(EventBusError, match="check that the server runs"):
            bus.publish(result(99))
        crash_server.start()
        bus.publish(result(1))
        bus.publish(result(2))

        assert (alone.numbers(2), shared.numbers(2)) == ([1, 2], [1, 2])
    assert alone.no_more()
    assert shared.no_more()
    bus.close()


def test_an_acknowledgement_that_an_outage_cut_off_is_made_up_for(redis_url: str, prefix: str) -> None:
    bus = RedisEventBus(redis_url, prefix=prefix)
    client = redis.Redis.from_url(redis_url)
    calls: list[Event] = []
    broken = threading.Event()

    def handler(event: Event) -> None:
        calls.append(event)
        # The server refuses writes by now: the acknowledgement fails.
        client.replicaof("127.0.0.1", "1")
        broken.set()

    with bus.subscribe(handler, group="billing", redeliver_after=0.3):
        bus.publish(result(0))
        assert broken.wait(WAIT)
        time.sleep(0.6)  # longer than redelivery takes
        client.replicaof("NO", "ONE")
        assert eventually(lambda: client.xpending(f"{prefix}:{{0}}:bus", "billing")["pending"] == 0)
    assert len(calls) == 1
    bus.close()
    client.close()


def test_a_subscription_goes_on_after_the_stream_and_its_group_were_deleted(redis_url: str, prefix: str) -> None:
    bus = RedisEventBus(redis_url, prefix=prefix)
    client = redis.Redis.from_url(redis_url)
    seen = Seen()
    with bus.subscribe(seen, group="billing"):
        bus.publish(result(0))
        assert seen.numbers(1) == [0]
        client.delete(f"{prefix}:{{0}}:bus")
        bus.publish(result(1))

        assert seen.numbers(1) == [1]
    bus.close()
    client.close()


def test_a_stopped_consumer_leaves_no_trace_in_its_group(redis_url: str, prefix: str) -> None:
    bus = RedisEventBus(redis_url, prefix=prefix)
    client = redis.Redis.from_url(redis_url)
    seen = Seen()
    with bus.subscribe(seen, group="billing"):
        bus.publish(result(0))
        seen.next()
        assert len(client.xinfo_consumers(f"{prefix}:{{0}}:bus", "billing")) == 1

    assert client.xinfo_consumers(f"{prefix}:{{0}}:bus", "billing") == []
    bus.close()
    client.close()


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"legacy_responses": False}, {"protocol": 3}])
def test_a_client_of_any_make_lends_only_its_address(redis_url: str, prefix: str, options: dict[str, object]) -> None:
    client = redis.Redis.from_url(redis_url, socket_timeout=0.01, **options)
    bus = RedisEventBus(client=client, prefix=prefix)
    seen = Seen()

    with bus.subscribe(seen, group="billing"):
        bus.publish(result(0))
        assert seen.numbers(1) == [0]
    assert numbers(bus.read()) == [0]
    bus.close()
    client.close()


@pytest.mark.parametrize("by", ["url", "client"])
def test_a_silent_server_is_an_error_after_one_time_limit_and_no_read_is_sent_twice(
    monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setitem(adapter._CONNECTION, "socket_timeout", 0.3)
    reads: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                # The greeting is answered; whoever asks for data waits.
                connection.sendall(b"+OK\r\n" * data.count(b"SETINFO"))
                reads.extend([b"XREAD"] * data.count(b"XREAD"))

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=[listener], daemon=True).start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0?socket_timeout=60&retry_on_timeout=yes"
        client = redis.Redis.from_url(url)
        bus = RedisEventBus(url) if by == "url" else RedisEventBus(client=client)
        started = time.monotonic()
        with pytest.raises(EventBusError, match="did not answer in time"):
            bus.read()
        elapsed = time.monotonic() - started
        bus.close()
        client.close()

    assert reads == [b"XREAD"]
    assert 0.2 < elapsed < 5


def test_the_url_comes_from_the_environment_or_the_error_says_so(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, prefix: str
) -> None:
    monkeypatch.delenv("MULTIAGENTS_REDIS_URL", raising=False)
    with pytest.raises(ConfigurationError, match="set MULTIAGENTS_REDIS_URL"):
        RedisEventBus()
    with pytest.raises(ConfigurationError, match=r"expected e\.g\. redis://"):
        RedisEventBus("localhost")

    monkeypatch.setenv("MULTIAGENTS_REDIS_URL", redis_url)
    bus = RedisEventBus(prefix=prefix)
    bus.publish(result(0))
    assert numbers(bus.read()) == [0]
    bus.close()


CLIENT_ERRORS = [
    kind
    for kind in vars(redis.exceptions).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == "redis.exceptions"
]


@pytest.mark.parametrize("kind", CLIENT_ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_of_the_client_becomes_an_event_bus_error_that_says_what_to_do(
    kind: type[Exception], redis_url: str
) -> None:
    assert kind.__name__ in ADVICE, f"say in multiagents/redis/errors.py what to do about {kind.__name__}"
    bus = RedisEventBus(redis_url)
    error = kind.__new__(kind)
    error.args = ("the server's words",)

    with pytest.raises(EventBusError, match=kind.__name__) as caught, bus._mapped("publish an event"):
        raise error

    assert ADVICE[kind.__name__].format(prefix="ma") in str(caught.value)
    assert caught.value.__cause__ is error
    bus.close()


def test_an_error_names_the_server_without_its_password() -> None:
    bus = RedisEventBus("redis://shop:secret@127.0.0.1:1/0")

    with pytest.raises(EventBusError) as caught:
        bus.publish(result(0))

    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_importing_the_package_does_not_load_the_client() -> None:
    code = "import sys, multiagents.event_bus; sys.exit('redis' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
