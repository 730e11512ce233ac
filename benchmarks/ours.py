"""Do the work with multiagents in its default settings: the same no-op steps as definitions."""

from __future__ import annotations

from typing import Any

from celery import Celery

from benchmarks import stopwatch
from benchmarks.conditions import LONG, WIDE, celery_settings
from multiagents import Step, WorkflowBuilder, init_app, worker

app = Celery("ours")
app.conf.update(celery_settings())
orchestrator = init_app(app)


@worker("noop")
def noop(context: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - what a worker takes
    """Do nothing."""
    return {}


@worker("mark")
def mark(context: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - what a worker takes
    """Do nothing but take the time."""
    stopwatch.mark()
    return {}


def _long() -> Any:
    builder = WorkflowBuilder("long")
    for number in range(LONG):
        builder.add_step(f"step{number}", "mark")
    return builder.build()


def _local() -> Any:
    builder = WorkflowBuilder("local").add_step("step0", "noop")
    for number in range(1, LONG):
        builder.add_step(f"step{number}", "noop" if number < LONG - 1 else "mark", local=True)
    return builder.build()


_THREE = WorkflowBuilder("three").add_step("one", "noop").add_step("two", "noop").add_step("three", "mark").build()
_FAN_OUT = (
    WorkflowBuilder("fan_out")
    .add_parallel("fan", [Step(f"member{number}", "noop") for number in range(WIDE)])
    .add_step("join", "mark")
    .build()
)
_LONG = _long()
_LOCAL = _local()


def start_three() -> Any:
    """Start a run of three no-op steps; the last takes the time."""
    return orchestrator.start(_THREE, {})


def start_fan_out() -> Any:
    """Start a run with a hundred parallel no-op steps; the join takes the time."""
    return orchestrator.start(_FAN_OUT, {})


def start_long() -> Any:
    """Start a run of two hundred steps, each of which takes the time."""
    return orchestrator.start(_LONG, {})


def start_local() -> Any:
    """Start a run of two hundred steps, all of them local; the last takes the time."""
    return orchestrator.start(_LOCAL, {})


def wait(started: Any, timeout: float) -> None:
    """Wait for the end as a caller would: by the result API."""
    started.result(timeout=timeout)
