"""How often and how long a call to Redis is tried again, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from multiagents.redis import patience
from multiagents.redis.patience import Patience

SECONDS = 10.0
RETRIES = 6
AWAY = redis.exceptions.ConnectionError("it is away")


class Clock:
    """Time that only attempts and pauses take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(patience.time, "monotonic", lambda: self.now)
        monkeypatch.setattr("redis.retry.sleep", self.pass_by)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def nested(depth: int, retry: Retry, attempt: Callable[[], Any]) -> Any:
    """Make an attempt in a call in a call, ... each of which tries again."""
    if depth == 0:
        return attempt()
    return retry.call_with_retry(lambda: nested(depth - 1, retry, attempt), lambda _: None)


@given(depth=st.integers(1, 4), takes=st.floats(0.0, 20.0), pause=st.floats(0.0, 3.0))
def test_a_call_begins_no_attempt_when_its_time_is_over_however_deep_it_tries_again(
    depth: int, takes: float, pause: float
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock(monkeypatch)
        began: list[float] = []

        def attempt() -> None:
            began.append(clock.now - 1_000.0)
            clock.pass_by(takes)
            raise AWAY

        with pytest.raises(redis.exceptions.ConnectionError, match="it is away"):
            nested(depth, Patience(ConstantBackoff(pause), RETRIES, SECONDS, (redis.ConnectionError,)), attempt)

    assert len(began) <= 1 + RETRIES
    assert all(at <= SECONDS + pause for at in began)
    assert len(began) == 1 + RETRIES or began[-1] + takes >= SECONDS


def test_who_is_there_again_is_found_by_the_next_attempt_and_the_next_call_is_as_patient() -> None:
    retry = Patience(NoBackoff(), RETRIES, SECONDS, (redis.ConnectionError,))

    for _ in range(3):
        left = [AWAY] * RETRIES

        def attempt(left: list[Exception] = left) -> str:
            if left:
                raise left.pop()
            return "there"

        assert nested(2, retry, attempt) == "there"


def test_what_is_no_outage_is_raised_at_once_and_leaves_the_next_call_as_patient() -> None:
    retry = Patience(NoBackoff(), RETRIES, SECONDS, (redis.ConnectionError,))
    tried: list[int] = []

    def refused() -> None:
        tried.append(1)
        raise redis.exceptions.ResponseError("no")

    for count in (1, 2):
        with pytest.raises(redis.exceptions.ResponseError):
            nested(2, retry, refused)
        assert len(tried) == count
