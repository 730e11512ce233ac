"""How a process of the pool came to its end, in words, as far as its parent can know."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

#: Where Linux mounts the control groups of version 2, those of version 1 that are about memory, and what each calls the
#: file in which it counts the processes of the group that were killed for want of memory, whoever had set the limit.
_GROUPS = ((Path("sys/fs/cgroup"), "memory.events"), (Path("sys/fs/cgroup/memory"), "memory.oom_control"))
#: Where it counts those of the whole machine.
_MACHINE = Path("proc/vmstat")
_STATUS = re.compile(r"(signal|exitcode) (-?\d+)")


class Deaths:
    """Puts the ends of processes into words; it remembers how many the kernel had killed for want of memory."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._known = self._killed_for_memory()

    def why(self, error: BaseException) -> str:
        """How a process ended, after "its process on worker ..."; empty where an error says nothing of one.

        Args:
            error: what Celery says of the task that the process ran.
        """
        kind = type(error).__name__
        if kind == "Terminated":
            return "was terminated"
        if kind != "WorkerLostError":
            return ""
        found = _STATUS.search(str(error))
        if found is None:
            return f"has ended: {error}"
        number = int(found[2])
        if found[1] == "exitcode" and number >= 0:
            return f"ended with exit code {number}"
        # What a signal handler of Celery's children exits with: the signal, less 256.
        number = abs(number) if abs(number) < 128 else 256 - abs(number)
        try:
            name = f"signal {number} ({signal.Signals(number).name})"
        except ValueError:
            name = f"signal {number}"
        return f"was ended by {name}{self._for_memory() if number == signal.SIGKILL else ''}"

    def _for_memory(self) -> str:
        before, self._known = self._known, self._killed_for_memory()
        if self._known <= before:
            return ""
        return ", as far as can be seen by the kernel for want of memory (OOM)"

    def _killed_for_memory(self) -> int:
        """How many were killed: of this control group, which may be a container, else of the machine."""
        for counter in (*self._of_my_group(), self._root / _MACHINE):
            try:
                lines = counter.read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        return 0

    def _of_my_group(self) -> Iterator[Path]:
        try:
            lines = (self._root / "proc/self/cgroup").read_text().splitlines()
        except OSError:
            return
        for number, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
            if number == "0" or "memory" in controllers.split(","):
                mount, file = _GROUPS[number != "0"]
                # In a container the path may be that on the machine, and the mount the group itself.
                yield self._root / mount / path.lstrip("/") / file
                yield self._root / mount / file
