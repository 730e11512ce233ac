"""How results make up a context, and what is told where results with the same key meet.

A step's context is the run's input with the results of all that came before it, the later ones last. Results are merged
in definition order, whatever finished first: when two steps that ran side by side bring the same key, the later one in
the definition counts in the context, and the history says so. Each step's own result stays at ``results[step]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any

from multiagents.events import StatusEvent
from multiagents.workflow.decider.facts import Fact
from multiagents.workflow.definition import Definition, map_of
from multiagents.workflow.state import RunState

__all__ = ["all_results", "as_given", "as_mapping", "merge", "merge_note", "overlaps"]


def all_results(definition: Definition, state: RunState, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Step -> result, of exactly those steps that have one, be it ``{}`` or None.

    Args:
        definition: what the run follows, expanded as it is.
        state: the run.
        stored: the results that are stored; one that is a step's `StepDefinition.silence` is not.
    """
    silent = {
        name: definition.own(name).silence
        for name, step in state.steps.items()
        if step.outcome == "succeeded" and name not in stored
    }
    return {**silent, **stored}


def as_mapping(step: str, result: Any, *, apart: bool = False) -> dict[str, Any]:
    """What a result adds to the context: itself if it is a dict, else itself under the step's name.

    Args:
        step: whose result it is.
        result: what it is; None adds nothing.
        apart: it lies under the step's name in any case: what comes from outside takes no other's place.
    """
    if result is None:
        return {}
    # A round of a loop, or an item of a map, answers under the name that all of them share.
    return result if isinstance(result, dict) and not apart else {(map_of(step) or step).partition("#")[0]: result}


def as_given(name: str, shared: Any) -> dict[str, Any]:
    """What the items of a map share: the answer of ``inputs``, under the map's name if it is no dict."""
    return shared if isinstance(shared, dict) else {name: shared}


def merge(
    definition: Definition, context: dict[str, Any], results: Mapping[str, Any], steps: Iterable[str]
) -> dict[str, Any]:
    """Merge the results of these steps of a definition into a context, in this order."""
    apart = definition.apart
    for step in steps:
        if step in results:
            context.update(as_mapping(step, results[step], apart=step in apart))
    return context


def overlaps(definition: Definition, steps: Iterable[str], results: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The keys that steps which ran side by side have both returned, and those steps; the last one counts.

    A step that changes what a step before it returned is no overlap: that is how a context is meant to grow.

    Args:
        definition: what the run follows.
        steps: the steps whose results are merged, in the order in which they are.
        results: step -> result.
    """
    holders: dict[str, list[str]] = {}
    for step in steps:
        if step in results:
            for key in as_mapping(step, results[step], apart=step in definition.apart):
                holders.setdefault(key, []).append(step)
    return {key: tuple(names) for key, names in holders.items() if len(names) > 1 and _side_by_side(definition, names)}


def _side_by_side(definition: Definition, names: list[str]) -> bool:
    # They come in an order that their dependencies allow; so when each leads to the next, none ran beside another.
    return any(not definition.graph.is_before(before, name) for before, name in pairwise(names))


def merge_note(
    definition: Definition,
    steps: Iterable[str],
    results: Mapping[str, Any],
    *,
    transaction_id: str,
    step: str | None,
    now: datetime,
) -> StatusEvent | None:
    """The fact that results with the same key were merged, or None when there were none.

    Args:
        definition: what the run follows.
        steps: the steps whose results are merged, in the order in which they are.
        results: step -> result.
        transaction_id: the run.
        step: where they meet; None for the end of the run.
        now: the time of the fact.
    """
    found = overlaps(definition, steps, results)
    if not found:
        return None
    told = "; ".join(f'"{key}" of {", ".join(names)}: that of {names[-1]} counts' for key, names in found.items())
    return StatusEvent(
        id=f"{transaction_id}/{Fact.MERGED}" + (f"/{step}" if step else ""),
        transaction_id=transaction_id,
        timestamp=now,
        occurred_at=now,
        step=step,
        status=Fact.MERGED,
        reason=f"results with the same key were merged in definition order: {told}",
        payload={"overlaps": {key: list(names) for key, names in found.items()}},
    )
