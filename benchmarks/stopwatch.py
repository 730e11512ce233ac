"""Take the time inside a task: eight bytes of the machine-wide monotonic clock, appended to a file.

An append of eight bytes is atomic and costs a few microseconds, so neither side's figures hold the price of being
measured, and the server under test never hears of it. The size of the file is the number of marks.
"""

from __future__ import annotations

import os
import time
from array import array
from functools import cache
from pathlib import Path

from benchmarks.conditions import MARKS

_BYTES = 8


@cache
def _descriptor(_pid: int) -> int:
    return os.open(os.environ[MARKS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def mark() -> None:
    """Append the current time."""
    os.write(_descriptor(os.getpid()), array("q", [time.monotonic_ns()]).tobytes())


class Marks:
    """Read the marks that the tasks leave."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def clear(self) -> None:
        """Forget all marks."""
        os.ftruncate(self._file, 0)

    def wait_for(self, count: int, *, timeout: float, every: float = 0.002) -> list[float]:
        """Wait until there are as many marks and return them, oldest first.

        Args:
            count: how many.
            timeout: how long to wait, in seconds.
            every: how long to sleep between two looks, in seconds; marks carry their own time, so this changes no
                figure but the client's CPU.

        Returns:
            Times in seconds of `time.monotonic`.

        Raises:
            TimeoutError: when fewer came in time.
        """
        deadline = time.monotonic() + timeout
        while (found := os.fstat(self._file).st_size // _BYTES) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{found} of {count} runs had ended after {timeout:.0f} s; see the worker's log")
            time.sleep(every)
        return sorted(nanoseconds / 1e9 for nanoseconds in array("q", os.pread(self._file, found * _BYTES, 0)))
