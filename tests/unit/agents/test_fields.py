"""An answer is taken apart into its fields while it comes, wherever its pieces were cut."""

from __future__ import annotations

import json
import random

import pytest

from multiagents.agents.fields import ChatFields, Fields, JSONFields, XMLFields

OUTPUTS = {
    "reasoning": 'First [[ this ]], then "that": a < b,\n\nand <b>so</b> [[ ## on.',
    "answer": "Paris \\ Straße \U0001f600 {[,:]}",
    "sources": '["a", "b"]',
}
CHAT = "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in OUTPUTS.items()) + "\n\n[[ ## completed ## ]]\n"
XML = "\n".join(f"<{name}>\n{text}\n</{name}>" for name, text in OUTPUTS.items())
JSON = "```json\n" + json.dumps({**OUTPUTS, "sources": ["a", "b"], "sure": True}, indent=1) + "\n```"


def taken_apart(fields: Fields, pieces: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for piece in pieces:
        for name, text in fields.feed(piece):
            assert text
            found[name] = found.get(name, "") + text
    for name, text in fields.end():
        found[name] = found.get(name, "") + text
    return found


def cut(text: str, seed: int) -> list[str]:
    draw, pieces = random.Random(seed), []
    while text:
        size = draw.choice((1, 1, 2, 3, 5, 8, 40))
        pieces.append(text[:size])
        text = text[size:]
    return pieces


@pytest.mark.parametrize("seed", range(40))
def test_each_field_has_its_text_however_the_answer_is_cut(seed: int) -> None:
    assert taken_apart(ChatFields(), cut(CHAT, seed)) == OUTPUTS
    assert taken_apart(XMLFields(), cut(XML, seed)) == OUTPUTS
    found = taken_apart(JSONFields(), cut(JSON, seed))
    assert {**found, "sources": json.loads(found["sources"])} == {**OUTPUTS, "sources": ["a", "b"], "sure": "true"}


@pytest.mark.parametrize("seed", range(10))
def test_characters_that_json_writes_as_escapes_are_read(seed: int) -> None:
    said = {"answer": 'a"b\\c\nd\te/f \U0001f600 é', "nothing": "", "n": "x"}

    assert taken_apart(JSONFields(), cut(json.dumps(said), seed)) == {"answer": said["answer"], "n": "x"}


def test_what_is_no_field_is_told_to_nobody() -> None:
    assert taken_apart(ChatFields(), ["I am ", "not sure [[ what ]] you want."]) == {}
    assert taken_apart(XMLFields(), ["I am </b> not ", "sure."]) == {}
    assert taken_apart(JSONFields(), ["I am ", "not sure."]) == {}


def test_what_was_held_back_as_the_beginning_of_a_mark_comes_at_the_end() -> None:
    assert taken_apart(ChatFields(), ["[[ ## answer ## ]]\nx [[ ## "]) == {"answer": "x [[ ##"}
    assert taken_apart(XMLFields(), ["<answer>x </ans"]) == {"answer": "x </ans"}


def test_text_comes_as_soon_as_it_is_known() -> None:
    fields = ChatFields()

    assert list(fields.feed("[[ ## answer ## ]]\nIt is")) == [("answer", "It is")]
    assert list(fields.feed(" so")) == [("answer", " so")]
    assert list(fields.feed(" [")) == []
    assert list(fields.feed("1]")) == [("answer", " [1]")]
