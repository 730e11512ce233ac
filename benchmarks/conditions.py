"""Fix the conditions that both sides share: Celery settings, worker flags, server settings, sizes of the work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

#: Environment variable with the URL of the server that a worker or client talks to.
REDIS_URL = "MULTIAGENTS_BENCH_REDIS_URL"
#: Environment variable with the path of the stopwatch file.
MARKS = "MULTIAGENTS_BENCH_MARKS"

#: Processes in the worker's pool.
CONCURRENCY = 2
#: Steps that wait for each other in workload W3.
LONG = 200
#: Members of the fan-out in workload W2.
WIDE = 100

#: What ``celery worker`` is started with, on both sides.
WORKER_FLAGS = ("--pool=prefork", f"--concurrency={CONCURRENCY}", "--loglevel=WARNING")

#: A server as one would run it, but for the rewrite of the AOF: it would fall on one side by chance.
SERVER_SETTINGS: dict[str, str] = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "auto-aof-rewrite-percentage": "0",
    "save": "",
    "maxmemory-policy": "noeviction",
}


def celery_settings() -> dict[str, Any]:
    """Return the Celery settings of both sides: late acks, four messages in hand, results in Redis, events off."""
    url = os.environ[REDIS_URL]
    return {
        "broker_url": url,
        "result_backend": url,
        "task_acks_late": True,
        "worker_prefetch_multiplier": 4 // CONCURRENCY,
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
    }


@dataclass(frozen=True)
class Sizes:
    """How much work a round holds."""

    #: how often everything is repeated
    rounds: int = 3
    #: runs of three steps started at once (W1)
    runs: int = 1000
    #: runs of three steps, one at a time (latency)
    singles: int = 300
    #: fan-outs, one at a time (W2)
    fans: int = 20
    #: fan-outs at once (W2)
    fans_at_once: int = 20
    #: runs of 200 steps, one at a time (W3)
    longs: int = 5
    #: runs of 200 local steps, at once (W4)
    locals: int = 20
    #: bare tasks, for orientation
    raws: int = 3000
    #: seconds over which an idle worker is watched
    idle: float = 20.0
    #: fresh interpreters for each side of the import time
    imports: int = 9
    #: calls of an agent's model, one after the other
    calls: int = 400
    #: seconds after which one workload counts as stuck
    patience: float = 60.0
    #: seconds after which no new workload is begun
    limit: float = 13 * 60.0


#: About five minutes, never more than fifteen.
FULL = Sizes()
#: One small round, to see that everything works: not for figures.
QUICK = Sizes(
    rounds=1,
    runs=200,
    singles=60,
    fans=5,
    fans_at_once=10,
    longs=2,
    locals=5,
    raws=500,
    idle=5.0,
    imports=3,
    calls=80,
    patience=20.0,
    limit=65.0,
)
