"""The app of the fault suite: sagas that write down every effect, and ways to go wrong at a chosen moment.

What a step is to do is in the run's input, under ``do:<step>`` and ``undo:<step>``; see `act`. Effects and gates are
files, because the fault may be in Redis.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery, current_task

from multiagents import RetryPolicy, Step, TerminalError, WorkflowBuilder, current_step, init_app, worker
from multiagents.orchestrator.engine import Engine
from multiagents.orchestrator.recovery import Sweep
from multiagents.testing import wait_until

#: Where the ledger and the gates are.
PREFETCH = "FAULTS_PREFETCH"
FOLDER = "FAULTS_FOLDER"
#: Where a process is to be killed once: ``before_link`` or ``sweeping``.
DIE = "FAULTS_DIE"


class Ledger:
    """Every effect of every attempt, one line each; a line is one write, so that a kill cannot tear it."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "effects.jsonl"

    def note(self, **row: Any) -> None:
        """Add a line, with the time of the machine's monotonic clock, which all processes share."""
        line = json.dumps({**row, "pid": os.getpid(), "at": time.monotonic()}) + "\n"
        file = os.open(self.path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def rows(self, **wanted: Any) -> list[dict[str, Any]]:
        """The lines that have these values, oldest first."""
        if not self.path.exists():
            return []
        text = self.path.read_text()
        rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # the last may be half written
        return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]

    def open(self, gate: str) -> None:
        """Let those go on who wait at a gate."""
        (self.folder / f"gate-{gate}").touch()

    def pass_through(self, gate: str) -> None:
        """Wait at a gate."""
        path = self.folder / f"gate-{gate}"
        wait_until(path.exists, 900, f"gate {gate}")

    def once(self, what: str) -> bool:
        """True for the first process that asks."""
        try:
            (self.folder / f"once-{what}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def act(context: dict[str, Any]) -> dict[str, Any]:
    """Do what the run's input says for this step and direction, and write the effect down.

    ``gate``: wait at it first. ``sleep``: seconds. ``fail``: true fails for good; a number fails that many attempts.
    ``die``: ``child`` or ``worker`` is killed right after the effect. ``first``: all that on the first n attempts only.
    What is under ``do:<step>:<attempt>`` is for that attempt.
    """
    step = current_step()
    ledger = Ledger(os.environ[FOLDER])
    place = f"{step.direction}:{step.step}"
    orders = dict(step.input.get(f"{place}:{step.attempt}", step.input.get(place, {})))
    if step.attempt > orders.get("first", step.attempt):
        orders = {}
    seen = {
        "run": step.transaction_id,
        "key": step.idempotency_key,
        "step": step.step,
        "direction": str(step.direction),
        "attempt": step.attempt,
        "node": current_task.request.hostname,
        "parent": current_task.request.parent_id,
        "wall": time.time(),
    }
    ledger.note(event="began", **seen)
    if "gate" in orders:
        ledger.pass_through(orders["gate"])
    time.sleep(orders.get("sleep", 0))
    if orders.get("fail") is True:
        raise TerminalError(f"{step.step} was told to fail")
    if step.attempt <= orders.get("fail", 0):
        raise ConnectionError(f"{step.step} was told to fail attempt {step.attempt}")
    ledger.note(event="took", **seen)
    if orders.get("die") == "child":
        os.kill(os.getpid(), signal.SIGKILL)
    if orders.get("die") == "worker":
        os.killpg(os.getpgrp(), signal.SIGKILL)
    return {f"{step.step}.{step.direction}": step.attempt}


RETRY = RetryPolicy(max_attempts=3, initial_interval=0.05, jitter=False)


@worker("faults.do", retry=RETRY)
def do(context: dict[str, Any]) -> dict[str, Any]:
    return act(context)


@worker("faults.undo")
def undo(context: dict[str, Any]) -> dict[str, Any]:
    return act(context)


def _step(name: str, *, undone: bool = True) -> Step:
    return Step(name, "faults.do", compensation="faults.undo" if undone else None)


#: A sequence, a parallel block with a sequence in it, a join, and a last step without a compensation.
SAGA = (
    WorkflowBuilder("faults-saga")
    .add_step("reserve", "faults.do", compensation="faults.undo")
    .add_parallel("risk", [_step("fraud"), [_step("credit"), _step("limit", undone=False)]])
    .add_step("charge", "faults.do", compensation="faults.undo")
    .add_step("ship", "faults.do")
    .build()
)
#: Undone one after the other, each by the link of the one before.
LINE = (
    WorkflowBuilder("faults-line")
    .add_step("reserve", "faults.do", compensation="faults.undo")
    .add_step("charge", "faults.do", compensation="faults.undo")
    .add_step("pack", "faults.do", compensation="faults.undo")
    .add_step("ship", "faults.do")
    .build()
)
ONE = WorkflowBuilder("faults-one").add_step("only", "faults.do", compensation="faults.undo").build()
#: A step, and a run of its own behind it.
PARENT = WorkflowBuilder("faults-parent").add_step("reserve", "faults.do").add_child("one", ONE).build()


def make_app(broker: str | None = None, settings: dict[str, Any] | None = None) -> Celery:
    """An app on this broker; settings beside those of the environment."""
    made = Celery("faults", broker=broker, set_as_current=broker is None)
    made.conf.update(
        worker_prefetch_multiplier=int(os.environ.get(PREFETCH, "4")),
        broker_connection_retry_on_startup=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    init_app(made, settings)
    return made


def _arm() -> None:
    """Put the fault that the environment asks for where it belongs."""
    where = os.environ.get(DIE)
    if where == "before_link":
        settle = Engine.settle

        def dies_before_its_link(self: Engine, event: Any, claim: Any, **options: Any) -> Any:
            settled = settle(self, event, claim, **options)
            if settled.links and Ledger(os.environ[FOLDER]).once("before_link"):
                os.kill(os.getpid(), signal.SIGKILL)
            return settled

        Engine.settle = dies_before_its_link  # type: ignore[method-assign]
    elif where == "sweeping":
        handle = Sweep._handle

        def dies_with_the_entry_leased(self: Sweep, entry: Any) -> None:
            ledger = Ledger(os.environ[FOLDER])
            if ledger.once("sweeping"):
                ledger.note(event="died sweeping", member=entry.member)
                os.killpg(os.getpgrp(), signal.SIGKILL)
            handle(self, entry)

        Sweep._handle = dies_with_the_entry_leased  # type: ignore[method-assign]


if FOLDER in os.environ:
    app = make_app()
    _arm()
