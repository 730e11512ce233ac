"""Do the work with plain Celery: chain, chord and raw tasks.

A canvas is built for each run: one sent twice would give both chains the same result id.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, chain, chord
from celery.result import AsyncResult

from benchmarks import stopwatch
from benchmarks.conditions import LONG, WIDE, celery_settings

app = Celery("plain")
app.conf.update(celery_settings())


@app.task(name="noop")
def noop(_context: Any) -> dict[str, Any]:
    """Do nothing."""
    return {}


@app.task(name="mark")
def mark(_context: Any) -> dict[str, Any]:
    """Do nothing but take the time."""
    stopwatch.mark()
    return {}


@app.task(name="raw", ignore_result=True)
def raw() -> None:
    """Take the time and keep no result: the least that a task can cost on Celery."""
    stopwatch.mark()


def start_three() -> AsyncResult[Any]:
    """Start a chain of three no-op tasks; the last takes the time."""
    return chain(noop.s({}), noop.s(), mark.s()).apply_async()


def start_fan_out() -> AsyncResult[Any]:
    """Start a chord of a hundred no-op tasks; its body takes the time."""
    return chord([noop.s({}) for _ in range(WIDE)], mark.s()).apply_async()


def start_long() -> AsyncResult[Any]:
    """Start a chain of two hundred tasks, each of which takes the time."""
    return chain(mark.s({}), *(mark.s() for _ in range(LONG - 1))).apply_async()


def start_local() -> AsyncResult[Any]:
    """Start a chain of two hundred tasks; the last takes the time."""
    return chain(noop.s({}), *(noop.s() for _ in range(LONG - 2)), mark.s()).apply_async()


def start_raw() -> AsyncResult[Any]:
    """Start one task that keeps no result."""
    return raw.apply_async()


def wait(started: AsyncResult[Any], timeout: float) -> None:
    """Wait for the end as a caller would: by the result API."""
    started.get(timeout=timeout)
