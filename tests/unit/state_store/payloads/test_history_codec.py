"""How events are kept in a history: short, and read back as they were."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.events import (
    CommandEvent,
    CompensationEvent,
    ErrorEvent,
    ErrorInfo,
    ErrorKind,
    Event,
    ResultEvent,
    StatusEvent,
)
from multiagents.exceptions import DecodeError
from multiagents.names import Correlation, Direction
from multiagents.retry import RetryPolicy
from multiagents.state_store.payloads import pack, unpack

RUN = "order-1"

#: The store keeps milliseconds.
moments = st.integers(0, 4_000_000_000_000).map(lambda ms: datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms))
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
payloads = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
infos = st.builds(
    ErrorInfo,
    type=names,
    message=texts,
    traceback=st.none() | texts,
    attempt=st.integers(1, 9),
    causes=st.lists(st.builds(ErrorInfo, type=names, message=texts), max_size=2).map(tuple),
)
policies = st.builds(RetryPolicy, max_attempts=st.integers(0, 9), non_retryable=st.lists(names, max_size=2).map(tuple))


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Any event, as the engine makes it or as a foreign producer might."""
    kind = draw(st.sampled_from([CommandEvent, CompensationEvent, ResultEvent, ErrorEvent, StatusEvent]))
    occurred_at = draw(moments)
    fields: dict[str, Any] = {
        "transaction_id": RUN,
        "timestamp": draw(st.none() | st.just(occurred_at) | moments),
        "occurred_at": occurred_at,
        "payload": draw(payloads),
        "digest": draw(st.none() | names),
        "causation_id": draw(st.none() | names),
    }
    if draw(st.booleans()):
        fields["id"] = draw(names)
    step = draw(st.none() | names)
    if step is not None:
        attempt = draw(st.integers(0, 12))
        undo = kind is CompensationEvent or draw(st.booleans())
        correlation = Correlation(RUN, step, Direction.UNDO if undo else Direction.DO, attempt)
        fields |= {"step": step, "attempt": attempt}
        fields["correlation_id"] = draw(st.sampled_from([str(correlation), "", "other/step/do/1"]))
    if kind in (CommandEvent, CompensationEvent):
        fields |= {"worker": draw(names), "delay": draw(st.sampled_from([0.0, 1.5, 300.0]))}
    if kind is CompensationEvent:
        fields["outcome"] = draw(st.sampled_from(["succeeded", "unknown", "failed"]))
    if kind in (ResultEvent, ErrorEvent):
        fields |= {"worker": draw(st.none() | names), "started_at": draw(st.none() | moments)}
    if kind is ErrorEvent:
        fields |= {
            "error": draw(infos),
            "kind": draw(st.sampled_from(list(ErrorKind))),
            "retryable": draw(st.booleans()),
            "retry_policy": draw(st.none() | policies),
        }
    if kind is StatusEvent:
        fields |= {
            "status": draw(names),
            "reason": draw(st.none() | texts),
            "actor": draw(st.none() | texts),
            "error": draw(st.none() | infos),
        }
    if draw(st.booleans()):
        fields["a_later_field"] = draw(payloads)
    return kind(**fields)


@given(events())
def test_every_event_is_read_back_as_it_was(event: Event) -> None:
    assert unpack(RUN, pack(event)) == event


@given(events())
def test_what_is_written_is_one_line_of_json_without_the_transaction(event: Event) -> None:
    record = pack(event)

    assert isinstance(json.loads(record), dict)
    assert "\n" not in record


def moment(ms: int = 1_700_000_000_123) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            CommandEvent(
                id="order-1/charge/do/1",
                transaction_id=RUN,
                correlation_id="order-1/charge/do/1",
                timestamp=moment(),
                occurred_at=moment(),
                step="charge",
                attempt=1,
                worker="charge_card",
            ),
            {"t": "command", "s": "charge", "a": 1, "at": 1_700_000_000_123, "w": "charge_card"},
        ),
        (
            ResultEvent(
                id="order-1/charge/do/1/end",
                transaction_id=RUN,
                correlation_id="order-1/charge/do/1",
                timestamp=moment(),
                occurred_at=moment(),
                step="charge",
                attempt=1,
                digest="abc",
            ),
            {"t": "result", "s": "charge", "a": 1, "at": 1_700_000_000_123, "g": "abc"},
        ),
    ],
    ids=["command", "result"],
)
def test_what_follows_from_the_rest_is_left_out(event: Event, expected: dict[str, Any]) -> None:
    assert json.loads(pack(event)) == expected


def test_a_field_and_a_version_of_a_later_release_are_kept() -> None:
    event = StatusEvent(transaction_id=RUN, status="running", version=7, colour={"red": 1}, occurred_at=moment())

    back = unpack(RUN, pack(event))

    assert back.version == 7
    assert back.model_extra == {"colour": {"red": 1}}


def test_records_of_the_first_release_are_read() -> None:
    # These lie in stores: what was once written is read for ever.
    record = (
        '{"t":"result","s":"charge","a":2,"at":1700000000123,"o":1700000000100,'
        '"w":"celery@host","b":1700000000000,"z":1}'
    )

    event = unpack(RUN, record)

    assert isinstance(event, ResultEvent)
    assert event.correlation_id == "order-1/charge/undo/2"
    assert event.id == "order-1/charge/undo/2/end"
    assert (event.step, event.attempt, event.worker) == ("charge", 2, "celery@host")
    assert event.timestamp == moment()
    assert event.occurred_at == moment(1_700_000_000_100)
    assert event.started_at == moment(1_700_000_000_000)


def test_a_foreign_event_keeps_its_own_id() -> None:
    event = ResultEvent(id="webhook-9", transaction_id=RUN, correlation_id="order-1/pay/do/1", step="pay", attempt=1)

    assert unpack(RUN, pack(event)).id == "webhook-9"


@pytest.mark.parametrize("record", ['{"t":"party"}', "{}", '{"t":"error","s":"charge"}'])
def test_what_is_no_event_is_refused(record: str) -> None:
    with pytest.raises(DecodeError):
        unpack(RUN, record)


@pytest.mark.parametrize("record", ["", "not json", "[1]", '"text"', "null"])
def test_what_is_no_json_object_is_refused(record: str) -> None:
    with pytest.raises(DecodeError):
        unpack(RUN, record)
