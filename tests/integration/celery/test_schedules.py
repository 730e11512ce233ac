"""Schedules with real beats and a real worker."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from celery import Celery

from multiagents import Run, init_app
from multiagents.testing import GroupProcess, WorkerProcess, wait_until
from tests.support import ROOT


def test_two_beats_start_one_run_for_every_tick(new_redis_url: Callable[[], str], tmp_path: Path) -> None:
    url = new_redis_url()
    env = {"CELERY_BROKER_URL": url}
    orchestrator = init_app(Celery("schedules", broker=url, set_as_current=False))
    beat = [sys.executable, "-m", "celery", "-A", "tests.support.apps.every_second", "beat", "-l", "info"]

    def started() -> list[Run]:
        found = orchestrator.list(attributes={"schedule": "often"}).runs
        return found if len(found) >= 4 else []

    with ExitStack() as stack:
        logs = [tmp_path / f"beat{number}.log" for number in (1, 2)]
        for number, log in enumerate(logs):
            schedule = str(tmp_path / f"beat{number}")
            stack.enter_context(GroupProcess([*beat, "--schedule", schedule, "--pidfile", ""], log, ROOT, env))
        stack.enter_context(
            WorkerProcess("tests.support.apps.every_second", tmp_path / "worker.log", cwd=ROOT, env=env)
        )
        for log in logs:
            wait_until(lambda log=log: "Sending due task" in log.read_text(), 60, f"a tick in {log.name}")
        runs = wait_until(started, 60, "four runs")
        written = [run.result(30)["written"] for run in runs]
        ticks = [run.describe().attributes["tick"] for run in runs]

    assert written == [f"{tick:%H:%M:%S}" for tick in ticks]
    ticks.sort()
    assert ticks == [ticks[0] + timedelta(seconds=number) for number in range(len(ticks))]
