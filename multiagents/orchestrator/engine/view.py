"""A run as a decision sees it: from a claim, from a snapshot, or before its start.

They differ in how much of the run is in hand. A *claim* brings the step that was run and its context: enough to say
what follows from its success; it is refused by the store if the run has gone another way meanwhile (its *epoch*). A
*snapshot* is the whole run, and what is decided from it is refused if anything else was committed (its *version*).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from multiagents.state_store.payloads import Payloads
from multiagents.state_store.records import Claim, InFlight, Snapshot
from multiagents.workflow.decider import all_results, merge
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState

__all__ = ["ClaimView", "RunView", "SnapshotView", "StartView"]

_NOTHING: Mapping[str, Any] = {}


class RunView(Protocol):
    """What deciding needs of a run.

    Attributes:
        definition: what it follows, expanded as it is.
        state: the run, or a projection of it.
        generation: which of the runs that had its id it is.
        whole: all of the run is known.
        expands: the maps that are due are expanded from it.
        in_flight: the attempts that are known to be out.
    """

    @property
    def definition(self) -> Definition: ...  # noqa: D102 - above
    @property
    def state(self) -> RunState: ...  # noqa: D102 - above
    @property
    def generation(self) -> int: ...  # noqa: D102 - above
    @property
    def whole(self) -> bool: ...  # noqa: D102 - above
    @property
    def expands(self) -> bool: ...  # noqa: D102 - above
    @property
    def in_flight(self) -> Mapping[str, InFlight]: ...  # noqa: D102 - above

    def context(self, definition: Definition, step: str, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The context of a step, with results that are not stored yet."""

    def results(self) -> Mapping[str, Any]:
        """Step -> result, of steps that had finished before; where not all are known, those that are not folded in."""

    def payloads(self) -> Payloads:
        """All data of the run; loaded when it is first asked for."""


class Once:
    """Load a run's data once, and only if somebody asks."""

    def __init__(self, load: Callable[[], Payloads]) -> None:
        self._load = load
        self._loaded: Payloads | None = None

    def __call__(self) -> Payloads:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded


class ClaimView:
    """A run as the claim of an attempt shows it.

    Args:
        claim: the attempt.
        load: loads all data of the run; called only if an undo is parked.
    """

    __slots__ = ("claim", "definition", "payloads", "state")
    whole = expands = False
    in_flight = _NOTHING

    def __init__(self, claim: Claim, load: Callable[[], Payloads]) -> None:
        self.claim = claim
        self.definition = claim.definition
        self.state = claim.state
        self.payloads = load

    @property
    def generation(self) -> int:
        """Which of the runs that had its id it is."""
        return self.claim.generation

    def context(self, definition: Definition, step: str, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The context of a step that follows the claimed one."""
        return merge(definition, dict(self.claim.merged), fresh, definition.ancestors(step))

    def results(self) -> Mapping[str, Any]:
        """The results that the context of the claimed step was merged from, beside the stored one."""
        return self.claim.parts


class SnapshotView:
    """A whole run, as it was loaded.

    Args:
        snapshot: the run.
        load: loads its data; called when it is first asked for.
    """

    __slots__ = ("definition", "in_flight", "payloads", "snapshot", "state")
    whole = expands = True

    def __init__(self, snapshot: Snapshot, load: Callable[[], Payloads]) -> None:
        self.snapshot = snapshot
        self.definition = snapshot.definition
        self.state = snapshot.state
        self.in_flight = snapshot.in_flight
        self.payloads = Once(load)

    @property
    def generation(self) -> int:
        """Which of the runs that had its id it is."""
        return self.snapshot.generation

    def context(self, definition: Definition, step: str, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The context of any step."""
        known = self.payloads()
        return Payloads(known.input, known.context, {**known.results, **fresh}, known.inputs).of(definition, step)

    def results(self) -> Mapping[str, Any]:
        """The results of all steps that have one."""
        return all_results(self.definition, self.state, self.payloads().results)


class StartView:
    """A run that is about to be started.

    Args:
        definition: what it is to follow.
        state: the run when nothing is known of it.
        input: what it is started with.
        taken_over: step -> result, of a fork: what it takes over. None: it is none, and whoever starts it, who may be
            no worker, leaves maps to others.
    """

    __slots__ = ("_input", "_results", "definition", "expands", "state")
    whole = True
    in_flight = _NOTHING
    generation = 1

    def __init__(
        self,
        definition: Definition,
        state: RunState,
        input: Mapping[str, Any],
        taken_over: Mapping[str, Any] | None = None,
    ) -> None:
        self.definition = definition
        self.state = state
        self.expands = taken_over is not None
        self._input = input
        self._results = taken_over or _NOTHING

    def context(self, definition: Definition, step: str, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The context of a step that is due at once."""
        return merge(definition, dict(self._input), {**self._results, **fresh}, definition.ancestors(step))

    def results(self) -> Mapping[str, Any]:
        """The results that a fork takes over."""
        return self._results

    def payloads(self) -> Payloads:
        """The data of the run so far."""
        return Payloads(dict(self._input), {}, dict(self._results), {})
