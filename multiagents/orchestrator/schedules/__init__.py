"""When runs start by the clock. Begin with `base.Ticks`; `celery` is what beat is told.

What users hold is `multiagents.orchestrator.api.schedule.Schedule`, which starts a run for every tick.
"""

from __future__ import annotations

from multiagents.orchestrator.schedules.base import Ticks
from multiagents.orchestrator.schedules.celery import CeleryTicks

__all__ = ["CeleryTicks", "Ticks"]
