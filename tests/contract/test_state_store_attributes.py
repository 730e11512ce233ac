"""Search attributes: set at a start and with a commit, found, paged through, and gone with their run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from multiagents.clock import to_ms
from multiagents.exceptions import WorkflowError
from multiagents.state_store.records import (
    MAX_ATTRIBUTES,
    Commit,
    Condition,
    Search,
    decode_attribute,
    encode_attributes,
)
from multiagents.state_store.redis import arguments as module
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.state import RunStatus
from tests.support.store_kit import RedisKit, StoreKit

OTHER = WorkflowBuilder("other").add_step("one", "first").build(register=False)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def search(wanted: dict[str, Any], **fields: Any) -> Search:
    return Search([Condition.of(name, value) for name, value in wanted.items()], **fields)


def found(kit: StoreKit, wanted: dict[str, Any], **fields: Any) -> list[str]:
    """All that a search finds, page by page."""
    names: list[str] = []
    asked = search(wanted, **fields)
    for _ in range(200):
        page = kit.store.visibility.search(asked)
        assert len(page.transaction_ids) <= asked.limit
        names += page.transaction_ids
        if page.cursor is None:
            assert kit.store.visibility.count_found(asked) == len(names)
            return names
        asked = asked._replace(cursor=page.cursor)
    raise AssertionError(f"the search has no end: {names}")


def tag(kit: StoreKit, name: str, **attributes: Any) -> None:
    version = kit.store.load(name).version
    kit.store.commit(Commit(name, [], version=version, attributes=encode_attributes(attributes)))


def begin(kit: StoreKit, name: str, attributes: dict[str, Any], **fields: Any) -> None:
    kit.begin(name, attributes=encode_attributes(attributes), **fields)
    kit.sleep(0.002)


def indexes(kit: StoreKit) -> list[str]:
    return sorted(kit.client.keys("*:attribute:*")) if hasattr(kit, "client") else []


def test_runs_are_found_by_a_text_newest_first(kit: StoreKit) -> None:
    for number in range(6):
        begin(kit, f"order-{number}", {"customer": f"c-{number % 2}", "note": "a:b|c ü\n*"})

    assert found(kit, {"customer": "c-0"}) == ["order-4", "order-2", "order-0"]
    assert found(kit, {"customer": "c-1", "note": "a:b|c ü\n*"}) == ["order-5", "order-3", "order-1"]
    assert found(kit, {"customer": "c"}) == found(kit, {"custom": "er:c-0"}) == []
    assert found(kit, {"customer": 1}) == found(kit, {"customer": (None, 1)}) == []


def test_runs_are_found_by_a_range_of_numbers_or_times_largest_first(kit: StoreKit) -> None:
    amounts = {"a": 1, "b": 10, "c": 12.5, "d": 20, "e": -3.5, "f": 1e20}
    for number, (name, amount) in enumerate(amounts.items()):
        begin(kit, name, {"amount": amount, "due": NOON + timedelta(hours=number)})

    assert found(kit, {"amount": (10, 20)}) == ["d", "c", "b"]
    assert found(kit, {"amount": (None, 1)}) == ["a", "e"]
    assert found(kit, {"amount": (12.6, None)}) == ["f", "d"]
    assert found(kit, {"amount": 12.5}) == ["c"]
    assert found(kit, {"amount": (20, 10)}) == []
    assert found(kit, {"due": (NOON + timedelta(hours=1), NOON + timedelta(hours=2))}) == ["c", "b"]
    assert found(kit, {"due": (None, 1e15)}) == found(kit, {"amount": "12.5"}) == []


def test_conditions_are_combined_with_each_other_and_with_workflow_status_and_time(kit: StoreKit) -> None:
    begin(kit, "old", {"customer": "c-1", "amount": 5, "region": "eu"})
    since = to_ms(kit.store.now())
    kit.sleep(0.002)
    begin(kit, "other", {"customer": "c-1", "amount": 6, "region": "eu"}, definition=OTHER)
    begin(kit, "new", {"customer": "c-1", "amount": 7, "region": "us"})
    kit.end("new", status="failed")
    over = [RunStatus.FAILED, RunStatus.COMPLETED]

    assert found(kit, {"customer": "c-1", "region": "eu"}) == ["other", "old"]
    assert found(kit, {"amount": (1, 6), "customer": "c-1"}) == ["other", "old"]
    assert found(kit, {"customer": "c-1"}, workflow="contract") == ["new", "old"]
    assert found(kit, {"customer": "c-1"}, statuses=over) == ["new"]
    assert found(kit, {"amount": (1, 9)}, statuses=[RunStatus.RUNNING], workflow="contract") == ["old"]
    assert found(kit, {"customer": "c-1"}, since_ms=since) == ["new", "other"]
    assert found(kit, {"amount": (1, 6)}, since_ms=since) == ["other"]
    assert found(kit, {"customer": "c-1"}, statuses=[]) == []


@pytest.mark.parametrize("limit", [1, 3, 7, 20, 21])
@pytest.mark.parametrize("wanted", [{"customer": "c-1"}, {"amount": (None, 3)}, {"customer": "c-1", "amount": (1, 1)}])
@pytest.mark.parametrize("window", [2, 1_000])
def test_paging_shows_every_run_once_also_where_many_have_one_value(
    kit: StoreKit, limit: int, wanted: dict[str, Any], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WINDOW", window)
    random, names = Random(limit), [f"order-{number}" for number in range(20)]
    random.shuffle(names)
    for number, name in enumerate(names):
        kit.begin(name, attributes=encode_attributes({"customer": "c-1", "amount": number % 3}))
        kit.begin(f"other-{number}", attributes=encode_attributes({"customer": "c-2", "amount": 4}))

    seen = found(kit, wanted, limit=limit)

    assert sorted(seen) == sorted(
        name for n, name in enumerate(names) if "customer" not in wanted or len(wanted) < 2 or n % 3 == 1
    )
    places = [search(wanted).place(name, fields(kit, name)) for name in seen]
    assert places == sorted(places, reverse=True)


def fields(kit: StoreKit, name: str) -> dict[str, str]:
    snapshot = kit.store.load(name)
    header = snapshot.state.encode_header()
    return {**header, **{f"a:{key}": stored for key, stored in snapshot.attributes.items()}}


def test_a_page_goes_on_though_its_last_run_is_gone(kit: StoreKit) -> None:
    for number in range(5):
        begin(kit, f"order-{number}", {"amount": 1})
    first = kit.store.visibility.search(search({"amount": 1}, limit=2))
    assert first.transaction_ids == ["order-4", "order-3"]
    kit.end("order-3")
    kit.store.forget("order-3")

    second = kit.store.visibility.search(search({"amount": 1}, limit=2, cursor=first.cursor))

    assert second.transaction_ids == ["order-2", "order-1"]


def test_a_commit_changes_and_removes_what_a_run_is_found_by(kit: StoreKit) -> None:
    kit.begin(attributes=encode_attributes({"customer": "c-1", "amount": 5, "region": "eu"}))
    before = indexes(kit)

    tag(kit, "order-1", customer="c-2", amount="five", region=None, extra=None)

    read = {name: decode_attribute(stored) for name, stored in kit.store.load("order-1").attributes.items()}
    assert read == {"customer": "c-2", "amount": "five"}
    assert found(kit, {"customer": "c-2"}) == found(kit, {"amount": "five"}) == ["order-1"]
    assert found(kit, {"customer": "c-1"}) == found(kit, {"amount": (0, 9)}) == found(kit, {"region": "eu"}) == []
    assert len(before) == len(indexes(kit)) + 1 or not before


def test_a_refused_commit_sets_nothing(kit: StoreKit) -> None:
    kit.begin(attributes=encode_attributes({"customer": "c-1"}))

    kit.store.commit(Commit("order-1", [], version=7, attributes=encode_attributes({"customer": "c-2"})))

    assert found(kit, {"customer": "c-1"}) == ["order-1"]
    assert found(kit, {"customer": "c-2"}) == []


@pytest.mark.parametrize("how", ["forget", "replace"])
def test_what_a_run_was_found_by_goes_with_it(kit: StoreKit, how: str) -> None:
    kit.begin(attributes=encode_attributes({"customer": "c-1", "amount": 5, "due": NOON}))
    kit.end()

    if how == "forget":
        kit.store.forget("order-1")
    else:
        kit.begin(call="call-1", replaces=[RunStatus.COMPLETED])

    for wanted in ({"customer": "c-1"}, {"amount": (0, 9)}, {"due": NOON}):
        assert found(kit, wanted) == []
    assert indexes(kit) == []


def test_a_start_that_finds_its_run_sets_nothing(kit: StoreKit) -> None:
    kit.begin(attributes=encode_attributes({"customer": "c-1"}))

    kit.begin(attributes=encode_attributes({"customer": "c-2"}))

    assert found(kit, {"customer": "c-1"}) == ["order-1"]


def test_what_goes_beyond_the_limit_is_not_kept(kit: StoreKit) -> None:
    kit.begin(attributes=encode_attributes({f"a{n}": "x" for n in range(MAX_ATTRIBUTES)}))

    tag(kit, "order-1", more="y", a0="z")
    assert found(kit, {"more": "y"}) == []
    assert found(kit, {"a0": "z"}) == ["order-1"]

    tag(kit, "order-1", a1=None, more="y")
    assert found(kit, {"more": "y"}) == ["order-1"]
    assert len(kit.store.load("order-1").attributes) == MAX_ATTRIBUTES


def test_a_cursor_that_is_none_is_refused(kit: StoreKit) -> None:
    with pytest.raises(WorkflowError, match="cursor 'page 2' was not understood; give the cursor of the page before"):
        kit.store.visibility.search(search({"customer": "c-1"}, cursor="page 2"))


def test_a_search_looks_only_at_runs_within_the_bounds_of_its_index(redis_kit: RedisKit) -> None:
    for number in range(30):
        begin(redis_kit, f"order-{number}", {"customer": "c-1", "amount": number})
    since = redis_kit.store.load("order-25").state.started_at

    for wanted, fields, count in (({"amount": (10, 12)}, {}, 3), ({"customer": "c-1"}, {"since_ms": since}, 5)):
        redis_kit.client.config_resetstat()
        assert len(redis_kit.store.visibility.search(search(wanted, **fields)).transaction_ids) == count
        assert redis_kit.client.info("commandstats")["cmdstat_hmget"]["calls"] == count


def test_one_attribute_alone_is_counted_in_one_look(redis_kit: RedisKit) -> None:
    for number in range(9):
        begin(redis_kit, f"order-{number}", {"customer": "c-1", "amount": number})
    redis_kit.client.config_resetstat()

    assert redis_kit.store.visibility.count_found(search({"customer": "c-1"})) == 9
    assert redis_kit.store.visibility.count_found(search({"amount": (2, 4)})) == 3
    assert {"cmdstat_zcount"} == {name for name in redis_kit.client.info("commandstats") if "z" in name}


def test_a_commit_that_sets_no_attribute_has_the_server_do_nothing_for_them(redis_kit: RedisKit) -> None:
    redis_kit.begin()
    redis_kit.claim()
    redis_kit.client.config_resetstat()
    redis_kit.finish(asks=["fraud"])
    calls = redis_kit.client.info("commandstats")

    redis_kit.claim("fraud")
    redis_kit.client.config_resetstat()
    redis_kit.finish("fraud", asks=["ship"], attributes=encode_attributes({"customer": "c-1"}))
    more = redis_kit.client.info("commandstats")

    made = [{name: each["calls"] for name, each in stats.items()} for stats in (calls, more)]
    extra = {name: made[1][name] - made[0].get(name, 0) for name in made[1]}
    assert {name: count for name, count in extra.items() if count} == {
        "cmdstat_hget": 3,
        "cmdstat_hincrby": 1,
        "cmdstat_hset": 1,
        "cmdstat_zadd": 1,
    }


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"a:b": "x"}, r"attribute name 'a:b' cannot be used: expected 1 to 64 characters"),
        ({"": "x"}, r"attribute name '' cannot be used"),
        ({"x" * 65: 1}, r"cannot be used: expected 1 to 64"),
        ({3: "x"}, r"attribute name 3 cannot be used"),
        ({"a": "x" * 257}, r"attribute 'a' has 257 characters \('xxxxxxxxxxxxxxxxxxxx'...\); expected 256 at most"),
        ({"a": "\ud800"}, r"attribute 'a' is a text that cannot be written as UTF-8"),
        ({"a": True}, r"attribute 'a' is bool True; expected str, int, float, datetime"),
        ({"a": [1]}, r"attribute 'a' is list \[1\]; expected str"),
        ({"a": float("nan")}, r"attribute 'a' is nan; expected a number that an index keeps exactly"),
        ({"a": 2**53 + 1}, r"attribute 'a' is 9007199254740993; expected a number .* within ±2\*\*53"),
        (
            {"a": NOON.replace(tzinfo=None)},
            r"attribute 'a' is 2026-01-02T12:00:00, a time without a time zone",
        ),
        ({f"a{n}": n for n in range(33)}, r"a run was given 33 attributes; expected 32 at most"),
        ([("a", 1)], r"is list; expected a mapping of names to values"),
    ],
)
def test_what_cannot_be_an_attribute_is_refused_with_the_reason(attributes: Any, told: str) -> None:
    with pytest.raises(WorkflowError, match=told):
        encode_attributes(attributes)


@pytest.mark.parametrize("value", ["", "a|b", 0, -7, 12.5, -1e-9, 2**53, NOON])
def test_a_value_is_read_back_as_it_was_set(value: Any) -> None:
    read = decode_attribute(encode_attributes({"a": value})["a"])

    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("wanted", [None, (1,), (None, None), ("a", "b"), (1, NOON), {"a": 1}, (1, 2, 3), True])
def test_what_cannot_be_searched_for_is_refused(wanted: Any) -> None:
    with pytest.raises(WorkflowError, match="attribute 'a' is"):
        Condition.of("a", wanted)
