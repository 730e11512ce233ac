"""Texts told by the one before them, and the stored forms of the journal."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st

from multiagents.state_store.records import Difference, Request, difference, restore
from multiagents.state_store.records.journal_fields import Evidence, Head, StoredCall
from multiagents.state_store.redis import scripts

TEXT = st.text(alphabet="ab€😀", max_size=12)


@given(TEXT, TEXT)
def test_a_text_that_was_told_by_any_other_is_restored(previous: str, text: str) -> None:
    assert restore(previous, *difference(previous, text)) == text


@given(TEXT, TEXT, TEXT, TEXT)
def test_what_two_texts_begin_and_end_with_is_not_repeated(begin: str, middle: str, added: str, end: str) -> None:
    told = difference(begin + middle + end, begin + middle + added + end)

    assert len(told.text) <= len(added)


def test_a_text_that_repeats_itself_shares_no_character_twice() -> None:
    assert difference("aa", "aaa") == Difference(2, "a", 0)
    assert difference("aaa", "aa") == Difference(2, "", 0)
    assert difference("same", "same") == Difference(4, "", 0)


def test_the_first_request_is_told_by_nothing() -> None:
    assert Request.after("", "whatever", "hello") == Request(text="hello")


def test_long_texts_are_compared_quickly() -> None:
    previous = "x" * 1_000_000
    began = perf_counter()

    assert difference(previous, f"{previous[:-5]}new{previous[-5:]}").keep == 999_995

    assert perf_counter() - began < 1.0


# --- the stored forms ------------------------------------------------------------------------------------------------


def test_the_scripts_have_the_names_of_the_stored_forms() -> None:
    lua = files(scripts).joinpath("journal.lua").read_text(encoding="utf-8")
    for name, form in (("HEAD", Head), ("CALL", StoredCall)):
        [listed] = re.findall(rf"^local {name} = {{(.*?)}}", lua, re.MULTILINE | re.DOTALL)
        assert tuple(re.findall(r"'(\w+)'", listed)) == form._fields


def test_what_an_older_release_has_not_written_has_its_default_and_what_a_newer_one_has_is_passed_over() -> None:
    assert Head.decode('[2,3,"x"]') == Head(2, 3, "x")  # type: ignore[arg-type]
    assert Head.decode(None) == Head()
    head = Head(calls=7, owner="owner-1", models="small\nlarge")
    assert Head.decode(json.dumps([*json.loads(head.encode()), "of a newer release"])) == head
    call = StoredCall("s", "lm", 1, 1, 1, 1, "live", 1, 5, name="small")
    assert StoredCall.decode(json.dumps([*json.loads(call.encode()), "of a newer release"])) == call
    late = Evidence(1, 5, 0, 1, 2, 3, "small", '"late"')
    assert Evidence.decode(late.encode()) == late
