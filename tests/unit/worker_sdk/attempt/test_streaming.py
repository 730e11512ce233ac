"""What an attempt says is gathered, written in few commands, and never costs the step anything."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from multiagents.exceptions import StateStoreError, WorkerError
from multiagents.names import Correlation, Direction
from multiagents.state_store.records import EntryKind, Said
from multiagents.testing import wait_until
from multiagents.worker_sdk.attempt.streaming import AT_ONCE, MOST_WAITING, Streaming


class Store:
    """Takes down what is appended, unless it is told to fail."""

    def __init__(self) -> None:
        self.appended: list[tuple[int, list[Said]]] = []
        self.fails = False
        self.ours = True

    def append(self, _correlation: Any, owner: str, said: list[Said], *, before: int, most: int) -> bool:
        assert (owner, most) == ("owner", 7)
        if self.fails:
            raise StateStoreError("away")
        self.appended.append((before, list(said)))
        return self.ours

    @property
    def data(self) -> list[Any]:
        return [one.data for _, said in self.appended for one in said]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def streaming(store: Store) -> Streaming:
    claim: Any = SimpleNamespace(correlation=Correlation("run", "step", Direction.DO, 3), owner="owner")
    here: Any = SimpleNamespace(streams=store)
    return Streaming(claim, lambda: here, 7)


def token(text: str, field: str = "answer") -> Said:
    return Said(EntryKind.TOKEN, text, field)


def test_what_is_said_is_written_soon_and_by_itself(store: Store, streaming: Streaming) -> None:
    streaming.item({"file": 1})
    streaming.item({"file": 2})

    wait_until(lambda: store.data == [{"file": 1}, {"file": 2}], 10, "what was said")


def test_what_is_left_is_written_at_the_end(store: Store, streaming: Streaming) -> None:
    for number in range(500):
        streaming.item(number)
    streaming.write()

    assert store.data == list(range(500))
    assert [before for before, _ in store.appended] == [
        sum(len(s) for _, s in store.appended[:n]) for n in range(len(store.appended))
    ]


def test_pieces_of_one_text_that_come_together_are_one_entry(store: Store, streaming: Streaming) -> None:
    for word in ("It ", "is ", "so."):
        streaming.say(token(word))
    streaming.say(token("Because", "reasoning"))
    streaming.item("x")
    streaming.say(token("done"))
    streaming.write()

    assert "".join(one.data for _, said in store.appended for one in said) == "It is so.Becausexdone"
    assert len(store.data) <= 6


def test_a_thousand_tokens_at_once_are_few_commands(store: Store, streaming: Streaming) -> None:
    for number in range(1_000):
        streaming.say(token(f"{number} "))
    streaming.write()

    assert "".join(store.data).split() == [str(number) for number in range(1_000)]
    assert len(store.appended) <= 12


def test_who_says_more_than_can_wait_writes_it_himself(store: Store, streaming: Streaming) -> None:
    for number in range(3 * MOST_WAITING):
        streaming.item(number)

    assert len(store.data) >= MOST_WAITING
    assert max(len(said) for _, said in store.appended) <= AT_ONCE


def test_what_could_not_be_written_is_written_again_with_its_numbers(
    store: Store, streaming: Streaming, caplog: pytest.LogCaptureFixture
) -> None:
    store.fails = True
    with caplog.at_level(logging.WARNING):
        streaming.say(token("one"))
        streaming.write()
        streaming.say(token("two"))
        streaming.write()
    store.fails = False
    streaming.say(token("three"))

    streaming.write()

    # What may have been written is never changed by what comes after it.
    assert [(before, [one.data for one in said]) for before, said in store.appended] == [(0, ["one", "two", "three"])]
    assert [record.getMessage() for record in caplog.records] == ["what run/step/do/3 streams was not written: away"]


def test_an_attempt_that_is_lost_says_nothing_any_more(store: Store, streaming: Streaming) -> None:
    store.ours = False
    streaming.item(1)
    streaming.write()

    for number in range(2 * MOST_WAITING):
        streaming.item(number)
    streaming.write()

    assert streaming.lost
    assert len(store.appended) == 1


def test_what_is_taken_down_is_what_was_said_and_not_what_became_of_it(store: Store, streaming: Streaming) -> None:
    item = {"done": 1}
    streaming.item(item)
    item["done"] = 2
    streaming.write()

    assert store.data == [{"done": 1}]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"now": object()}, r"what step 'step' streams cannot be written as JSON: now is object"),
        ("x" * 65_535, r"step 'step' streams an item of 65,537 bytes of JSON, more than 65,536"),
    ],
)
def test_what_cannot_be_said_is_refused_where_it_is_said(streaming: Streaming, item: Any, words: str) -> None:
    with pytest.raises(WorkerError, match=words):
        streaming.item(item)


def test_a_final_entry_that_is_too_large_says_so_by_having_no_data(store: Store, streaming: Streaming) -> None:
    streaming.final({"answer": "x" * 70_000})
    streaming.final({"answer": "x"})
    streaming.begin_again()
    streaming.write()

    assert [(one.kind, one.data) for _, said in store.appended for one in said] == [
        ("final", None),
        ("final", {"answer": "x"}),
        ("attempt", 3),
    ]
