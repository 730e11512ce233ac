"""What is kept of an attempt to learn from: as small as it can be, and never too much."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.state_store.payloads import PLAIN, PayloadPolicy
from multiagents.state_store.payloads.redaction import redactor
from multiagents.state_store.records import MAX_EXAMPLE, Experience, Traced

ASKED = {"question": "Why?"}
VALUES = st.text(alphabet="ab~", min_size=0, max_size=6).map(lambda text: text * 60) | st.integers() | st.just({"~": 1})
TRACES = st.lists(
    st.builds(Traced, st.sampled_from("pq"), st.dictionaries(st.sampled_from("xy"), VALUES), st.just({"a": 1}))
)


@given(TRACES)
def test_a_trace_comes_back_as_it_was(trace: list[Traced]) -> None:
    text = Experience(trace=trace).written(PLAIN)

    assert text is not None
    assert Experience.read(text, PLAIN).trace == tuple(trace)


def turns(count: int, size: int) -> list[Traced]:
    """The trace of an agent each of whose turns is told all turns before it."""
    said = [f"[[ turn {number} ]] " + f"{number:04}" * (size // 4) for number in range(count)]
    return [Traced("react", {"trajectory": "".join(said[:number])}, {"next": "on"}) for number in range(count)]


def test_a_trace_grows_with_the_conversation_and_not_with_its_square() -> None:
    trace = turns(40, 1_000)

    text = Experience(ASKED, {"answer": "a"}, trace).written(PLAIN)

    assert text is not None
    assert len(text) < 40 * 1_100
    assert Experience.read(text, PLAIN).trace == tuple(trace)


def test_of_a_trace_that_is_too_large_the_rest_is_kept() -> None:
    text = Experience(ASKED, {"answer": "a"}, turns(100, 1_000)).written(PLAIN)

    assert text is not None
    assert Experience.read(text, PLAIN) == Experience(ASKED, {"answer": "a"})


@pytest.mark.parametrize(("size", "kept"), [(MAX_EXAMPLE // 2 - 100, True), (MAX_EXAMPLE // 2, False)])
def test_what_is_too_large_without_its_trace_is_not_kept(size: int, kept: bool) -> None:
    written = Experience({"document": "é" * size}, {"answer": "a"}).written(PLAIN)

    assert (written is not None) is kept


def test_what_is_not_to_be_shown_is_written_nowhere() -> None:
    said = {"card": "4111", "nested": [{"card": "4111"}]}
    policy = PayloadPolicy(redact=redactor(["card"]))

    text = Experience(said, said, [Traced("self", said, said)], models=["card"]).written(policy)

    assert text is not None
    assert "4111" not in text
    assert json.loads(text)["models"] == ["card"]


def test_what_a_newer_release_has_added_is_left_out() -> None:
    assert Experience.read('{"inputs":{"a":1},"mood":"good"}', PLAIN) == Experience({"a": 1})
