"""One verb for many runs: cancel all of a customer's, delete all that ended before the summer.

A verb is a method of `Run` that takes ``reason`` and ``actor``. Each run is done by itself, as if its caller had called
the method: what goes wrong with one is told of that one, and the others are done. Every verb is safe to repeat, so
a call that broke off is made again, from its last cursor or from the beginning.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from multiagents.exceptions import MultiAgentsError, StateRefusedError, StateStoreError, WorkflowError, did_you_mean
from multiagents.orchestrator.api.run import Run
from multiagents.orchestrator.api.search import Filter
from multiagents.orchestrator.runtime import Runtime
from multiagents.workflow.state import RunStatus

#: How many runs are looked up at a time.
PAGE = 100
_LIVE = frozenset(status for status in RunStatus if not status.is_end)
#: In which statuses a verb does anything; one that is not listed is called in all.
DOES_IN: dict[str, frozenset[RunStatus]] = {
    "abandon": frozenset({RunStatus.COMPENSATING, RunStatus.PAUSED, RunStatus.COMPENSATION_FAILED}),
    "cancel": _LIVE,
    "compensate": frozenset({RunStatus.COMPLETED}),
    "delete": frozenset(RunStatus) - _LIVE,
    "pause": _LIVE,
    "resume": frozenset({RunStatus.PAUSED}),
    "terminate": _LIVE,
    "update_deadline": frozenset({RunStatus.RUNNING, RunStatus.PAUSED}),
    "update_timer": _LIVE,
}


@dataclass(frozen=True)
class BulkResult:
    """What became of the runs that a bulk verb was for.

    Attributes:
        verb: what was done.
        dry_run: whether nothing was done.
        outcomes: outcome -> the runs' ids. An outcome is the status that the run has then (``"compensating"``),
            ``"done"`` where the verb tells none, or the error's name; in a dry run ``"would_<verb>"``.
        errors: run's id -> what went wrong with it.
        cursor: give it to `Orchestrator.bulk` to go on; None when all were done.
    """

    verb: str
    dry_run: bool
    outcomes: Mapping[str, list[str]] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    cursor: str | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Outcome -> how many runs came to it."""
        return {outcome: len(names) for outcome, names in self.outcomes.items()}

    def __len__(self) -> int:
        return sum(self.counts.values())


def bulk(
    runtime: Runtime,
    verb: str,
    asked: Filter,
    *,
    dry_run: bool,
    limit: int,
    cursor: str | None,
    arguments: Mapping[str, Any],
) -> BulkResult:
    """Do a verb to all runs that are meant, page by page, until so many were done."""
    call = _verb(verb, arguments)
    if asked.is_empty:
        raise WorkflowError(
            f"bulk({verb!r}) was given no filter, and would be for every run there is; give workflow=, status=, since= "
            f"or attributes=; if all are meant, status=list(RunStatus)"
        )
    does_in = DOES_IN.get(verb)
    if does_in is not None:
        named = list(RunStatus) if asked.statuses is None else asked.statuses
        asked = asked._replace(statuses=[one for one in named if one in does_in])
    outcomes: dict[str, list[str]] = {}
    errors: dict[str, str] = {}
    while limit > 0 and asked.statuses != []:
        page = asked.page(runtime.store, min(PAGE, limit), cursor)
        for identity in page.transaction_ids:
            try:
                outcome = f"would_{verb}" if dry_run else _told(call(Run(runtime, identity)))
            except MultiAgentsError as error:
                outcome = type(error).__name__
                errors[identity] = str(error)
                refused = isinstance(error, StateRefusedError)
                if isinstance(error, StateStoreError) and not refused:  # the next would be the same: from here again
                    outcomes.setdefault(outcome, []).append(identity)
                    return BulkResult(verb, dry_run, outcomes, errors, cursor or "")
            outcomes.setdefault(outcome, []).append(identity)
        limit -= len(page.transaction_ids)
        cursor = page.cursor
        if cursor is None:
            break
    return BulkResult(verb, dry_run, outcomes, errors, cursor)


def verbs() -> list[str]:
    """The names of the methods of a run that can be done to many: not `Run.fork`, which makes a run each time."""
    return [
        name
        for name, method in inspect.getmembers(Run, inspect.isfunction)
        if not name.startswith("_")
        and name != "fork"
        and {"reason", "actor"} <= inspect.signature(method).parameters.keys()
    ]


def _verb(name: str, arguments: Mapping[str, Any]) -> Callable[[Run], Any]:
    known = verbs()
    if name not in known:
        raise WorkflowError(
            f"there is no bulk verb {name!r}{did_you_mean(str(name), known)} (verbs: {', '.join(known)})"
        )
    method = getattr(Run, name)
    try:
        inspect.signature(method).bind(None, **arguments)
    except TypeError as error:
        raise WorkflowError(
            f"bulk({name!r}) was given arguments={dict(arguments)!r:.80}, and {error}; expected what "
            f"run.{name}{inspect.signature(method)} takes"
        ) from None
    return lambda run: method(run, **arguments)


def _told(returned: Any) -> str:
    return returned.value if isinstance(returned, RunStatus) else "done"
