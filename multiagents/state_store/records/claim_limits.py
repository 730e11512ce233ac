"""The limits that an attempt gets when it is claimed."""

from __future__ import annotations

from multiagents.names import Correlation, Direction
from multiagents.workflow.definition.definition import Definition


def limits_of(
    correlation: Correlation,
    definition: Definition,
    timeout: float | None,
    heartbeat_timeout: float | None,
    task: str = "",
) -> tuple[int, int]:
    """The time limit and the time between heartbeats that an attempt gets, in ms; 0 is none.

    What the step says goes before what its worker says; an undo has its own worker's, and so has a probe.
    """
    step = definition.own(correlation.step)
    if correlation.direction is Direction.DO and task != step.resolve_with:
        timeout = timeout if step.timeout is None else step.timeout
        heartbeat_timeout = heartbeat_timeout if step.heartbeat_timeout is None else step.heartbeat_timeout
    return round((timeout or 0) * 1000), round((heartbeat_timeout or 0) * 1000)
