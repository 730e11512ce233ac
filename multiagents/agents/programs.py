"""What an agent has learned, and which of it is asked with: versions, promotions, and the ways back.

A program is what DSPy's optimizers change of a worker: instructions and examples in its prompts. The store keeps its
versions and says which are in place; a worker process looks there at most once a second, so a promotion needs no
restart. The program of a step is drawn at its first attempt and pinned with its journal: a later attempt asks the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from multiagents.clock import from_ms
from multiagents.exceptions import ProgramNotFoundError, StateConflictError, WorkerError
from multiagents.state_store.records import BUILT_IN, Placement, ProgramChange, ProgramRecord

if TYPE_CHECKING:
    from multiagents.state_store import StateStore

#: Seconds for which a process remembers which programs of a worker are in place.
REMEMBERED = 1.0
#: How often a change is tried that others are faster than.
_TRIES = 10


class ProgramState(StrEnum):
    """Where a program stands."""

    #: it is asked with
    CURRENT = "current"
    #: a share of the steps is asked with it
    CANARY = "canary"
    #: it was current, and may come back
    FORMER = "former"
    #: it is kept, and was never whole in place, or was taken out
    KEPT = "kept"


@dataclass(frozen=True)
class ProgramEvent:
    """A change of what is in place.

    Attributes:
        action: ``promoted``, ``rolled back`` or ``withdrawn``.
        at: when, by the store's clock.
        share: of a promotion: of how many steps, between 0 and 1.
        actor: who; a run that has optimized says so itself.
        reason: why.
    """

    action: str
    at: datetime
    share: float | None = None
    actor: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Program:
    """A version of what a worker has learned.

    Attributes:
        version: its number, from 1.
        state: where it stands.
        share: of how many steps it is asked with now, between 0 and 1.
        created_at: when it was made, by the store's clock.
        optimized_by: the run that has made it.
        optimizer: how.
        scores: what it was measured to come to: ``candidate`` and ``current``, which was in place then.
        versions: what it was made with: ``dspy``, ``gepa``, ...
        events: what has become of it, oldest first; of the last 100 changes of its worker.
    """

    version: int
    state: ProgramState
    share: float
    created_at: datetime
    optimized_by: str | None = None
    optimizer: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    events: tuple[ProgramEvent, ...] = ()


# --- looking ---------------------------------------------------------------------------------------------------------

#: store -> worker -> what was in place, and when that was asked
_seen: WeakKeyDictionary[StateStore, dict[str, tuple[float, Placement]]] = WeakKeyDictionary()


def in_place(store: StateStore, worker: str) -> Placement:
    """Which programs of a worker are in place; asked once a second."""
    known = _seen.setdefault(store, {})
    now = time.monotonic()
    at, placement = known.get(worker, (None, None))
    if at is None or placement is None or now - at >= REMEMBERED:
        placement = store.programs.placement(worker)
        known[worker] = now, placement
    return placement


def programs(store: StateStore, worker: str) -> list[Program]:
    """The programs that are kept of a worker, oldest first."""
    placement = store.programs.placement(worker)
    changes = store.programs.changes(worker)
    return [_shown(record, placement, changes) for record in store.programs.records(worker)]


def _shown(record: ProgramRecord, placement: Placement, changes: list[ProgramChange]) -> Program:
    version, about = record.version, record.about
    state, share = ProgramState.KEPT, 0.0
    if version == placement.canary:
        state, share = ProgramState.CANARY, placement.share
    elif version == placement.current:
        state, share = ProgramState.CURRENT, 1 - placement.share
    elif version in placement.former:
        state = ProgramState.FORMER
    return Program(
        version,
        state,
        share,
        from_ms(record.made_ms),
        about.get("optimized_by"),
        about.get("optimizer"),
        about.get("scores", {}),
        about.get("versions", {}),
        tuple(_event(each) for each in changes if each.about.get("version") == version),
    )


def _event(change: ProgramChange) -> ProgramEvent:
    about = change.about
    return ProgramEvent(
        about.get("action", ""), from_ms(change.at_ms), about.get("share"), about.get("actor"), about.get("reason")
    )


# --- changing --------------------------------------------------------------------------------------------------------


def promote(
    store: StateStore,
    worker: str,
    version: int,
    share: float = 1.0,
    *,
    reason: str | None = None,
    actor: str | None = None,
) -> Placement:
    """Put a program in place, for all steps that begin from now on, or for a share of them.

    Raises:
        ProgramNotFoundError: when it is not kept.
        WorkerError: when the share is none.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise WorkerError(f"share must be a number above 0 and up to 1, got {share!r:.80}; 0.1 is a tenth of the steps")
    about = {"action": "promoted", "version": version, "share": float(share), "actor": actor, "reason": reason}
    return _changed(store, worker, lambda placed: placed.promoted(version, share), about, version)


def rollback(store: StateStore, worker: str, *, reason: str | None = None, actor: str | None = None) -> Placement:
    """Take back the last promotion: a canary, else the current program.

    Raises:
        WorkerError: when there was none.
    """
    placed = store.programs.placement(worker)
    if placed.back().is_as(placed):
        raise WorkerError(f'worker "{worker}" asks with the program that its code is; there is nothing to roll back')
    about = {"action": "rolled back", "version": placed.canary or placed.current, "actor": actor, "reason": reason}
    return _changed(store, worker, lambda now: now.back() if now.is_as(placed) else now, about)


def withdraw(
    store: StateStore, worker: str, version: int, *, reason: str | None = None, actor: str | None = None
) -> Placement:
    """Take one program out of place, wherever it is; one that is in no place changes nothing."""
    about = {"action": "withdrawn", "version": version, "actor": actor, "reason": reason}
    return _changed(store, worker, lambda placed: placed.without(version), about)


def _changed(
    store: StateStore,
    worker: str,
    change: Callable[[Placement], Placement],
    about: Mapping[str, Any],
    version: int = BUILT_IN,
) -> Placement:
    told = {name: value for name, value in about.items() if value is not None}
    for _ in range(_TRIES):
        placed = store.programs.placement(worker)
        wanted = change(placed)
        if wanted.is_as(placed) or store.programs.place(worker, wanted, told):
            _seen.get(store, {}).pop(worker, None)
            return wanted
        kept = [each.version for each in store.programs.records(worker)]
        if version != BUILT_IN and version not in kept:
            raise ProgramNotFoundError(worker, version, kept)
    raise StateConflictError(
        f'which programs of worker "{worker}" are in place was changed by others {_TRIES} times while this was tried; '
        f"look at programs(), and do it again"
    )
