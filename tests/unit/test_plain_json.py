"""What is let through can be written and read again, however it is wrapped; all else is refused by its place."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import json
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.json import register_type
from pydantic import BaseModel
from pydantic_core import from_json

from multiagents.exceptions import ConfigurationError, WorkflowError
from multiagents.plain_json import MAX_DEPTH, canonical, check_words, dumps, plain


class Kind(enum.StrEnum):
    CARD = "card"


class Number(enum.IntEnum):
    ONE = 1


class Colour(enum.Enum):
    RED = "red"


class Money(BaseModel):
    amount: Decimal
    at: dt.date


@dataclasses.dataclass
class Point:
    x: int
    colour: Colour


class Own:
    def __json__(self) -> Any:
        return {"own": Decimal(1)}


class Registered:
    pass


class Pair(NamedTuple):
    a: int
    b: int


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


class TestWhatIsCarried:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            (Decimal("1.10"), "1.10"),
            (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
            (dt.datetime(2026, 3, 29, 2, 30, tzinfo=dt.UTC), "2026-03-29T02:30:00+00:00"),
            (dt.date(2026, 1, 1), "2026-01-01"),
            (dt.time(12, 30), "12:30:00"),
            (dt.timedelta(days=1), "P1D"),
            (b"\xff\x00abc", "/wBhYmM="),
            (bytearray(b"abc"), "YWJj"),
            ({10, 9}, [9, 10]),
            (frozenset({"b", "a", 1}), ["a", "b", 1]),
            ((1, (2, "x")), [1, [2, "x"]]),
            (Pair(1, 2), [1, 2]),
            (collections.deque([1]), [1]),
            (collections.OrderedDict(a=1), {"a": 1}),
            ({Kind.CARD: Kind.CARD}, {"card": "card"}),
            (Number.ONE, 1),
            (Colour.RED, "red"),
            (Path("/a"), "/a"),
            (Point(1, Colour.RED), {"x": 1, "colour": "red"}),
            (Money(amount=Decimal("1.1"), at=dt.date(2026, 1, 1)), {"amount": "1.1", "at": "2026-01-01"}),
            (Own(), {"own": "1"}),
            (2**70, 2**70),
            ("a\x00b\U0001f600", "a\x00b\U0001f600"),
            (None, None),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_it_is_kept_as_plain_json(self, given: Any, kept: Any) -> None:
        assert plain({"order": [given]}, "the input") == {"order": [kept]}

    def test_a_type_that_is_registered_with_kombu_is_written_as_it_says(self) -> None:
        register_type(Registered, "registered", lambda _: {"amount": Decimal("2.5")})

        assert plain([Registered()], "the input") == [{"amount": "2.5"}]

    def test_it_is_a_copy(self) -> None:
        lines: list[int] = [1]
        kept = plain({"lines": lines}, "the input")

        lines.append(2)

        assert kept == {"lines": [1]}

    def test_it_may_be_so_many_levels_deep(self) -> None:
        assert plain(nested(MAX_DEPTH), "the input") == nested(MAX_DEPTH)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"lines": [{"price": float("nan")}]}, "lines[0].price is nan"),
            ({"lines": [float("-inf")]}, "lines[0] is -inf"),
            ({"total": Decimal("NaN")}, "total is NaN"),
            ({"a": {"name": "caf\udce9"}}, "a.name is text with half a surrogate pair"),
            ({"a": {"caf\udce9": 1}}, "a is text with half a surrogate pair"),
            ({"a": {1: "x"}}, "a[1] has a key that is int"),
            ({None: 1}, "[None] has a key that is NoneType"),
            ({"a": {True: 1}}, "a[True] has a key that is bool"),
            ({1: "a", "1": "b"}, "[1] has a key that is int"),
            ({(1, 2): 3}, "[(1, 2)] has a key that is tuple"),
            ({"unit price": 10**5000}, "['unit price'] is a whole number of more than 4300 digits"),
            (nested(MAX_DEPTH + 1), "[0][0][0][0][0][0][0][0]... is nested more than 100 levels deep"),
            (nested(5000), "is nested more than 100 levels deep"),
            ({"it": iter([1])}, "it is list_iterator, which can be read only once"),
            ({"it": object()}, "it is object"),
            ({"it": print}, "it is builtin_function_or_method"),
            ({"it": ValueError("secret")}, "it is ValueError"),
            ({"it": {1: object()}}, "it[1] has a key"),
        ],
        ids=lambda value: value[:40].encode(errors="replace").decode() if isinstance(value, str) else "",
    )
    def test_it_is_refused_by_its_place(self, given: Any, says: str) -> None:
        with pytest.raises(WorkflowError) as caught:
            plain(given, "the input of run 'a'")

        assert str(caught.value).startswith(f"the input of run 'a' cannot be written as JSON: {says}") or (
            says in str(caught.value)
        )
        assert "secret" not in str(caught.value)

    def test_what_holds_itself_is_refused(self) -> None:
        loop: dict[str, Any] = {}
        loop["me"] = loop

        with pytest.raises(WorkflowError, match=r"me\.me\.me.* or holds itself"):
            plain(loop, "the input")

    def test_what_is_too_large_is_refused(self) -> None:
        with pytest.raises(
            WorkflowError, match="the input is 12 bytes of JSON, more than the 11 of multiagents_max_pay"
        ):
            plain({"x": "ö" * 2}, "the input", max_bytes=11)

    def test_the_error_is_of_the_kind_that_is_asked_for(self) -> None:
        with pytest.raises(ConfigurationError):
            plain(object(), "the input", error=ConfigurationError)


_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.decimals()
    | st.uuids()
    | st.datetimes()
    | st.timedeltas()
    | st.sampled_from([Kind.CARD, Colour.RED, object(), Own()])
)
_keys = st.text(st.characters(), max_size=5) | st.integers() | st.none() | st.booleans() | st.just("1")
_anything = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(_keys, inner, max_size=4)
        | st.sets(st.integers() | st.text(max_size=3), max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@given(_anything)
def test_what_is_let_through_is_read_as_it_was_written_however_it_is_wrapped(value: Any) -> None:
    try:
        kept = plain(value, "the input")
    except WorkflowError:
        return

    text = dumps(kept)
    wrapped: Any = from_json("[" * 100 + text + "]" * 100)
    for _ in range(100):
        wrapped = wrapped[0]
    assert kept == wrapped == json.loads(text)
    assert plain(kept, "the input") == kept
    assert canonical(kept) == canonical(json.loads(text))


def _turned(value: Any) -> Any:
    """The same with the keys of every mapping in the opposite order."""
    if isinstance(value, dict):
        return {key: _turned(inner) for key, inner in reversed(value.items())}
    return [_turned(inner) for inner in value] if isinstance(value, list) else value


@given(_anything)
def test_equal_values_have_one_canonical_form_whatever_the_order_of_their_keys(value: Any) -> None:
    try:
        kept = plain(value, "the input")
    except WorkflowError:
        return

    assert canonical(_turned(kept)) == canonical(kept)


@pytest.mark.parametrize(
    ("said", "says"), [(7, "is int; expected text"), ("x" * 4097, "4,097 characters"), ("\ud800", "surrogate")]
)
def test_words_that_cannot_be_kept_are_refused(said: Any, says: str) -> None:
    with pytest.raises(WorkflowError, match=f"reason=.*{says}"):
        check_words(reason=said, actor=None)
