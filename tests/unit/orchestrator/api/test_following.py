"""What follows a run is for threads and for coroutines, and goes on where it was after whatever broke it off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import pytest

from multiagents.orchestrator.api.following import Following, Item, Read, Talk, Wait


class Numbers:
    """Something to follow: numbers, each read for itself, the last behind a wait."""

    def __init__(self, fails: Iterable[int] = ()) -> None:
        self.fails = set(fails)
        self.last: Future[None] = Future()
        self.begun: list[str | None] = []

    def read(self, number: int) -> int:
        if number in self.fails:
            self.fails.discard(number)
            raise ConnectionError(number)
        return number

    def begin(self, offset: str | None) -> Talk[int]:
        self.begun.append(offset)
        for number in range(0 if offset is None else int(offset) + 1, 5):
            if number == 4:
                yield Wait(self.last)
            value = yield Read(lambda number=number: self.read(number))  # type: ignore[misc]
            yield Item(value, str(number))

    def following(self, after: str | None = None) -> Following[int]:
        return Following(self.begin, after)


async def listed(numbers: Following[int]) -> list[int]:
    return [number async for number in numbers]


WAYS: dict[str, Callable[[Following[int]], list[int]]] = {
    "for": list,
    "async for": lambda numbers: asyncio.run(listed(numbers)),
}


@pytest.fixture(params=WAYS)
def read(request: pytest.FixtureRequest) -> Callable[[Following[int]], list[int]]:
    """Read all there is."""
    return WAYS[request.param]


def test_all_is_read_and_then_it_is_over(read: Any) -> None:
    numbers = Numbers()
    numbers.last.set_result(None)
    following = numbers.following()

    assert read(following) == [0, 1, 2, 3, 4]
    assert following.offset == "4"
    assert read(following) == []
    assert numbers.begun == [None]


def test_who_catches_an_error_goes_on_where_it_was(read: Any) -> None:
    numbers = Numbers(fails=[2])
    numbers.last.set_result(None)
    following = numbers.following()

    with pytest.raises(ConnectionError):
        read(following)

    assert following.offset == "1"
    assert read(following) == [2, 3, 4]
    assert numbers.begun == [None, "1"]


def test_an_error_at_the_first_look_is_no_end(read: Any) -> None:
    numbers = Numbers(fails=[0])
    numbers.last.set_result(None)
    following = numbers.following()

    with pytest.raises(ConnectionError):
        read(following)

    assert read(following) == [0, 1, 2, 3, 4]


def test_a_coroutine_that_is_cancelled_loses_nothing() -> None:
    numbers = Numbers()

    async def read() -> list[int]:
        following, found = numbers.following(), list[int]()
        four = asyncio.Event()
        reading = asyncio.ensure_future(_into(found, following, four))
        await four.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        numbers.last.set_result(None)
        return found + await listed(following)

    assert asyncio.run(read()) == [0, 1, 2, 3, 4]
    assert numbers.begun == [None]


async def _into(found: list[int], following: Following[int], four: asyncio.Event) -> None:
    async for number in following:
        found.append(number)
        if len(found) == 4:
            four.set()


def test_who_has_closed_it_gets_no_more(read: Any) -> None:
    following = Numbers().following()
    assert next(following) == 0

    following.close()

    assert read(following) == []


def test_one_that_is_closed_before_it_was_begun_asks_nothing(read: Any) -> None:
    numbers = Numbers()
    following = numbers.following()

    following.close()

    assert read(following) == []
    assert numbers.begun == []
