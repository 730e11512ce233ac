"""What a retry policy takes, and what is kept of it."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import RetryPolicy


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (ValueError, ("builtins.ValueError",)),
        ("builtins.ValueError", ("builtins.ValueError",)),
        ([ValueError, "shop.errors.CardDeclined"], ("builtins.ValueError", "shop.errors.CardDeclined")),
        ((), ()),
    ],
)
def test_what_is_not_retried_may_be_a_class_a_name_or_several(given: Any, kept: tuple[str, ...]):
    policy = RetryPolicy(non_retryable=given)

    assert policy.non_retryable == kept
    assert policy.retries(UnicodeError("a kind of ValueError")) is (kept == ())
