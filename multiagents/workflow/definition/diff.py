"""Two contents compared, in words: what a change of a workflow was."""

from __future__ import annotations

from typing import Any

from multiagents.workflow.definition.definition import Definition

__all__ = ["changes", "differences"]

#: How many differences, and names of steps, a sentence names.
MAX_CHANGES = 8


def differences(old: Definition, new: Definition) -> list[str]:
    """Say in words what sets two definitions apart; an empty list when nothing does.

    Steps that one of them lacks come first, then changed steps with their fields, then the options of the workflow.
    """
    before, after = old.to_dict(), new.to_dict()
    found = _named([name for name in new.steps if name not in old.steps], "added")
    found += _named([name for name in old.steps if name not in new.steps], "removed")
    kept = [name for name in old.steps if name in new.steps]
    for name in kept:
        changed = _changed(old.steps[name].to_dict(), new.steps[name].to_dict())
        if changed:
            found.append(f'step "{name}" changed in {", ".join(changed)}')
    if kept != [name for name in new.steps if name in old.steps]:
        found.append("steps are defined in another order")
    for part in (before, after):
        del part["steps"]
    # A block's branches follow from its steps, so a change of them has been named above, or is the block's alone.
    blocks = [part.pop("blocks", []) for part in (before, after)]
    if blocks[0] != blocks[1]:
        found.append("the parallel blocks differ")
    return found + [f"the workflow changed in {change}" for change in _changed(before, after)]


def changes(old: Definition, new: Definition) -> str:
    """What sets two definitions apart, as a part of a sentence; of many differences the first."""
    found = differences(old, new)
    more = len(found) - MAX_CHANGES
    return "; ".join(found[:MAX_CHANGES]) + (f"; and {more} more" if more > 0 else "")


def _named(names: list[str], what: str) -> list[str]:
    """One part of a sentence for all steps that only one of two definitions has."""
    if len(names) < 2:
        return [f'step "{name}" was {what}' for name in names]
    shown = ", ".join(f'"{name}"' for name in names[:MAX_CHANGES])
    more = f" and {len(names) - MAX_CHANGES} more" if len(names) > MAX_CHANGES else ""
    return [f"steps {shown}{more} were {what}"]


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    names = [*old, *(name for name in new if name not in old)]
    return [f"{name} ({old.get(name)!r} → {new.get(name)!r})" for name in names if old.get(name) != new.get(name)]
