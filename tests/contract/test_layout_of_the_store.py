"""Which layout the keys of a Redis are in, and what is said where it is not this release's (decision 0034)."""

from __future__ import annotations

import pytest

from multiagents.exceptions import ConfigurationError
from multiagents.keys import SCHEMA
from tests.support.store_kit import RedisKit


def test_a_store_is_begun_with_the_number_of_its_layout(redis_kit: RedisKit) -> None:
    redis_kit.store.check()
    redis_kit.store.check()

    meta = redis_kit.keys.of_partition(0).meta
    assert redis_kit.client.hmget(meta, "schema", "partitions") == [str(SCHEMA), "3"]


@pytest.mark.parametrize(
    ("begun", "words"),
    [
        (
            {"partitions": "3"},
            "from before the first release, and this release has layout 2: they cannot be read; finish",
        ),
        ({"partitions": "3", "schema": "1"}, "in layout 1, .* finish its runs with a release that has layout 1"),
        ({"partitions": "3", "schema": "3"}, "in layout 3, .* upgrade celery-multiagents here"),
    ],
    ids=["none", "older", "newer"],
)
def test_a_store_in_another_layout_is_refused_in_words(redis_kit: RedisKit, begun: dict[str, str], words: str) -> None:
    redis_kit.client.hset(redis_kit.keys.of_partition(0).meta, mapping=begun)

    with pytest.raises(ConfigurationError, match=words):
        redis_kit.store.check()
    assert redis_kit.client.hgetall(redis_kit.keys.of_partition(0).meta) == begun


def test_a_store_that_was_begun_before_layouts_had_numbers_is_refused_and_nothing_is_written(
    redis_kit: RedisKit,
) -> None:
    redis_kit.client.hset(redis_kit.keys.of_the_first_layout, "partitions", "3")

    with pytest.raises(ConfigurationError, match="use another multiagents_key_prefix or database"):
        redis_kit.store.check()
    assert redis_kit.client.keys("*") == [redis_kit.keys.of_the_first_layout]


def test_whoever_died_between_the_two_numbers_has_begun_the_store(redis_kit: RedisKit) -> None:
    redis_kit.client.hset(redis_kit.keys.of_partition(0).meta, "schema", str(SCHEMA))

    redis_kit.store.check()

    assert redis_kit.client.hget(redis_kit.keys.of_partition(0).meta, "partitions") == "3"
