"""What has no owner is found and moved on, by a thread in every worker. Begin with `sweep.Sweep`.

`maintenance` is the thread: the sweep, the `intake` of foreign results, the worker's own announcements.
"""

from __future__ import annotations

from multiagents.orchestrator.recovery.intake import GROUP
from multiagents.orchestrator.recovery.maintenance import Upkeep
from multiagents.orchestrator.recovery.sweep import Sweep

__all__ = ["GROUP", "Sweep", "Upkeep"]
