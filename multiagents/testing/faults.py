"""Kill a process at a write of the engine, or let the write's answer get lost: once, and where a test says.

The processes under test install the injector when their app is imported::

    from multiagents.testing import faults
    faults.install()                      # does nothing unless MULTIAGENTS_TEST_FAULTS names a folder

The test arms it, also in workers that run already::

    plan = FaultPlan(tmp_path)
    start_worker("shop", env=plan.env)
    plan.arm(WriteSite.SETTLE, "kill_after")
    ...
    plan.wait_until_fired()

A fault happens once in all processes that share the plan: it is claimed by making a file, which only one can do. So
what the engine does after the crash is not hit again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from multiagents import failpoints
from multiagents.exceptions import EventBusError, StateStoreError
from multiagents.failpoints import WriteSite
from multiagents.testing.worker_process import wait_until

__all__ = ["FAULTS_VARIABLE", "Fault", "FaultPlan", "install"]

#: Names the folder of the plan that the processes under test follow.
FAULTS_VARIABLE = "MULTIAGENTS_TEST_FAULTS"

_ARMED = "armed"


class Fault(StrEnum):
    """What happens at a write."""

    #: the process is killed and the write is not made
    KILL_BEFORE = "kill_before"
    #: the write is made and the process is killed before it hears of it
    KILL_AFTER = "kill_after"
    #: the write is made and reported as failed
    FAIL_AFTER = "fail_after"
    #: the write is made twice, as by a client that got no answer to the first
    TWICE = "twice"


class FaultPlan:
    """Which fault is to happen next, and what has happened; kept in a folder that the processes under test share.

    Args:
        folder: an empty one.

    Attributes:
        env: what the environment of the processes needs.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.env = {FAULTS_VARIABLE: str(self.folder)}

    def arm(self, site: WriteSite, fault: Fault | str, nth: int = 1) -> None:
        """Let a fault happen at the n-th write from now on that is made at a site.

        Where a process is killed that leads its process group (the main process of a worker), its children die with it:
        so ends a machine. A pool's child dies alone. A look for work that found none counts only for ``kill_before``.
        """
        self.disarm()
        text = f"{site}:{nth}:{Fault(fault)}"
        # Renamed into place, so that nobody reads half of it.
        draft = self.folder / "draft"
        draft.write_text(text)
        draft.rename(self.folder / _ARMED)

    def disarm(self) -> None:
        """Let nothing happen any more."""
        for name in (_ARMED, *(path.name for path in self.folder.glob("count.*")), "fired"):
            (self.folder / name).unlink(missing_ok=True)

    @property
    def fired(self) -> bool:
        """Whether the armed fault has happened."""
        return (self.folder / "fired").exists()

    def wait_until_fired(self, timeout: float = 10.0) -> None:
        """Wait for the armed fault.

        Raises:
            TimeoutError: when it has not happened in time.
        """
        armed = (self.folder / _ARMED).read_text() if (self.folder / _ARMED).exists() else "no fault"
        wait_until(lambda: self.fired, timeout, f"the fault {armed}")

    def seen(self) -> set[WriteSite]:
        """The sites at which any process has written since the plan was made."""
        return {WriteSite(path.name.removeprefix("seen.")) for path in self.folder.glob("seen.*")}


def install(environ: Mapping[str, str] = os.environ) -> bool:
    """Put the injector around the writes of this process and its children, if the environment names a plan."""
    folder = environ.get(FAULTS_VARIABLE)
    if folder:
        failpoints.injector = _Injector(Path(folder))
    return bool(folder)


class _Injector:
    """Stands around every write of a process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[WriteSite] = set()

    def __call__(self, site: WriteSite, action: Callable[[], Any]) -> Any:
        if site not in self._seen:
            self._seen.add(site)
            self._make(f"seen.{site}")
        wanted = self._armed(site)
        if wanted is None:
            return action()
        nth, fault = wanted
        if fault is Fault.KILL_BEFORE:
            if self._is_the(nth):
                _die()
            return action()
        answer = action()
        if _was_idle(site, answer) or not self._is_the(nth):
            return answer
        if fault is Fault.KILL_AFTER:
            _die()
        if fault is Fault.FAIL_AFTER:
            raise _error_of(site)
        return action()

    def _armed(self, site: WriteSite) -> tuple[int, Fault] | None:
        try:
            where, nth, fault = (self._folder / _ARMED).read_text().split(":")
        except FileNotFoundError:
            return None
        if where != site or (self._folder / "fired").exists():
            return None
        return int(nth), Fault(fault)

    def _is_the(self, nth: int) -> bool:
        """Count a write; whether it is the one that the fault waits for."""
        number = 1
        while number <= nth and not self._make(f"count.{number}"):
            number += 1
        return number == nth and self._make("fired")

    def _make(self, name: str) -> bool:
        """Make a file; only one process can."""
        try:
            os.close(os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True


def _was_idle(site: WriteSite, answer: Any) -> bool:
    """Whether a look for work found none, and so wrote nothing that matters."""
    match site:
        case WriteSite.TAKE_DUE:
            return len(answer) <= 2
        case WriteSite.BUS_READ:
            return not answer
        case WriteSite.BUS_TAKE_OVER:
            return not answer[1]
        case _:
            return False


def _die() -> NoReturn:
    if os.getpid() == os.getpgrp():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable: nobody survives SIGKILL")


def _error_of(site: WriteSite) -> Exception:
    """What the caller of a write gets when its answer is lost."""
    message = f"the answer to {site} was lost on purpose"
    match site.partition(".")[0]:
        case "store":
            return StateStoreError(message)
        case "bus":
            return EventBusError(message)
        case _:
            return ConnectionError(message)
