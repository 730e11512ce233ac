"""A model's answer while it comes: asked for in pieces, and told to whoever reads the run's stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import dspy
from dspy import lm15

from multiagents.agents.fields import ChatFields, Fields, JSONFields, XMLFields
from multiagents.state_store.records import EntryKind, Said

if TYPE_CHECKING:
    from multiagents.agents.calls import Calls
    from multiagents.state_store.records import Begun

#: How each of DSPy's adapters has a model write its answer; the last is what the others are made of.
_FORMS: tuple[tuple[type, type[Fields]], ...] = (
    (dspy.JSONAdapter, JSONFields),
    (dspy.XMLAdapter, XMLFields),
    (dspy.ChatAdapter, ChatFields),
)
#: What a loop writes for itself: which tool it calls is told when it does.
_OWN = ("next_tool_name", "next_tool_args")


class Telling:
    """Tells the pieces of one answer of a model.

    Args:
        calls: whose attempt it is.
        slot: the call, as the journal has it.
    """

    def __init__(self, calls: Calls, slot: str) -> None:
        self._streaming = calls.step.streaming
        self._slot = slot
        adapter = dspy.settings.adapter or dspy.ChatAdapter()  # as DSPy has it
        form = next((form for kind, form in _FORMS if isinstance(adapter, kind)), None)
        #: None: the answer is in a form that is not known here, and told as it comes
        self._fields = None if form is None else form()
        self._has_told = False

    def hear(self, event: Any) -> None:
        """Take in what has come of the answer."""
        if event.type == "end" and self._fields is not None:
            self._tell(self._fields.end())
        elif event.type == "delta" and event.delta.type == "text":
            text = event.delta.text or ""
            self._tell([("", text)] if self._fields is None else self._fields.feed(text))

    def void(self) -> None:
        """What was told is not what the model comes to: it did not finish, and is asked again."""
        if self._has_told:
            self._has_told = False
            self._streaming.begin_again()

    def _tell(self, pieces: Any) -> None:
        for field, text in pieces:
            if text and field not in _OWN:
                self._has_told = True
                self._streaming.say(Said(EntryKind.TOKEN, text, field, self._slot))


def telling_of(calls: Calls | None, begun: Begun | None) -> Telling | None:
    """What tells the answer of a call; None where nobody is to hear of it."""
    return Telling(calls, begun.slot) if calls is not None and begun is not None and calls.tells else None


def answer_of(engine: Any, request: Any, telling: Telling | None) -> Any:
    """Ask an engine, in pieces where the answer is told and it can do so."""
    if telling is not None and hasattr(engine, "stream"):
        try:
            return lm15.materialize_response(_heard(engine.stream(request), telling), request)
        except lm15.UnsupportedFeatureError:
            pass
        except lm15.StreamAssemblyError as error:
            raise _broken_off(error) from error
    return _whole(engine.complete(request), telling)


async def async_answer_of(engine: Any, request: Any, telling: Telling | None) -> Any:
    """The same, from a coroutine."""
    if telling is not None and hasattr(engine, "stream"):
        try:
            return await lm15.amaterialize_response(_heard_later(engine.stream(request), telling), request)
        except lm15.UnsupportedFeatureError:
            pass
        except lm15.StreamAssemblyError as error:
            raise _broken_off(error) from error
    return _whole(await engine.complete(request), telling)


def _whole(response: Any, telling: Telling | None) -> Any:
    """An answer that has come in one piece."""
    if telling is not None:
        for event in lm15.response_to_events(response):
            telling.hear(event)
    return response


def _heard(events: Iterator[Any], telling: Telling) -> Iterator[Any]:
    for event in events:
        telling.hear(event)
        yield event


async def _heard_later(events: AsyncIterator[Any], telling: Telling) -> AsyncIterator[Any]:
    async for event in events:
        telling.hear(event)
        yield event


def _broken_off(error: Exception) -> Any:
    """Half an answer is none, and may be whole the next time it is asked for."""
    return lm15.TransportError(f"the answer was broken off while it was streamed: {error}")
