"""The five events: what they keep on their way through JSON, and what they refuse."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from multiagents.events import (
    CommandEvent,
    CompensationEvent,
    ErrorEvent,
    ErrorInfo,
    ErrorKind,
    Event,
    ResultEvent,
    StatusEvent,
    correlation_of,
    event_from_dict,
    event_from_json,
)
from multiagents.exceptions import DecodeError
from multiagents.names import Correlation, Direction
from multiagents.retry import RetryPolicy

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
COMMON: dict[str, Any] = {
    "transaction_id": "order-1",
    "correlation_id": "order-1/charge/do/2",
    "causation_id": "e-0",
    "timestamp": NOON,
    "occurred_at": NOON - timedelta(seconds=1),
    "step": "charge",
    "attempt": 2,
    "payload": {"charge_id": "ch-1", "lines": [1, 2.5, "drei", None, {"deep": True}]},
    "digest": "d41d8",
    "late": "the run is completed",
    "nonce": "5f0cR-2x",
}
ERROR = ErrorInfo(
    type="CardDeclined",
    message="no funds",
    traceback="Traceback …",
    attempt=2,
    causes=(ErrorInfo(type="RefundFailed", message="bank closed"),),
)
TAGS = {"customer": "c-1", "amount": 12.5}
USED = {"calls": 3, "usd": 0.25, "models": ["openai/x"]}
EVENTS = [
    CommandEvent(**COMMON, worker="charge_card", delay=1.5),
    CompensationEvent(**COMMON, worker="refund_card", delay=0.5, outcome="unknown"),
    ResultEvent(**COMMON, worker="celery@host", started_at=NOON, attributes=TAGS, usage=USED),
    ErrorEvent(
        **COMMON,
        error=ERROR,
        kind=ErrorKind.TIMEOUT,
        retryable=False,
        retry_policy=RetryPolicy(max_attempts=7, jitter=False, non_retryable=("shop.CardDeclined",)),
        retry_in=2.5,
        worker="celery@host",
        started_at=NOON,
        attributes=TAGS,
        usage=USED,
    ),
    StatusEvent(
        **COMMON, status="compensating", reason="operator", actor="ann", error=ERROR, compensation="cancel_flight"
    ),
]
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def kind_name(event: Event) -> str:
    return event.type


@pytest.mark.parametrize("event", EVENTS, ids=kind_name)
def test_an_event_with_every_field_set_comes_back_from_json_as_it_was(event: Event) -> None:
    on_its_way = {"lesson"}  # from a worker to its commit, and no further
    assert None not in [value for name, value in event.__dict__.items() if name not in on_its_way]

    assert event_from_json(event.to_json()) == event
    assert event_from_json(event.to_json().encode()) == event
    assert event_from_dict(json.loads(event.to_json())) == event
    assert type(event).from_json(event.to_json()) == event


@pytest.mark.parametrize("event", EVENTS, ids=kind_name)
def test_an_event_survives_pickling(event: Event) -> None:
    assert pickle.loads(pickle.dumps(event)) == event


@pytest.mark.parametrize("event", EVENTS, ids=kind_name)
def test_an_event_cannot_be_changed(event: Event) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        event.step = "ship"  # type: ignore[misc]


@given(payload=JSON_VALUES)
def test_any_json_payload_comes_back_as_it_was(payload: Any) -> None:
    event = ResultEvent(transaction_id="order-1", payload=payload)

    assert event_from_json(event.to_json()) == event


def test_a_nothing_inside_a_payload_is_kept_though_empty_fields_are_left_out() -> None:
    event = ResultEvent(transaction_id="order-1", payload={"coupon": None})

    written = json.loads(event.to_json())

    assert written["payload"] == {"coupon": None}
    assert not {"causation_id", "timestamp", "step", "digest", "worker", "started_at"} & set(written)


def test_fields_and_versions_of_a_later_release_are_kept() -> None:
    text = json.dumps(
        {
            "type": "error",
            "version": 9,
            "id": "e-1",
            "transaction_id": "order-1",
            "occurred_at": "2026-11-23T12:00:00Z",
            "error": {"type": "E", "message": "m", "severity": "high"},
            "shard": {"n": 3},
        }
    )

    again = json.loads(event_from_json(text).to_json())

    assert again["version"] == 9
    assert again["shard"] == {"n": 3}
    assert again["error"]["severity"] == "high"


def test_the_least_that_a_foreign_producer_must_write_is_type_and_transaction() -> None:
    event = event_from_json('{"type": "result", "transaction_id": "order-1"}')

    assert isinstance(event, ResultEvent)
    assert (event.version, event.correlation_id, event.step, event.attempt, event.payload) == (1, "", None, 0, None)
    assert len(event.id) == 32
    assert event.occurred_at.tzinfo is not None


def test_two_events_never_share_an_id_and_a_written_one_keeps_its() -> None:
    first, second = (ResultEvent(transaction_id="order-1") for _ in range(2))

    assert first.id != second.id
    assert event_from_json(first.to_json()).id == first.id


def test_a_time_in_another_zone_is_the_same_moment() -> None:
    berlin = datetime(2026, 11, 23, 13, 0, tzinfo=timezone(timedelta(hours=1)))

    event = event_from_json(ResultEvent(transaction_id="order-1", occurred_at=berlin).to_json())

    assert event.occurred_at == NOON


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "must be a JSON object"),
        ("{", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        (b"\xff\xfe", "must be a JSON object"),
        ("[" * 100_000, "must be a JSON object"),
        ("{}", "event type None is not known; expected one of command, compensation, result, error, status"),
        ('{"type": "rumour", "transaction_id": "t"}', "event type 'rumour' is not known"),
        ('{"type": ["result"], "transaction_id": "t"}', "is not known"),
        ('{"type": "result"}', "a ResultEvent was not understood: transaction_id: Field required"),
        ('{"type": "error", "transaction_id": "t"}', "a ErrorEvent was not understood: error: Field required"),
        ('{"type": "error", "transaction_id": "t", "error": {"type": "E"}}', "error.message: Field required"),
        ('{"type": "result", "transaction_id": 7}', "transaction_id: Input should be a valid string"),
        ('{"type": "result", "transaction_id": "t", "attempt": "two"}', "attempt: Input should be a valid integer"),
        ('{"type": "result", "transaction_id": "t", "occurred_at": "noon"}', "occurred_at: Input should be"),
    ],
)
def test_what_is_no_event_is_a_decode_error_that_says_why(data: str | bytes, says: str) -> None:
    with pytest.raises(DecodeError) as caught:
        event_from_json(data)

    assert says in str(caught.value)
    assert len(str(caught.value)) < 400


def test_reading_another_kind_than_was_asked_for_is_a_decode_error() -> None:
    text = CommandEvent(transaction_id="order-1").to_json()

    with pytest.raises(DecodeError, match="expected a ResultEvent, got a CommandEvent"):
        ResultEvent.from_json(text)
    assert isinstance(Event.from_json(text), CommandEvent)


def test_a_payload_that_is_not_json_is_an_error_when_it_is_written() -> None:
    with pytest.raises(ValueError, match="Unable to serialize"):
        ResultEvent(transaction_id="order-1", payload={"socket": object()}).to_json()


@pytest.mark.parametrize(
    ("correlation_id", "direction"),
    [
        ("", Direction.DO),
        ("order-1/charge/do/1", Direction.DO),
        ("order-1/charge/undo/1", Direction.UNDO),
        ("undo/undo/do/1", Direction.DO),
        ("rubbish", Direction.DO),
    ],
)
def test_the_correlation_id_tells_the_direction(correlation_id: str, direction: Direction) -> None:
    assert ResultEvent(transaction_id="order-1", correlation_id=correlation_id).direction is direction


def test_the_attempt_of_an_event_is_taken_from_its_correlation_id_alone() -> None:
    event = ResultEvent(transaction_id="order-1", correlation_id="order-1/charge/undo/3", step="ship", attempt=9)

    assert correlation_of(event) == Correlation("order-1", "charge", Direction.UNDO, 3)
    assert correlation_of(ResultEvent(transaction_id="order-1")) is None
    with pytest.raises(DecodeError, match="'rubbish' was not understood"):
        correlation_of(ResultEvent(transaction_id="order-1", correlation_id="rubbish"))


def test_the_stores_time_counts_before_the_producers() -> None:
    earlier = NOON - timedelta(hours=1)

    assert ResultEvent(transaction_id="t", occurred_at=earlier, timestamp=NOON).at == NOON
    assert ResultEvent(transaction_id="t", occurred_at=earlier).at == earlier


@pytest.mark.parametrize("direction", Direction)
def test_the_outcome_of_an_attempt_is_the_same_event_however_often_it_is_told(direction: Direction) -> None:
    attempt = Correlation("order-1", "charge", direction, 2)

    told = [
        ResultEvent.about(attempt, {"charge_id": "ch-1"}, at=NOON, worker="celery@host", attributes=TAGS),
        ErrorEvent.about(attempt, ERROR, at=NOON, kind=ErrorKind.LOST, retryable=False),
    ]

    for event in told:
        assert (correlation_of(event), event.direction) == (attempt, direction)
        assert (event.id, event.at, event.occurred_at) == (f"{attempt}/end", NOON, NOON)
        assert type(event).model_validate(event.model_dump()) == event
        assert event_from_json(event.to_json()) == event
