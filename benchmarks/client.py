"""Start the work of one side, in a process of its own: ``python -m benchmarks.client plain``.

Reads one JSON order a line from standard input and answers each with one JSON line. A process of its own, so that
the client's CPU can be told from the harness's and the two sides share no Celery state.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.conditions import MARKS
from benchmarks.stopwatch import Marks

Start = Callable[[], Any]


def burst(start: Start, marks: Marks, *, count: int, timeout: float) -> dict[str, Any]:
    """Start ``count`` runs at once; return the seconds from the first start to the last end."""
    marks.clear()
    began = time.monotonic()
    for _ in range(count):
        start()
    return {"seconds": marks.wait_for(count, timeout=timeout)[-1] - began}


def series(
    start: Start, marks: Marks, *, count: int, timeout: float, each: int = 1, wait: Callable[[Any, float], None] | None
) -> dict[str, Any]:
    """Start ``count`` runs, each when the one before has ended.

    Args:
        start: starts a run.
        marks: what the run's tasks write to.
        count: how many runs.
        timeout: how long all of them together may take, in seconds.
        each: how many marks a run leaves.
        wait: the result API, to see the end as the caller does; None looks at the marks alone.

    Returns:
        For each run the times of its marks, and the time at which ``wait`` returned, in seconds from its start.
    """
    marked, observed = [], []
    deadline = time.monotonic() + timeout
    for _ in range(count):
        marks.clear()
        began = time.monotonic()
        started = start()
        if wait is not None:
            wait(started, max(deadline - began, 0.1))
            observed.append(time.monotonic() - began)
        marked.append([moment - began for moment in marks.wait_for(each, timeout=deadline - began, every=0.0005)])
    return {"marked": marked, "observed": observed}


def obey(side: Any, marks: Marks, order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order: ``{"do": "burst" | "series", "what": "three", "count": …, "timeout": …}``."""
    start: Start = getattr(side, f"start_{order['what']}")
    if order["do"] == "burst":
        return burst(start, marks, count=order["count"], timeout=order["timeout"])
    wait = side.wait if order.get("wait") else None
    return series(start, marks, count=order["count"], timeout=order["timeout"], each=order.get("each", 1), wait=wait)


def main() -> None:
    """Answer orders until standard input ends."""
    # What the side or Celery prints must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    side = importlib.import_module(f"benchmarks.{sys.argv[1]}")
    marks = Marks(Path(os.environ[MARKS]))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer = obey(side, marks, json.loads(line))
        except Exception as error:  # noqa: BLE001 - whatever went wrong belongs in the report
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
