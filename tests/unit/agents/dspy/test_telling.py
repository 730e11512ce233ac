"""A model's answer is told while it comes, and is whole all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from multiagents.state_store.records import Said

SAID = "[[ ## answer ## ]]\nBecause of that.\n\n[[ ## completed ## ]]"


@pytest.fixture(autouse=True)
def _dspy() -> None:
    pytest.importorskip("dspy")


class Heard:
    """Takes down what is told of a call."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.begun_again = 0
        step = SimpleNamespace(streaming=SimpleNamespace(say=self.said.append, begin_again=self._again))
        self.calls: Any = SimpleNamespace(tells=True, step=step)

    def _again(self) -> None:
        self.begun_again += 1

    @property
    def telling(self) -> Any:
        from multiagents.agents.dspy.telling import telling_of

        begun: Any = SimpleNamespace(slot="7")
        return telling_of(self.calls, begun)

    def told(self) -> list[tuple[str, str, str]]:
        return [(one.field, one.data, one.call) for one in self.said]


def request() -> Any:
    from dspy import lm15

    return lm15.Request(model="m", messages=(lm15.Message(role="user", parts=(lm15.TextPart(text="Why?"),)),))


def response(text: str = SAID) -> Any:
    from dspy import lm15

    message = lm15.Message(role="assistant", parts=(lm15.TextPart(text=text),))
    return lm15.Response(id="1", model="m", message=message, finish_reason="stop", usage=lm15.Usage())


class Whole:
    """An engine that gives answers in one piece."""

    def complete(self, _: Any) -> Any:
        return response()


class Refusing(Whole):
    """One that would stream, and cannot for this model."""

    def stream(self, _: Any) -> Iterator[Any]:
        from dspy import lm15

        raise lm15.UnsupportedFeatureError("no streams")
        yield


class Breaking(Whole):
    """One whose answers end before their end."""

    def stream(self, _: Any) -> Iterator[Any]:
        from dspy import lm15

        *events, _end = lm15.response_to_events(response())
        yield from events


@pytest.mark.parametrize("engine", [Whole(), Refusing()], ids=["no-stream", "refused"])
def test_an_engine_that_cannot_stream_is_told_in_one_piece(engine: Any) -> None:
    from multiagents.agents.dspy.telling import answer_of

    heard = Heard()

    assert answer_of(engine, request(), heard.telling) == response()
    assert heard.told() == [("answer", "Because of that.", "7")]


def test_the_same_from_a_coroutine() -> None:
    from multiagents.agents.dspy.telling import async_answer_of

    class Later:
        async def complete(self, _: Any) -> Any:
            return response()

    heard = Heard()

    assert asyncio.run(async_answer_of(Later(), request(), heard.telling)) == response()
    assert heard.told() == [("answer", "Because of that.", "7")]


def test_an_answer_without_its_end_is_a_transport_error_and_what_was_told_is_void() -> None:
    from dspy import lm15

    from multiagents.agents.dspy.telling import answer_of

    heard = Heard()
    telling = heard.telling

    with pytest.raises(lm15.TransportError, match="the answer was broken off while it was streamed"):
        answer_of(Breaking(), request(), telling)
    telling.void()
    telling.void()

    assert heard.told() == [("answer", "Because of that.", "7")]
    assert heard.begun_again == 1


def test_an_answer_of_which_nothing_was_told_has_nothing_to_take_back() -> None:
    heard = Heard()

    heard.telling.void()

    assert heard.begun_again == 0


def test_an_answer_in_a_form_that_is_not_known_is_told_as_it_comes() -> None:
    import dspy

    from multiagents.agents.dspy.telling import answer_of

    heard = Heard()
    with dspy.context(adapter=object()):
        answer_of(Whole(), request(), heard.telling)

    assert "".join(one.data for one in heard.said) == SAID
    assert {one.field for one in heard.said} == {""}
