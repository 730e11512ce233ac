"""What `Run.stream` and `Run.watch` give: what happens in a run, one after the other, for threads and coroutines alike.

What is read and waited for is said once, by a generator; the two kinds of callers differ in how they do it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Self, TypeVar

from typing_extensions import override

from multiagents.orchestrator.api.aside import aside

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """What a reader gets, and where it is with it."""

    value: T
    offset: str


@dataclass(frozen=True, slots=True)
class Read:
    """Something that asks the store; its answer is sent back, or its error raised."""

    action: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Wait:
    """Until something is done, or some seconds have gone by."""

    until: Future[Any]
    seconds: float | None = None


#: What follows a run: it says what it wants, and is sent what came of it.
Talk = Generator[Item[T] | Read | Wait, Any, None]


class Following(Iterator[T], AsyncIterator[T]):
    """Follow a run, in a ``for`` or an ``async for``; it ends when the run is over and all was read.

    While nothing happens it takes no connection, and in a coroutine no thread. One that was broken off, by an error of
    the store or by a cancel, can be gone on with; in another process, by giving `offset` as ``after=``.

    Args:
        begin: begins to follow it behind an offset.
        offset: where; None: at the beginning.

    Attributes:
        offset: where it is; None before the first.
    """

    def __init__(self, begin: Callable[[str | None], Talk[T]], offset: str | None) -> None:
        self._begin = begin
        self.offset = offset
        self._talk: Talk[T] | None = None
        #: what was asked for and is not done: whoever waited for it was cancelled
        self._wanted: Item[T] | Read | Wait | None = None
        self._is_over = False

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> T:
        wanted = self._first()
        while not isinstance(wanted, Item):
            if isinstance(wanted, Wait):
                wait([wanted.until], wanted.seconds)
                wanted = self._next(None)
                continue
            try:
                answer = wanted.action()
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                wanted = self._raised(error)
            else:
                wanted = self._next(answer)
        return self._given(wanted)

    @override
    def __aiter__(self) -> Self:
        return self

    @override
    async def __anext__(self) -> T:
        try:
            wanted = self._first()
            while not isinstance(wanted, Item):
                if isinstance(wanted, Wait):
                    await _done(wanted.until, wanted.seconds)
                    wanted = self._next(None)
                    continue
                try:
                    answer = await aside(wanted.action)
                except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                    wanted = self._raised(error)
                else:
                    wanted = self._next(answer)
        except StopIteration:
            raise StopAsyncIteration from None
        return self._given(wanted)

    def close(self) -> None:
        """Follow it no more."""
        self._is_over = True
        if self._talk is not None:
            self._talk.close()

    async def aclose(self) -> None:
        """Follow it no more."""
        self.close()

    def _first(self) -> Item[T] | Read | Wait:
        if self._is_over:
            raise StopIteration
        if self._talk is None:
            self._talk = self._begin(self.offset)
        return self._next(None) if self._wanted is None else self._wanted

    def _next(self, answer: Any) -> Item[T] | Read | Wait:
        talk = self._talk
        assert talk is not None
        return self._told(partial(talk.send, answer))

    def _raised(self, error: Exception) -> Item[T] | Read | Wait:
        talk = self._talk
        assert talk is not None
        return self._told(partial(talk.throw, error))

    def _told(self, go_on: Callable[[], Item[T] | Read | Wait]) -> Item[T] | Read | Wait:
        self._wanted = None
        try:
            self._wanted = go_on()
        except StopIteration:
            self._is_over = True
            raise
        except Exception:
            self._talk = None  # Whoever asks again has it begin anew, where it is.
            raise
        return self._wanted

    def _given(self, item: Item[T]) -> T:
        self._wanted = None
        self.offset = item.offset
        return item.value


async def _done(future: Future[Any], seconds: float | None) -> None:
    """Wait without holding up the event loop; whoever is cancelled meanwhile cancels nothing."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(tell)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await done.wait()
