"""Cancel at any moment: it races with every commit of a run, and the run ends one way or the other."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from app_faults import LINE, SAGA
from faults_scene import Scene

from multiagents.orchestrator.run import Run
from multiagents.testing.plugin import WorkerStarter
from multiagents.workflow.state import Cause, RunStatus


@pytest.mark.parametrize(
    ("orchestration", "number"),
    [
        pytest.param("inline", 160),
        pytest.param("queued", 80),
        pytest.param("inline", 2000, marks=[pytest.mark.full, pytest.mark.timeout(600)]),
        pytest.param("queued", 2000, marks=[pytest.mark.full, pytest.mark.timeout(600)]),
    ],
)
def test_S20_a_cancel_that_races_with_every_commit_leaves_no_run_in_between(
    tmp_path: Path, redis_url: str, start_worker: WorkerStarter, orchestration: str, number: int
) -> None:
    scene = Scene(tmp_path, redis_url, start_worker, orchestration=orchestration)
    scene.worker()
    chance = random.Random(7)
    kinds = ((SAGA, {}), (LINE, {}), (SAGA, {"do:ship": {"fail": True}}), (SAGA, {"do:fraud": {"fail": 1}}))

    def left_alone(n: int) -> tuple[Run, float]:
        began = time.monotonic()
        run = scene.start(*kinds[n % len(kinds)], f"calm-{n}")
        scene.ended([run])
        return run, time.monotonic() - began

    def race(n: int) -> tuple[Run, RunStatus]:
        run = scene.start(*kinds[n % len(kinds)], f"race-{n}")
        time.sleep(chance.uniform(0, longest))
        answer = run.cancel(reason="changed my mind")
        scene.ended([run])  # else the next ones wait behind it, and are all cancelled before they begin
        return run, answer

    with ThreadPoolExecutor(4) as pool:
        calm = list(pool.map(left_alone, range(16)))
        longest = max(seconds for _, seconds in calm[4:])
        answers = list(pool.map(race, range(number)))
    runs = [run for run, _ in answers]
    ended = scene.ended(runs)

    for run, answer in answers:
        state = scene.store.load(run.transaction_id).state
        if answer.is_end:
            assert ended[run.transaction_id] == answer, "a run that has ended stays as it is"
        if state.cause is Cause.CANCEL:
            assert state.status is RunStatus.CANCELLED
        if state.status is RunStatus.COMPLETED:
            assert not state.cancel_requested, "a cancel that was taken in is obeyed"
    ends = Counter(ended.values())
    assert min(ends["cancelled"], ends["completed"], ends["compensated"]) > 0, f"the race was none: {ends}"
    scene.audit([*runs, *(run for run, _ in calm)], "cancelled", "completed", "compensated")
