"""Results of steps that ran side by side, where they meet.

Results are merged in definition order, whatever finished first. When two of them bring the same key, the later one in
the definition counts in the context, and the history says so; each step's own result stays at ``results[step]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any

from multiagents.events import StatusEvent
from multiagents.workflow.definition import Definition

__all__ = ["MERGED", "merge_note", "overlaps"]

#: What a status event says where results with the same key met; it changes no state.
MERGED = "merged"


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
            result = results[step]
            for key in result if isinstance(result, Mapping) else (step,):
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
        id=f"{transaction_id}/{MERGED}" + (f"/{step}" if step else ""),
        transaction_id=transaction_id,
        timestamp=now,
        occurred_at=now,
        step=step,
        status=MERGED,
        reason=f"results with the same key were merged in definition order: {told}",
        payload={"overlaps": {key: list(names) for key, names in found.items()}},
    )
