"""The names of calls of tools that are undone as steps are: ``plan.flight[2]`` is the third of ``flight`` there."""

from __future__ import annotations

__all__ = ["call_name", "maker_of"]


def call_name(step: str, tool: str, index: int) -> str:
    """What the call of a tool is called, as a step.

    >>> call_name("plan[3]", "flight", 0)
    'plan[3].flight[0]'
    """
    return f"{step}.{tool}[{index}]"


def maker_of(call: str) -> str:
    """The step that has made a call; a tool's name has no dots.

    >>> maker_of("plan[3].flight[0]")
    'plan[3]'
    """
    return call.rpartition(".")[0]
