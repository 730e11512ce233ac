"""Who may start runs and wait for them: a script, threads, asyncio, a forked process; not a task."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from multiagents import WorkflowBuilder, WorkflowFailedError
from tests.support import ROOT
from tests.support.scenario import Scenario

PAIR = WorkflowBuilder("pair").add_step("a", "play", compensation="undo").add_step("b", "play").build(register=False)

SCRIPT = """
import json, os, sys
from tests.support.apps import scripted
from multiagents import WorkflowBuilder

orchestrator = scripted.make_app(sys.argv[1], redis_url=sys.argv[2]).multiagents
pair = WorkflowBuilder("pair").add_step("a", "play", compensation="undo").add_step("b", "play").build()
"""


def run_script(rules: Scenario, body: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + body, rules.deployment.broker, rules.deployment.url, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_a_plain_script_starts_a_run_and_waits_for_its_result(rules: Scenario):
    told = run_script(
        rules,
        """
run = orchestrator.start("pair", {"order": 7}, transaction_id=sys.argv[3])
print(json.dumps([run.result(timeout=20), run.status]))
""",
        "from-a-script",
    )

    assert told == [{"order": 7}, "completed"]
    rules.runs["from-a-script"] = rules.orchestrator.get("from-a-script")


def test_a_script_may_fork_after_it_has_used_the_orchestrator(rules: Scenario):
    told = run_script(
        rules,
        """
first = orchestrator.start(pair, {"n": 1}).result(timeout=20)
read, write = os.pipe()
child = os.fork()
if not child:
    os.write(write, json.dumps(orchestrator.start(pair, {"n": 2}).result(timeout=20)).encode())
    os._exit(0)
third = orchestrator.start(pair, {"n": 3}).result(timeout=20)
os.waitpid(child, 0)
print(json.dumps([first, json.loads(os.read(read, 1000)), third]))
""",
    )

    assert told == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_threads_share_one_orchestrator(rules: Scenario):
    results: dict[int, Any] = {}

    def call(number: int) -> None:
        results[number] = rules.start(PAIR, {"n": number}).result(timeout=30)["n"]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == {number: number for number in range(12)}


def test_a_coroutine_awaits_runs_without_holding_up_the_loop(rules: Scenario):
    async def main() -> tuple[list[Any], int, str]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        held = rules.start(PAIR, a=["wait"])
        waiting = asyncio.create_task(held.wait(timeout=20))
        others = [rules.start(PAIR, {"n": number}) for number in range(3)] if rules.deployment.pool != "solo" else []
        done = [result["n"] for result in await asyncio.gather(*(run.wait(timeout=20) for run in others))]
        await asyncio.sleep(0.1)
        rules.open_gate(held, "a")
        await waiting
        bad = rules.start(PAIR, b=["terminal"])
        with pytest.raises(WorkflowFailedError) as failed:
            await bad.wait(timeout=20)
        ticking.cancel()
        return done, ticks, failed.value.status

    done, ticks, status = asyncio.run(main())

    assert done == ([] if rules.deployment.pool == "solo" else [0, 1, 2])
    assert ticks >= 5
    assert status == "compensated"


def test_result_says_when_the_time_is_over_and_the_run_goes_on(rules: Scenario):
    run = rules.start(PAIR, a=["wait"])
    rules.until_begun(run, "a")

    with pytest.raises(TimeoutError, match=r"is still running after 0.2 s; it goes on"):
        run.result(timeout=0.2)
    rules.open_gate(run, "a")

    assert run.result(timeout=20)["script"] == {"a": ["wait"]}


def test_result_tells_why_a_run_did_not_complete(rules: Scenario):
    run = rules.start(PAIR, b=["declined"] * 3)

    with pytest.raises(WorkflowFailedError) as failed:
        run.result(timeout=20)

    assert (failed.value.status, failed.value.transaction_id) == ("compensated", run.transaction_id)
    assert failed.value.steps == {"a": "compensated", "b": "failed"}
    assert "tests.support.apps.scripted.CardDeclined: the card was declined" in str(failed.value)


def test_waiting_for_a_run_inside_a_task_is_refused_as_celerys_get_is(rules: Scenario):
    waits = WorkflowBuilder("waits").add_step("a", "wait_for_other_run").build(register=False)
    other = rules.start(PAIR)
    rules.end(other)

    seen = rules.play(waits, {"other": other.transaction_id})

    if rules.deployment.pool == "gevent":
        # Celery lets tasks wait for each other here: a greenlet that waits holds up no other.
        assert seen.status == "completed"
        return
    assert (seen.status, seen.error.type) == ("failed", "RuntimeError")
    assert "add_child(...)" in seen.error.message
