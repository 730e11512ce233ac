"""What every state store answers about runs, and how it lets go of them. One suite over memory and Redis."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
import redis

from multiagents.events import StatusEvent
from multiagents.exceptions import ConfigurationError, StateStoreError, WorkflowError, WorkflowNotFoundError
from multiagents.keys import Keys
from multiagents.redis import ADVICE
from multiagents.state_store import open_store
from multiagents.state_store.memory import InMemoryStateStore
from multiagents.state_store.records import (
    Announced,
    Commit,
    Delivery,
    Dispatch,
    DueKind,
    Node,
    Verdict,
    of_queues,
    of_workers,
)
from multiagents.state_store.redis import RedisStateStore
from multiagents.state_store.redis.server_check import findings_of, info_of_hello
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.state import RunStatus
from tests.support.store_kit import StoreKit

OTHER = WorkflowBuilder("other").add_step("one", "first").build(register=False)
EVERY = list(RunStatus)


# --- one run ---------------------------------------------------------------------------------------------------------


def test_a_run_that_does_not_exist_is_said_not_to(kit: StoreKit) -> None:
    for ask in (kit.store.load, kit.store.payloads, kit.store.results, kit.store.status):
        with pytest.raises(WorkflowNotFoundError, match="'order-1'"):
            ask("order-1")
    assert kit.store.history("order-1") == []


def test_a_runs_status_is_answered_alone(kit: StoreKit) -> None:
    kit.begin()

    assert kit.store.status("order-1") is RunStatus.RUNNING


def test_results_are_kept_by_step(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()
    kit.finish(result={"a": [1, {"b": None}], "ü": 1.5}, context={"a": 1})

    assert kit.store.results("order-1") == {"reserve": {"a": [1, {"b": None}], "ü": 1.5}}
    assert kit.store.payloads("order-1").context == {"a": 1}


def test_what_was_read_is_the_readers_own(kit: StoreKit) -> None:
    given = {"items": [1]}
    kit.begin(input=given)
    given["items"].append(2)
    kit.store.payloads("order-1").input["items"].append(3)
    kit.claim().context["items"].append(4)

    assert kit.store.payloads("order-1").input == {"items": [1]}


def test_the_history_has_every_event_in_order_and_is_read_on_from_any(kit: StoreKit) -> None:
    kit.begin()
    for number in range(1, 6):
        event = StatusEvent(
            transaction_id="order-1", timestamp=kit.store.now(), status="note", reason=f"n{number}", actor="me"
        )
        kit.store.commit(Commit("order-1", [event], version=number))

    history = kit.store.history("order-1")

    assert [event.reason for event in history[2:]] == ["n1", "n2", "n3", "n4", "n5"]
    assert kit.store.history("order-1", 5) == history[5:]
    assert kit.store.history("order-1", 99) == []


# --- listings --------------------------------------------------------------------------------------------------------


def ids(page: Any) -> list[str]:
    return list(page.transaction_ids)


def test_runs_are_listed_newest_first_by_status_workflow_and_time(kit: StoreKit) -> None:
    kit.begin("old")
    kit.sleep(0.005)
    since = kit.store.now()
    kit.sleep(0.005)
    kit.begin("other", definition=OTHER)
    kit.sleep(0.005)
    kit.begin("new")
    kit.end("old")
    kit.end("new", status="failed")
    running, over = RunStatus.RUNNING, [RunStatus.COMPLETED, RunStatus.FAILED]

    assert ids(kit.store.visibility.list_runs(statuses=EVERY)) == ["new", "other", "old"]
    assert ids(kit.store.visibility.list_runs(statuses=[running])) == ["other"]
    assert ids(kit.store.visibility.list_runs(statuses=over)) == ["new", "old"]
    assert ids(kit.store.visibility.list_runs(statuses=EVERY, workflow="contract")) == ["new", "old"]
    assert ids(kit.store.visibility.list_runs(statuses=EVERY, workflow="none")) == []
    assert ids(kit.store.visibility.list_runs(statuses=EVERY, since=since)) == ["new", "other"]
    assert ids(kit.store.visibility.list_runs(statuses=EVERY, since=since + timedelta(hours=1))) == []
    assert ids(kit.store.visibility.list_runs(statuses=[])) == []


@pytest.mark.parametrize("limit", [1, 3, 7, 20, 21])
def test_paging_shows_every_run_once(kit: StoreKit, limit: int) -> None:
    names = [f"order-{number}" for number in range(20)]
    for number, name in enumerate(names):
        kit.begin(name)
        if number % 2:
            kit.end(name)

    pages, cursor = [], None
    while True:
        page = kit.store.visibility.list_runs(statuses=EVERY, limit=limit, cursor=cursor)
        pages.append(ids(page))
        cursor = page.cursor
        if cursor is None:
            break

    assert sorted(name for page in pages for name in page) == sorted(names)
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert pages[-1]


def test_runs_of_one_millisecond_are_paged_through_too(kit: StoreKit) -> None:
    names = kit.begin_at_once(200)

    pages, cursor = [], None
    while len(pages) < 50:
        page = kit.store.visibility.list_runs(statuses=EVERY, limit=9, cursor=cursor)
        pages.append(ids(page))
        cursor = page.cursor
        if cursor is None:
            break

    assert sorted(name for page in pages for name in page) == sorted(names)


def test_a_page_goes_on_from_its_cursor_though_runs_start_meanwhile(kit: StoreKit) -> None:
    for number in range(4):
        kit.begin(f"order-{number}")
        kit.sleep(0.002)
    first = kit.store.visibility.list_runs(statuses=EVERY, limit=2)
    kit.begin("order-9")

    second = kit.store.visibility.list_runs(statuses=EVERY, limit=2, cursor=first.cursor)

    assert (ids(first), ids(second)) == (["order-3", "order-2"], ["order-1", "order-0"])
    assert second.cursor is None


def test_a_cursor_that_is_none_is_refused(kit: StoreKit) -> None:
    with pytest.raises(WorkflowError, match="cursor 'page 2' was not understood; give the cursor of the page before"):
        kit.store.visibility.list_runs(statuses=EVERY, cursor="page 2")


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_whoever_waits_is_woken_by_the_end(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()
    ended: list[tuple[RunStatus, float]] = []
    waiting = [
        threading.Thread(
            target=lambda: ended.append((kit.another().wait_for_end("order-1", 20), time.monotonic())),
        )
        for _ in range(3)
    ]
    for thread in waiting:
        thread.start()
    time.sleep(0.05)
    assert not ended

    # Between two looks of the poll, so that only the notification can be this fast.
    kit.end()
    over_at = time.monotonic()
    for thread in waiting:
        thread.join()

    assert [status for status, _ in ended] == [RunStatus.COMPLETED] * 3
    assert max(at for _, at in ended) - over_at < 0.7


def test_the_end_of_a_run_that_is_over_is_told_at_once(kit: StoreKit) -> None:
    kit.begin()
    kit.end(status="compensated")

    assert kit.store.wait_for_end("order-1", 0) is RunStatus.COMPENSATED


def test_waiting_ends_in_time_and_says_that_the_run_goes_on(kit: StoreKit) -> None:
    kit.begin()
    started = time.monotonic()

    with pytest.raises(TimeoutError, match=r"run 'order-1' is still running after 0\.2 s; it goes on"):
        kit.store.wait_for_end("order-1", 0.2)

    assert 0.2 <= time.monotonic() - started < 2


def test_nobody_waits_for_a_run_that_does_not_exist(kit: StoreKit) -> None:
    with pytest.raises(WorkflowNotFoundError):
        kit.store.wait_for_end("order-1", 5)


# --- letting go ------------------------------------------------------------------------------------------------------


def test_a_forgotten_run_leaves_nothing_and_its_id_is_free(kit: StoreKit) -> None:
    kit.begin()
    kit.begin("order-2")
    kit.end(retention_ms=1)

    kit.store.forget("order-1")
    kit.store.forget("order-1")

    assert ids(kit.store.visibility.list_runs(statuses=EVERY)) == ["order-2"]
    assert kit.store.visibility.count(RunStatus.COMPLETED) == 0
    assert kit.store.history("order-1") == []
    assert kit.sweep_for(0.1) == []
    assert kit.begin().created


def test_dead_letters_are_kept_with_their_payload(kit: StoreKit) -> None:
    assert kit.store.visibility.dead_letters() == {}
    kit.store.bury("order-1", "order-1/charge/do/1", {"why": "nobody knows the run", "event": {"payload": {"a": [1]}}})
    for number in range(5):
        kit.store.bury(f"order-{number}", f"order-{number}/ship/undo/1", {"why": "the undo is over"})
    kit.store.bury("order-2", "order-2/ship/undo/1", {"why": "again"})

    assert kit.another().dead_letter("order-2", "order-2/ship/undo/1") == {"why": "again"}
    assert kit.store.dead_letter("order-2", "order-2/ship/undo/2") is None
    letters = kit.another().visibility.dead_letters()

    assert len(letters) == 6
    assert letters["order-1/charge/do/1"] == {"why": "nobody knows the run", "event": {"payload": {"a": [1]}}}
    assert letters["order-2/ship/undo/1"] == {"why": "again"}


def test_a_store_for_the_sweep_sees_the_same_runs(kit: StoreKit) -> None:
    kit.begin()
    sweeps = kit.store.for_sweep()

    assert sweeps.load("order-1").version == 1
    if sweeps is not kit.store:
        sweeps.close()


def test_what_workers_announce_is_known_to_all_and_the_latest_counts(kit: StoreKit) -> None:
    kit.store.announce({})
    assert kit.another().announced() == Announced()
    kit.store.announce(of_workers({"charge_card": {"queue": "cards", "timeout": 5}, "ship_order": {"queue": "docks"}}))
    kit.another().announce(of_workers({"charge_card": {}}))

    assert kit.another().announced().workers == {"charge_card": {}, "ship_order": {"queue": "docks"}}


def test_a_worker_process_is_known_until_it_goes_and_its_queue_for_longer(kit: StoreKit) -> None:
    node = Node("w1@docks", "shop", "celery", ("celery", "docks"), {"5979": '"order" version "1"'}, {"07ab": "none"})
    node = node._replace(holds=("order-1/pack/do/1",))
    kit.store.announce({**node.entry(), **of_queues(node.queues)})

    seen = kit.another().announced()
    assert (seen.nodes, seen.queues, seen.is_consumed("docks")) == ((node,), {"celery", "docks"}, True)
    assert [seen.is_held(f"order-{number}/pack/do/1", "docks") for number in (1, 2)] == [True, False]
    kit.store.announce({}, gone=list(node.entry()))

    left = kit.another().announced()
    assert (left.nodes, left.is_consumed("docks"), left.knows("docks"), left.knows("dock")) == ((), False, True, False)
    assert left.near_queue("dock") == '; did you mean "docks"?'


# --- in memory -------------------------------------------------------------------------------------------------------


def test_all_of_a_process_share_one_memory_for_each_prefix() -> None:
    first = open_store("memory://", lease=5)
    other = InMemoryStateStore.shared(keys=Keys("other"))
    first.bury("order-1", "key", {"why": "shared"})

    assert InMemoryStateStore.shared(lease=7).visibility.dead_letters() == {"key": {"why": "shared"}}
    assert other.visibility.dead_letters() == {}
    assert InMemoryStateStore().visibility.dead_letters() == {}

    InMemoryStateStore.shared().clear()
    assert first.visibility.dead_letters() == {}


# --- on Redis --------------------------------------------------------------------------------------------------------


def test_another_number_of_partitions_is_refused(new_redis_url: Any) -> None:
    url = new_redis_url()
    first, second = RedisStateStore(url), RedisStateStore(url, keys=Keys(partitions=4))
    first.check()
    first.check()

    with pytest.raises(ConfigurationError, match=r"partitions is 4, but the state store .* was first used with 1"):
        second.check()
    RedisStateStore(url, keys=Keys("other", partitions=4)).check()
    for store in (first, second):
        store.close()


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"redis_version": "7.0.0", "maxmemory_policy": "noeviction", "aof_enabled": 1}, []),
        ({"redis_version": "7.2.4", "valkey_version": "9.0.0", "aof_enabled": 1}, []),
        ({"redis_version": "7.4.0", "maxmemory_policy": "allkeys-lru", "aof_enabled": 1}, ["noeviction"]),
        ({"redis_version": "8.0.0", "maxmemory_policy": "noeviction", "aof_enabled": 0}, ["appendonly"]),
    ],
)
def test_a_server_that_may_lose_runs_is_reported(info: dict[str, Any], expected: list[str]) -> None:
    found = findings_of(info, "redis://host")

    assert len(found) == len(expected)
    assert all(word in finding for word, finding in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    "info",
    [{"redis_version": "6.2.14"}, {"redis_version": "7.2.4", "valkey_version": "7.1.9"}],
    ids=["redis", "valkey"],
)
def test_a_server_that_is_too_old_is_refused(info: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"expected Redis 7\.0, Valkey 7\.2, or newer"):
        findings_of(info, "redis://host")


@pytest.mark.parametrize("word", ["redis_mode", "server_mode"])
def test_a_redis_cluster_is_refused(word: str) -> None:
    with pytest.raises(ConfigurationError, match=r"redis://host is a node of a Redis Cluster, which cannot keep runs"):
        findings_of({"redis_version": "8.0.0", word: "cluster"}, "redis://host")


@pytest.mark.parametrize("server", ["redis", "valkey"])
def test_a_server_that_does_not_let_its_settings_be_seen_is_looked_at_as_far_as_it_says_hello(server: str) -> None:
    hello = {"server": server, "version": "7.1.0", "proto": 3, "mode": "standalone", "role": "master"}

    if server == "redis":
        assert findings_of(info_of_hello(hello), "redis://host") == []
    else:
        with pytest.raises(ConfigurationError, match=r"Valkey 7\.1\.0; expected"):
            findings_of(info_of_hello(hello), "redis://host")
    with pytest.raises(ConfigurationError, match="Redis Cluster"):
        findings_of(info_of_hello({**hello, "version": "9.0.0", "mode": "cluster"}), "redis://host")


CLIENT_ERRORS = [
    kind
    for kind in vars(redis.exceptions).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == "redis.exceptions"
]


@pytest.mark.parametrize("kind", CLIENT_ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_of_the_client_becomes_ours_and_says_what_to_do(
    kind: type[Exception], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind.__name__ in ADVICE, f"say in multiagents/redis/errors.py what to do about {kind.__name__}"
    store = RedisStateStore(redis_url)
    error = kind.__new__(kind)
    error.args = ("the server's words",)

    def fail(*_args: Any) -> Any:
        raise error

    # The script's way to the server, and the client's.
    monkeypatch.setattr(store.client, "ask", fail)
    monkeypatch.setattr(store.client, "zrem", fail)

    wrong_setting = "Authentication" in kind.__name__ or "AuthProvider" in kind.__name__
    expected = ConfigurationError if wrong_setting else StateStoreError
    for ask in (lambda: store.load("order-1"), lambda: store.discard(DueKind.EXPIRY.entry("order-1"), "order-1")):
        with pytest.raises(expected, match=kind.__name__) as caught:
            ask()
        assert ADVICE[kind.__name__].format(prefix="ma") in str(caught.value)
        assert caught.value.__cause__ is error
    store.close()


def test_an_error_names_the_server_without_its_password() -> None:
    store = RedisStateStore("redis://shop:secret@127.0.0.1:1/0").for_sweep()

    with pytest.raises(StateStoreError) as caught:
        store.load("order-1")

    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_url_without_a_store_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"must be a URL that begins redis://.* begins 'amqp'"):
        open_store("amqp://host")


def test_a_run_is_seen_while_it_waits_for_an_answer_from_outside(kit: StoreKit) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.EXTERNAL))

    assert kit.store.load("order-1").awaits_others
    assert kit.store.visibility.unattended() == []


def test_a_delete_that_is_sent_twice_or_saw_another_status_does_no_harm(kit: StoreKit) -> None:
    kit.begin()
    kit.end()
    refused = kit.store.delete("order-1", status=RunStatus.FAILED, tombstone="stone-1")
    assert (refused, kit.store.visibility.deleted()) == (Verdict.CONFLICT, [])

    first = kit.store.delete("order-1", status=RunStatus.COMPLETED, tombstone="stone-1")
    kit.begin()
    kit.end()
    second = kit.store.delete("order-1", status=RunStatus.COMPLETED, tombstone="stone-1")

    assert first is second is Verdict.APPLIED
    assert kit.store.load("order-1").state.status is RunStatus.COMPLETED
    assert [stone for _, stone in kit.store.visibility.deleted()] == ["stone-1"]
    assert kit.store.delete("order-2", status=RunStatus.COMPLETED, tombstone="stone-2") is Verdict.MISSING
