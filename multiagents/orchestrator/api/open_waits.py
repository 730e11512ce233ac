"""All that waits for somebody: for a signal, for an approval, for a person who settles it (`Orchestrator.waiting`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from multiagents.orchestrator.api.run import Run
from multiagents.orchestrator.api.search import Filter
from multiagents.orchestrator.api.waiting import Waiting, waiting_for, with_arguments
from multiagents.orchestrator.runtime import Runtime
from multiagents.state_store.records import Snapshot
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunStatus

__all__ = ["OpenWait", "open_waits"]

#: What somebody from outside has to do.
_KINDS = frozenset({"signal", "approval", "operator", "tool"})
#: The statuses in which a run may wait for somebody.
_WAITING = (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.COMPENSATING, RunStatus.COMPENSATION_FAILED)
#: How many runs are looked up at a time.
_PAGE = 100
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class OpenWait:
    """One step that waits for somebody.

    Attributes:
        run: the run, which may be a child; its verbs answer.
        workflow: its workflow's name.
        step: the step that waits.
        waiting: for what, and since when.
    """

    run: Run
    workflow: str
    step: str
    waiting: Waiting

    @property
    def kind(self) -> str:
        """``signal``, ``approval``, ``operator`` or ``tool``."""
        return self.waiting.kind

    @property
    def signal(self) -> str | None:
        """The signal that it waits for, by name; None where it waits for an operator, or for a call to be approved."""
        return None if self.kind in ("operator", "tool") else self.waiting.name

    @property
    def since(self) -> datetime | None:
        """Since when, if that is known."""
        return self.waiting.since

    def __str__(self) -> str:
        return f"{self.run.transaction_id} step {self.step} waits for {self.waiting}"


def open_waits(
    runtime: Runtime, workflow: Definition | str | None, signal: str | None, since: datetime | None, limit: int
) -> list[OpenWait]:
    """What waits for somebody, those that have waited longest first."""
    seen: set[str] = set()
    found: list[OpenWait] = []
    for page in _pages(runtime, workflow):
        for each in _of(runtime, page, seen):
            if signal not in (None, each.signal) or (since is not None and (each.since or _LONG_AGO) < since):
                continue
            found.append(each)
            if len(found) == limit:
                return sorted(found, key=_age)
    return sorted(found, key=_age)


def _age(each: OpenWait) -> datetime:
    return each.since or _LONG_AGO


def _pages(runtime: Runtime, workflow: Definition | str | None) -> Iterator[list[str]]:
    asked = Filter.of(workflow, _WAITING)
    cursor = None
    while True:
        page = asked.page(runtime.store, _PAGE, cursor)
        yield page.transaction_ids
        cursor = page.cursor
        if cursor is None:
            return


def _of(runtime: Runtime, identities: list[str], seen: set[str]) -> Iterator[OpenWait]:
    """What these runs wait for, then their children, then theirs: each generation is looked at in one go."""
    while identities := [each for each in dict.fromkeys(identities) if each not in seen]:
        seen.update(identities)
        children: list[str] = []
        for identity, snapshot in runtime.store.load_many(identities).items():
            for step, waiting in _waits(runtime, snapshot):
                if waiting.kind == "child" and waiting.id is not None:
                    children.append(waiting.id)
                elif waiting.kind in _KINDS:
                    yield OpenWait(Run(runtime, identity), snapshot.definition.name, step, waiting)
        identities = children


def _waits(runtime: Runtime, snapshot: Snapshot) -> Iterator[tuple[str, Any]]:
    found = waiting_for(snapshot, runtime.dispatcher)
    for step, waits in with_arguments(runtime.store, snapshot.state.transaction_id, found).items():
        for waiting in waits:
            yield step, waiting
