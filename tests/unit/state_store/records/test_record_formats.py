"""The formats in which attempts in flight and due entries are stored: read back, they are what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.names import Direction
from multiagents.state_store.records import (
    Delivery,
    Due,
    DueKind,
    InFlight,
    attempt_key_of,
    parse_attempt_key,
    record_prefix,
)

times = st.integers(0, 4_000_000_000_000)
attempt_keys = st.builds(attempt_key_of, st.sampled_from(Direction), st.integers(1, 10_000))
not_claimed = st.sampled_from([each for each in Delivery if each is not Delivery.CLAIMED])
anything = st.text()  # as a target: a lock's business key may have any characters
unclaimed = st.tuples(attempt_keys, not_claimed, times, times, times, anything, times).map(
    lambda values: InFlight("charge[3]", values[0], values[1], "", *values[2:])
)
owners = st.uuids().map(str)
claimed = st.tuples(attempt_keys, times, owners, times, times, times, anything).map(
    lambda values: InFlight(
        "charge",
        values[0],
        Delivery.CLAIMED,
        "",
        values[1],
        owner=values[2],
        deadline_ms=values[3],
        beat_until_ms=values[4],
        beat_ms=values[5],
        worker=values[6],
    )
)


@given(unclaimed | claimed)
def test_a_record_is_read_back_as_it_was_written(entry: InFlight) -> None:
    record = entry.encode()

    assert InFlight.decode(entry.step, record) == entry._replace(record=record)


@pytest.mark.parametrize(
    ("entry", "record"),
    [
        (InFlight("a", "d1", Delivery.PUSH, "", 5, 4, 0, "celery", 17), "d1|s|5|4|0|17|celery"),
        (InFlight("a", "u2", Delivery.LOCK, "", 5, 4, 9, "sku|7"), "u2|y|5|4|9|0|sku|7"),
        (
            InFlight(
                "a", "d3", Delivery.CLAIMED, "", 5, owner="o1", deadline_ms=6, beat_until_ms=7, beat_ms=2, worker="w@h"
            ),
            "d3|c|o1|5|6|7|2|w@h",
        ),
    ],
)
def test_a_record_is_what_the_scripts_take_apart(entry: InFlight, record: str) -> None:
    assert entry.encode() == record


def test_what_answers_a_claimed_attempt_expects_its_record_whatever_the_times() -> None:
    entry = InFlight("a", "d1", Delivery.CLAIMED, "", 5, owner="o1", deadline_ms=6)

    assert entry.encode().startswith(record_prefix("d1", Delivery.CLAIMED, "o1"))
    assert not entry._replace(owner="o12").encode().startswith(record_prefix("d1", Delivery.CLAIMED, "o1"))


@given(attempt_keys)
def test_an_attempt_key_is_read_back_as_it_was_written(key: str) -> None:
    assert attempt_key_of(*parse_attempt_key(key)) == key


@pytest.mark.parametrize(
    ("entry", "due"),
    [
        (DueKind.ATTEMPT.entry("o-1", "a[3]", "d1"), Due("a", "o-1", "a[3]", "d1", "a|o-1|a[3]|d1", 8)),
        (DueKind.UNCLAIMED.entry("o-1", "a", "d1"), Due("q", "o-1", "a", "d1", "q|o-1|a|d1", 8)),
        (DueKind.DECISION.entry("o-1"), Due("r", "o-1", "", "", "r|o-1", 8)),
        (DueKind.DEADLINE.entry("o-1"), Due("t", "o-1", "", "", "t|o-1", 8)),
        (DueKind.EXPIRY.entry("o-1"), Due("x", "o-1", "", "", "x|o-1", 8)),
        (DueKind.LOCK.entry("sku|7|d1"), Due("k", "sku|7|d1", "", "", "k|sku|7|d1", 8)),
    ],
)
def test_a_due_entry_is_read_back_as_it_was_written(entry: str, due: Due) -> None:
    assert Due.decode(entry, 8) == due
