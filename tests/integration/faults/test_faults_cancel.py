"""Cancel at any moment: it races with every commit of a run, and the run ends one way or the other."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from multiagents.exceptions import WorkflowError
from multiagents.orchestrator import Run
from multiagents.testing.plugin import WorkerStarter
from multiagents.workflow.state import Cause, RunStatus
from tests.support.apps.fault_sagas import LINE, SAGA
from tests.support.fault_scene import Scene


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

    # How long the last ones took that were left alone: the machine may be busier than a moment ago.
    recent: deque[float] = deque(maxlen=8)

    def race(n: int) -> tuple[Run, RunStatus | None]:
        began = time.monotonic()
        run = scene.start(*kinds[n % len(kinds)], f"race-{n}")
        answer = None
        if n < 16 or n % 5 == 0:
            scene.ended([run])
            recent.append(time.monotonic() - began)
        else:
            time.sleep(chance.uniform(0, max(recent)))
            answer = run.cancel(reason="changed my mind")
            scene.ended([run])  # else the next ones wait behind it, and are all cancelled before they begin
        return run, answer

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(race, range(number)))
    runs = [run for run, _ in answers]
    ended = scene.ended(runs)

    for run, answer in answers:
        state = scene.store.load(run.transaction_id).state
        if answer is not None and answer.is_end:
            assert ended[run.transaction_id] == answer, "a run that has ended stays as it is"
        if state.cause is Cause.CANCEL:
            assert state.status is RunStatus.CANCELLED
        if state.status is RunStatus.COMPLETED:
            assert not state.cancel_requested, "a cancel that was taken in is obeyed"
    ends = Counter(ended[run.transaction_id] for run, answer in answers if answer is not None)
    assert 0 < ends["cancelled"] < sum(ends.values()), f"the race was none: {ends}"
    scene.audit(runs, "cancelled", "completed", "compensated")


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("orchestration", "number"), [("inline", 300), ("queued", 150)])
def test_S18_S20_S22_cancels_pauses_and_resumes_at_any_moment_leave_no_run_in_between(
    tmp_path: Path, redis_url: str, start_worker: WorkerStarter, orchestration: str, number: int
) -> None:
    scene = Scene(tmp_path, redis_url, start_worker, orchestration=orchestration)
    scene.worker()
    # Two of three go back by themselves, so that the verbs come while they do.
    kinds = (
        (SAGA, {}),
        (LINE, {"do:ship": {"fail": True}}),
        (SAGA, {"do:ship": {"fail": True}, "undo:credit": {"fail": 1}}),
    )

    def live(n: int) -> Run:
        chance = random.Random(n)
        run = scene.start(*kinds[n % len(kinds)], f"chaos-{n}")
        for _ in range(chance.randint(1, 8)):
            time.sleep(chance.uniform(0, 0.06))
            with suppress(WorkflowError):  # it is over, or nobody has paused it
                getattr(run, chance.choice(["cancel", "pause", "resume", "resume"]))(reason="chaos")
        while not run.status.is_end:
            with suppress(WorkflowError):
                run.resume(reason="the end of it")
            with suppress(TimeoutError):
                scene.ended([run], 1)
        return run

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(live, range(number)))

    too_late = 0
    for run in runs:
        said = [event.status for event in run.history() if event.type == "status" and event.step is None]
        turned = said.index("compensating") if "compensating" in said else len(said)
        cancels = [n for n, status in enumerate(said) if status == "cancel_requested"]
        if run.status == "cancelled":
            assert min(cancels) < turned
        elif cancels and turned < len(said):
            assert min(cancels) > turned, "a cancel that came before the failure is obeyed"
            too_late += 1
    undone = Counter((row["run"], row["step"]) for row in scene.ledger.rows(event="took", direction="undo"))
    assert set(undone.values()) == {1}
    assert too_late > number / 20, "hardly anybody has cancelled a run that was going back"
    ends = Counter(str(run.status) for run in runs)
    assert min(ends["cancelled"], ends["compensated"], ends["completed"]) > number / 30, f"there was no chaos: {ends}"
    scene.audit(runs, "cancelled", "completed", "compensated")
