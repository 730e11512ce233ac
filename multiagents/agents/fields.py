"""Which output field a piece of a model's answer belongs to, while the answer comes.

Each of these is for one answer: it is fed pieces as they come, wherever they were cut, and gives texts with their
fields. What may be the beginning of a mark is held back until it is known. Space around a field's text is none of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

#: A field's name, and a piece of its text.
Piece = tuple[str, str]

_CHAT = re.compile(r"\[\[ ## (\w+) ## \]\]")
#: What a mark may have begun with, at the end of what there is.
_CHAT_BEGUN = re.compile(r"\[(\[( (#(#( (\w+( (#(#( (\]\]?)?)?)?)?)?)?)?)?)?)?)?$")
_TAG = re.compile(r"<(/?)(\w+)>")
_TAG_BEGUN = re.compile(r"<(/?\w*)?$")
#: What stands where a field would, and is none.
_NO_FIELD = "completed"


class Fields(Protocol):
    """Takes an answer apart while it comes."""

    def feed(self, text: str) -> Iterator[Piece]:
        """Take a piece, and give what is known of which field it is."""

    def end(self) -> Iterator[Piece]:
        """Give what was held back, now that there is no more."""


class _Trimmed:
    """Gives the text of one field after the other, without the space around each."""

    def __init__(self) -> None:
        self._field = ""
        self._begun = False
        self._space = ""

    def turn(self, field: str) -> None:
        """Go on with another field; an empty name is none."""
        self._field, self._begun, self._space = field, False, ""

    def piece(self, text: str) -> Iterator[Piece]:
        """Take more of it."""
        if not self._begun:
            text = text.lstrip()
        if not self._field or not text:
            return
        kept = text.rstrip()
        if kept:
            yield self._field, self._space + kept
            self._begun, self._space = True, ""
        self._space += text[len(kept) :]


class ChatFields:
    r"""Fields as DSPy's ``ChatAdapter`` has them, behind ``[[ ## name ## ]]``.

    >>> fields = ChatFields()
    >>> [*fields.feed("[[ ## answer ## ]]\nPa"), *fields.feed("ris\n\n[[ ## comp"), *fields.feed("leted ## ]]")]
    [('answer', 'Pa'), ('answer', 'ris')]
    """

    def __init__(self) -> None:
        self._held = ""
        self._out = _Trimmed()

    def feed(self, text: str) -> Iterator[Piece]:
        """Take a piece."""
        text = self._held + text
        at = 0
        for mark in _CHAT.finditer(text):
            yield from self._out.piece(text[at : mark.start()])
            self._out.turn("" if mark[1] == _NO_FIELD else mark[1])
            at = mark.end()
        begun = _CHAT_BEGUN.search(text, at)
        until = len(text) if begun is None else begun.start()
        self._held = text[until:]
        yield from self._out.piece(text[at:until])

    def end(self) -> Iterator[Piece]:
        """Give what was held back."""
        yield from self._out.piece(self._held)


class XMLFields:
    r"""Fields as DSPy's ``XMLAdapter`` has them: ``<name>...</name>``; tags inside of a field are text of it.

    >>> fields = XMLFields()
    >>> [*fields.feed("<answer>\nin <b>Pa"), *fields.feed("ris</b>\n</ans"), *fields.feed("wer>")]
    [('answer', 'in <b>Pa'), ('answer', 'ris</b>')]
    """

    def __init__(self) -> None:
        self._held = ""
        self._field = ""
        self._out = _Trimmed()

    def feed(self, text: str) -> Iterator[Piece]:
        """Take a piece."""
        text = self._held + text
        at = 0
        for tag in _TAG.finditer(text):
            is_end, name = tag[1] == "/", tag[2]
            if (self._field and not (is_end and name == self._field)) or (not self._field and is_end):
                continue
            yield from self._out.piece(text[at : tag.start()])
            self._field = "" if is_end else name
            self._out.turn(self._field)
            at = tag.end()
        begun = _TAG_BEGUN.search(text, at)
        until = len(text) if begun is None else begun.start()
        self._held = text[until:]
        yield from self._out.piece(text[at:until])

    def end(self) -> Iterator[Piece]:
        """Give what was held back."""
        yield from self._out.piece(self._held)


_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class JSONFields:
    r"""Fields as DSPy's ``JSONAdapter`` has them: the keys of one object. Texts are given as they read, else JSON.

    >>> fields = JSONFields()
    >>> [*fields.feed('{"answer": "Pa'), *fields.feed('ris\\u0021\\'), *fields.feed('n", "of": [1, {"a": "]"}]}')]
    [('answer', 'Pa'), ('answer', 'ris!'), ('answer', '\n'), ('of', '[1, {"a": "]"}]')]
    """

    def __init__(self) -> None:
        self._depth = 0
        #: the key that was read last, and whether its value comes now
        self._key = ""
        self._is_value = False
        #: of a text that is being read: None, or what it is: a key, a text, or within other JSON
        self._text: str | None = None
        self._escape = ""
        #: half of a character that is written as two
        self._high = ""

    def feed(self, text: str) -> Iterator[Piece]:
        """Take a piece."""
        out: list[str] = []
        for character in text:
            said = self._character(character)
            if said is None:  # the field is over
                if out:
                    yield self._key, "".join(out)
                out = []
            elif said:
                out.append(said)
        if out:
            yield self._key, "".join(out)

    def end(self) -> Iterator[Piece]:
        """Give what was held back."""
        yield from ()

    def _character(self, character: str) -> str | None:
        """What one character adds to the field that is read; None at its end."""
        if self._text is not None:
            return self._in_text(character)
        if character == '"' and self._depth >= 1:
            if self._depth == 1 and not self._is_value:
                self._text, self._key = "key", ""
                return ""
            self._text = "value" if self._depth == 1 else "within"
            return "" if self._depth == 1 else character
        if character in "{[":
            self._depth += 1
            return character if self._depth > 1 and self._is_value else ""
        if character in "}]":
            self._depth -= 1
            if self._depth >= 1 and self._is_value:
                return character
            self._is_value = False
            return None
        if self._depth == 1 and character == ":" and not self._is_value:
            self._is_value = True
            return ""
        if self._depth == 1 and character == ",":
            self._is_value = False
            return None
        return character if self._is_value and (self._depth > 1 or not character.isspace()) else ""

    def _in_text(self, character: str) -> str:
        kind = self._text
        if kind == "within":
            # As it is written, for it is JSON; what is escaped does not end it.
            if self._escape:
                self._escape = ""
            elif character == "\\":
                self._escape = character
            elif character == '"':
                self._text = None
            return character
        if not self._escape:
            if character == '"':
                self._text = None
                return ""
            if character == "\\":
                self._escape = character
                return ""
            return self._read(character)
        self._escape += character
        if self._escape[1] != "u":
            read, self._escape = _ESCAPES.get(character, character), ""
            return self._read(read)
        if len(self._escape) < len("\\u0000"):
            return ""
        code, self._escape = self._escape[2:], ""
        return self._read(self._unit(code))

    def _unit(self, code: str) -> str:
        try:
            unit = chr(int(code, 16))
        except ValueError:
            return ""
        if "\ud800" <= unit <= "\udbff":
            self._high = unit
            return ""
        both, self._high = self._high + unit, ""
        return both.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _read(self, text: str) -> str:
        if self._text == "key":
            self._key += text
            return ""
        return text
