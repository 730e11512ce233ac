"""Many who wait for results in one process: what they take, and what may happen to the line meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from celery import Celery

from multiagents import StreamEntry, WorkflowBuilder, init_app
from multiagents.embedded import EmbeddedServer
from multiagents.exceptions import StateStoreError, WorkflowFailedError
from multiagents.orchestrator import Orchestrator, Run
from multiagents.testing import wait_until
from tests.support.balancer import Balancer
from tests.support.greenlets import three_hundred

#: It ends when it is told to, without a worker.
TOLD = WorkflowBuilder("told").add_wait("answer", "answer").build(register=False)


class Shop:
    """A process with an orchestrator, and a look at its server."""

    def __init__(self, url: str) -> None:
        self.orchestrator: Orchestrator = init_app(Celery("waiting", broker=url, set_as_current=False))
        self.admin: Any = redis.Redis.from_url(url, decode_responses=True, client_name="admin")

    def start(self, count: int) -> list[Run]:
        return [self.orchestrator.start(TOLD, {}) for _ in range(count)]

    @staticmethod
    def end(runs: list[Run]) -> None:
        for number, run in enumerate(runs):
            run.signal("answer", {"number": number})

    def listeners(self) -> int:
        """How many connections listen."""
        return sum(int(each["sub"]) > 0 for each in self.admin.client_list())

    def channels(self) -> int:
        """How many runs are listened for."""
        return len(self.admin.pubsub_channels("*"))

    def close(self) -> None:
        self.orchestrator.store.close()
        self.admin.close()


@pytest.fixture
def shop(crash_server: EmbeddedServer) -> Iterator[Shop]:
    found = Shop(crash_server.url)
    yield found
    found.close()


def in_threads(runs: list[Run], meanwhile: Callable[[], None]) -> tuple[list[Any], int]:
    """Wait for each in a thread of its own; how many further threads that takes."""
    results: list[Any] = [None] * len(runs)

    def wait(number: int) -> None:
        results[number] = runs[number].result(timeout=300)

    before = threading.active_count()
    waiting = [threading.Thread(target=wait, args=[number]) for number in range(len(runs))]
    for thread in waiting:
        thread.start()
    meanwhile()
    further = threading.active_count() - before - len(waiting)
    Shop.end(runs)
    for thread in waiting:
        thread.join()
    return results, further


def in_coroutines(runs: list[Run], meanwhile: Callable[[], None]) -> tuple[list[Any], int]:
    """Wait for all in one event loop; how many further threads that takes."""

    async def wait() -> tuple[list[Any], int]:
        before = threading.active_count()
        waiting = [asyncio.ensure_future(run.wait(timeout=300)) for run in runs]
        await asyncio.sleep(0)
        await asyncio.to_thread(meanwhile)
        further = threading.active_count() - before - 1  # the one that did what happened meanwhile
        ending = threading.Thread(target=Shop.end, args=[runs])
        ending.start()
        results = await asyncio.gather(*waiting)
        ending.join()
        return list(results), further

    return asyncio.run(wait())


WAYS = [in_threads, in_coroutines]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("way", WAYS)
def test_a_thousand_who_wait_in_one_process_share_one_thread_and_one_connection(way: Any, shop: Shop) -> None:
    runs = shop.start(1_000)
    seen: list[int] = []
    shop.admin.config_resetstat()

    def meanwhile() -> None:
        wait_until(lambda: shop.channels() == 1_000, 60, "all to be listened for")
        # The first look at each follows its subscription, and is not paced.
        wait_until(lambda: looks(shop.admin.info("commandstats")) >= 1_000, 60, "all to be looked at")
        seen.append(shop.listeners())
        before, began = looks(shop.admin.info("commandstats")), time.monotonic()
        time.sleep(2.5)
        assert looks(shop.admin.info("commandstats")) - before <= 500 * (time.monotonic() - began + 1)

    results, further = way(runs, meanwhile)

    assert [each["answer"]["number"] for each in results] == list(range(1_000))
    assert seen == [1]
    assert further <= 1  # fewer where the listener of a test before this one has ended meanwhile
    wait_until(lambda: shop.channels() == 0, 20, "nobody to be listened for")


def looks(stats: Any) -> int:
    """How many runs were looked at."""
    return int(stats.get("cmdstat_hmget", {"calls": 0})["calls"])


def _nothing(_: Shop) -> None:
    pass


def _the_listener_is_cut_off(shop: Shop) -> None:
    shop.admin.client_kill_filter(_type="pubsub")


def _all_are_cut_off(shop: Shop) -> None:
    shop.admin.client_kill_filter(skipme=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("happens", [_nothing, _the_listener_is_cut_off, _all_are_cut_off])
def test_whatever_becomes_of_the_line_everybody_gets_their_result(way: Any, happens: Any, shop: Shop) -> None:
    runs = shop.start(20)

    def meanwhile() -> None:
        for _ in range(3):
            wait_until(lambda: shop.channels() == 20, 20, "all to be listened for")
            happens(shop)

    results, _ = way(runs, meanwhile)

    assert [each["answer"]["number"] for each in results] == list(range(20))


@pytest.mark.parametrize("way", WAYS)
def test_who_waits_goes_on_waiting_through_an_outage(way: Any, shop: Shop, crash_server: EmbeddedServer) -> None:
    runs = shop.start(20)

    def meanwhile() -> None:
        wait_until(lambda: shop.channels() == 20, 20, "all to be listened for")
        crash_server.kill()
        time.sleep(1.5)
        crash_server.start()

    results, _ = way(runs, meanwhile)

    assert [each["answer"]["number"] for each in results] == list(range(20))


@pytest.mark.parametrize("is_away", [False, True], ids=["", "through-an-outage"])
def test_all_who_read_along_in_one_process_share_one_thread_and_one_connection(
    is_away: bool, shop: Shop, crash_server: EmbeddedServer
) -> None:
    runs = shop.start(200)

    async def read(run: Run) -> list[StreamEntry]:
        return [entry async for entry in run.stream()]

    def meanwhile() -> tuple[int, int]:
        wait_until(lambda: shop.channels() == 200, 60, "all to be listened for")
        listeners = shop.listeners()
        if is_away:
            crash_server.kill()
            time.sleep(1.5)
            crash_server.start()
        Shop.end(runs)
        return listeners, threading.active_count()

    async def follow() -> tuple[list[Any], int, int]:
        before = threading.active_count()
        reading = [asyncio.ensure_future(read(run)) for run in runs]
        listeners, threads = await asyncio.to_thread(meanwhile)
        return await asyncio.gather(*reading), listeners, threads - before

    found, listeners, further = asyncio.run(follow())

    assert found == [[]] * 200
    assert listeners == 1
    assert further <= 6  # who listens, who did what happened meanwhile, and four for short reads


def test_who_waits_is_told_when_the_store_stays_away(shop: Shop, crash_server: EmbeddedServer) -> None:
    runs = shop.start(3)

    async def wait() -> list[Any]:
        waiting = [asyncio.ensure_future(run.wait()) for run in runs]
        await asyncio.to_thread(wait_until, lambda: shop.channels() == 3, 20, "all to be listened for")
        crash_server.kill()
        return await asyncio.gather(*waiting, return_exceptions=True)

    told = asyncio.run(wait())

    assert [type(each) for each in told] == [StateStoreError] * 3
    assert "check that the server runs" in str(told[0])
    crash_server.start()


def test_who_may_not_listen_gets_the_result_a_little_later(
    shop: Shop, crash_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    shop.admin.acl_setuser("deaf", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"], reset=True)
    deaf = Shop(crash_server.url.replace("://", "://deaf:secret@"))
    runs = deaf.start(5)

    with closing(deaf), caplog.at_level(logging.WARNING):
        ending = threading.Timer(0.5, shop.end, [[shop.orchestrator.get(run.transaction_id) for run in runs]])
        ending.start()
        results = [run.result(timeout=60) for run in runs]
        ending.join()

    assert [each["answer"]["number"] for each in results] == list(range(5))
    assert sum("results come up to 1 s late" in each.message for each in caplog.records) == 1


def test_who_gives_up_waiting_leaves_nothing_behind(shop: Shop) -> None:
    runs = shop.start(50)

    async def give_up() -> None:
        waiting = [asyncio.ensure_future(run.wait()) for run in runs]
        await asyncio.to_thread(wait_until, lambda: shop.channels() == 50, 20, "all to be listened for")
        for each in waiting:
            each.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*waiting, return_exceptions=True)
        )
        with pytest.raises(TimeoutError, match=r"is still (running|going on) after 0\.01 s"):
            await runs[0].wait(timeout=0.01)

    asyncio.run(give_up())

    wait_until(lambda: shop.channels() == 0, 20, "nobody to be listened for")


def test_a_process_that_is_forked_while_others_wait_listens_by_itself(shop: Shop) -> None:
    here, there = shop.start(20), shop.start(20)
    ended: list[int] = []

    def meanwhile() -> None:
        wait_until(lambda: shop.channels() == 20, 20, "all to be listened for")
        child = os.fork()
        if child == 0:
            try:
                right = [each["answer"]["number"] for each in in_threads(there, lambda: None)[0]] == list(range(20))
            except BaseException:
                right = False
            os._exit(0 if right else 1)
        ended.append(os.waitpid(child, 0)[1])

    results, _ = in_threads(here, meanwhile)

    assert ended == [0]
    assert [each["answer"]["number"] for each in results] == list(range(20))


def test_a_failover_is_no_end_for_who_waits(shop: Shop, crash_server: EmbeddedServer) -> None:
    """The connections that there are lead to a server that answers nothing any more but that it loads its data."""
    with Balancer(crash_server.port) as balancer, closing(Shop(balancer.url)) as there:
        runs = there.start(20)

        def meanwhile() -> None:
            wait_until(lambda: shop.channels() == 20, 20, "all to be listened for")
            balancer.answer_old_ones(b"-LOADING Redis is loading the dataset in memory\r\n")
            there.admin.connection_pool.disconnect()

        results, _ = in_threads(runs, meanwhile)

    assert [each["answer"]["number"] for each in results] == list(range(20))


def test_three_hundred_greenlets_wait_in_one_process(crash_server: EmbeddedServer) -> None:
    assert three_hundred("waits", crash_server.url) == "300 right"


def test_a_coroutine_does_not_wait_behind_others_that_wait(shop: Shop) -> None:
    slow, [quick] = shop.start(200), shop.start(1)

    async def waits() -> float:
        waiting = [asyncio.ensure_future(run.wait()) for run in [*slow, quick]]
        await asyncio.to_thread(wait_until, lambda: shop.channels() == 201, 20, "all to be listened for")
        await asyncio.to_thread(shop.end, [quick])
        began = time.monotonic()
        await waiting.pop()
        took = time.monotonic() - began
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return took

    assert asyncio.run(waits()) < 20


def test_a_coroutine_does_not_wait_behind_what_fills_the_executor_of_its_loop(shop: Shop) -> None:
    [told, cancelled, going_on] = shop.start(3)
    Shop.end([told])
    cancelled.cancel()
    over = threading.Event()

    async def waits() -> list[Any]:
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(None, over.wait, 100) for _ in range(60)]
        asked = [told.wait(), told.wait(timeout=0), cancelled.wait(), going_on.wait(timeout=0)]
        found = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)
        assert not any(job.done() for job in jobs)
        over.set()
        await asyncio.gather(*jobs)
        return found

    results = asyncio.run(waits())

    assert [each["answer"]["number"] for each in results[:2]] == [0, 0]
    assert [type(each) for each in results[2:]] == [WorkflowFailedError, TimeoutError]


def test_a_forked_process_reads_results_by_itself(shop: Shop) -> None:
    here, there = shop.start(10), shop.start(10)
    Shop.end([*here, *there])

    def right(runs: list[Run]) -> bool:
        async def wait() -> list[Any]:
            return await asyncio.wait_for(asyncio.gather(*[run.wait() for run in runs]), 60)

        return len(asyncio.run(wait())) == len(runs)

    assert right(here)
    child = os.fork()
    if child == 0:
        try:
            done = right(there)
        except BaseException:
            done = False
        os._exit(0 if done else 1)

    assert os.waitpid(child, 0)[1] == 0


def test_many_who_watch_share_the_thread_too_and_read_only_what_is_new(shop: Shop) -> None:
    runs = shop.start(300)
    seen: list[list[Any]] = [[] for _ in runs]
    watching = [
        threading.Thread(target=lambda number=number: seen[number].extend(runs[number].watch(poll=0.02)))
        for number in range(300)
    ]
    before = threading.active_count()
    for thread in watching:
        thread.start()
    wait_until(lambda: shop.channels() == 300, 60, "all to be listened for")
    time.sleep(0.5)

    shop.admin.config_resetstat()
    began = time.monotonic()
    time.sleep(2)
    stats = shop.admin.info("commandstats")
    took = time.monotonic() - began
    listeners, further = shop.listeners(), threading.active_count() - before - len(watching)
    shop.end(runs)
    for thread in watching:
        thread.join()

    assert 0 < looks(stats) <= 500 * (took + 1)
    assert set(stats) <= {"cmdstat_hmget", "cmdstat_info", "cmdstat_config|resetstat"}
    assert (listeners, further) == (1, 1)
    assert seen == [run.history() for run in runs]
