"""Many at once: waiting runs, timers that are due in one second, a run of very many steps. Figures are printed."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from multiagents import Orchestrator, ResultEvent, WorkflowBuilder
from multiagents.orchestrator.recovery import Sweep
from multiagents.testing import wait_until
from tests.support.apps import scripted
from tests.support.scenario import Deployment
from tests.support.worker_by_hand import WorkerByHand, came_to

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]

#: One waits for ever, the other has a time limit, and so an entry among what is due.
FOR_EVER = WorkflowBuilder("for-ever").add_wait("paid").add_step("ship", "play").build()
FOR_A_DAY = WorkflowBuilder("for-a-day").add_wait("paid", timeout=86_400).add_step("ship", "play").build()
NAP = WorkflowBuilder("nap").add_sleep("nap", lambda context: max(0.0, context["until"] - time.time())).build()


def seconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def start_all(orchestrator: Orchestrator, how_many: int, start: Callable[[int], Any], first: int = 0) -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(start, range(first, first + how_many)):
            pass


# --- runs that wait -------------------------------------------------------------------------------------------------


class Cost(dict[str, float]):
    """What a tick of the sweep costs the server: commands, and microseconds in scripts."""


def idle_cost(orchestrator: Orchestrator, redis: Redis, ticks: int = 40) -> Cost:
    sweep = Sweep(orchestrator.engine)
    sweep.tick()
    redis.config_resetstat()
    for _ in range(ticks):
        sweep.tick()
        time.sleep(0.05)  # every tenth looks into the lists, too
    stats: dict[str, Any] = redis.info("commandstats")
    commands = {
        name: row["calls"] for name, row in stats.items() if name not in ("cmdstat_info", "cmdstat_config|resetstat")
    }
    script = stats["cmdstat_evalsha"]
    return Cost(commands=sum(commands.values()) / ticks, script=script["usec"] / script["calls"])


def test_an_idle_sweep_costs_the_same_whether_500_or_50_000_runs_wait_for_a_signal(redis_url: str) -> None:
    orchestrator = scripted.make_app(redis_url, lease=30.0).multiagents
    redis = scripted.client(redis_url)

    def start(number: int) -> None:
        orchestrator.start((FOR_EVER, FOR_A_DAY)[number % 2], {}, transaction_id=f"waits-{number}")

    start_all(orchestrator, 500, start)
    few = idle_cost(orchestrator, redis)
    took = seconds(lambda: start_all(orchestrator, 49_500, start, first=500))
    many = idle_cost(orchestrator, redis)
    orchestrator.get("waits-1").signal("paid", {"by": "cash"})  # the first one makes what sending takes
    signal = seconds(lambda: orchestrator.get("waits-31415").signal("paid", {"by": "card"}))

    memory = redis.info("memory")["used_memory"] / 50_000
    print(
        f"\n    starting 49,500 runs: {took:.0f} s; memory: {memory / 1000:.1f} kB a run; "
        f"a signal to one: {signal * 1000:.1f} ms"
    )
    print(f"    a tick with 500 waiting runs:    {few['commands']:.2f} commands, {few['script']:.0f} µs a script")
    print(f"    a tick with 50,000 waiting runs: {many['commands']:.2f} commands, {many['script']:.0f} µs a script")
    assert orchestrator.count(FOR_EVER, "running") + orchestrator.count(FOR_A_DAY, "running") == 50_000
    assert many["commands"] <= few["commands"] * 1.1 + 0.5
    assert many["script"] <= few["script"] * 2 + 50
    assert orchestrator.get("waits-31415").describe().steps["paid"].status == "succeeded"


# --- timers ---------------------------------------------------------------------------------------------------------


def test_10_000_timers_of_one_second_fire_once_each_and_none_early(tmp_path: Path, redis_url: str) -> None:
    count, sweepers = 10_000, 3
    deployment = Deployment(redis_url, tmp_path, pool="solo", lease=10.0)
    orchestrator = deployment.orchestrator
    began = time.time()
    start_all(orchestrator, 200, lambda n: orchestrator.start(NAP, {"until": 0}, transaction_id=f"first-{n}"))
    # The second that is far enough away for all to have been started.
    second = int(time.time() + (time.time() - began) * count / 200 * 2 + 10)

    def start(number: int) -> None:
        orchestrator.start(NAP, {"until": second + number / count}, transaction_id=f"nap-{number}")

    try:
        for _ in range(sweepers):
            deployment.start_worker()
        for worker in deployment.workers:
            worker.ready()
        start_all(orchestrator, count, start)
        assert (
            time.time() < second
        ), "the machine is too slow for this test: not all were started before the first was due"
        wait_until(lambda: orchestrator.count(NAP, "completed") == count + 200, 300, "the end of all")
    finally:
        for worker in deployment.workers:
            worker.kill()

    late = []
    for number in range(count):
        results = [e for e in orchestrator.store.history(f"nap-{number}") if isinstance(e, ResultEvent)]
        assert len(results) == 1
        late.append(results[0].at.timestamp() - second - number / count)
    late.sort()
    print(
        f"\n    {count:,} timers, {sweepers} sweeps: half of them at most {late[count // 2]:.1f} s late, "
        f"the last {late[-1]:.1f} s"
    )
    assert late[0] >= -0.001, "the store keeps milliseconds"
    assert orchestrator.store.visibility.unattended() == []


# --- a long run -----------------------------------------------------------------------------------------------------


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_run_of_60_000_steps_goes_forward_at_the_same_pace_and_back_again(redis_url: str) -> None:
    count, undone = 60_000, (0, 1, 30_000, 59_997, 59_998)
    before = peak_mb()
    builder = WorkflowBuilder("long")
    for number in range(count - 1):
        builder.add_step(f"s{number}", "play", compensation="play" if number in undone else None)
    built = seconds(lambda: builder.add_step("last", "play").build())
    definition = builder.build()
    hands = WorkerByHand(redis_url)
    run = hands.orchestrator.start(definition, {})
    order: list[str] = []

    def work() -> None:
        while (message := hands.message()) is not None:
            attempt = message.attempt
            claim = hands.claim(attempt, definition.content_hash, "me")
            hands.settle(came_to(claim, fails=attempt.step == "last"), claim)
            if attempt.direction == "undo":
                order.append(attempt.step)
            elif attempt.step in ("s5000", f"s{count - 10_001}", "s10000", f"s{count - 5_001}"):
                marks.append(time.perf_counter())

    marks: list[float] = []
    forward = seconds(work)
    with hands.sweeping(1):
        wait_until(lambda: work() or run.status.is_end, 60, "its end")

    first, last = marks[1] - marks[0], marks[3] - marks[2]
    print(f"\n    built in {built:.1f} s; all in {forward:.0f} s, {count / forward:.0f} steps a second")
    print(
        f"    5,000 steps at the beginning {first:.1f} s, at the end {last:.1f} s; "
        f"peak memory {before:.0f} -> {peak_mb():.0f} MB"
    )
    assert run.status == "compensated"
    assert order == [f"s{number}" for number in reversed(undone)]
    assert last < 2 * first + 1, "a step costs more the longer the run is"
    assert peak_mb() - before < 600
    assert len(definition.ancestors("last")) == count - 1
    assert hands.store.load(run.transaction_id).in_flight == {}
