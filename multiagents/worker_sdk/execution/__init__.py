"""How a function is run in each pool: time limits, one event loop a process, real threads. Begin with `timeouts`.

Nothing here knows of steps or runs. The modules are used by their names: `timeouts.call`, `event_loop.run`,
`threads.new_lock`.
"""

from __future__ import annotations

from multiagents.worker_sdk.execution import event_loop, threads, timeouts

__all__ = ["event_loop", "threads", "timeouts"]
