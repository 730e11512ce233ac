"""How a workflow is written down, checked and compiled to a definition. Begin with `builder.WorkflowBuilder`.

`elements` is what people write; `layout` puts it in order, and `compiler` makes the steps of a `Definition` of it. What
is refused, and in which words, stands in `option_checks` and `saga_checks`. Nothing here is needed to run a workflow.
"""

from __future__ import annotations

from multiagents.workflow.builder.adopted import adopted
from multiagents.workflow.builder.builder import WorkflowBuilder
from multiagents.workflow.builder.elements import (
    Approval,
    Child,
    Choice,
    Lock,
    Loop,
    Map,
    Parallel,
    Savepoint,
    Sleep,
    Step,
    Wait,
)

__all__ = [
    "Approval",
    "Child",
    "Choice",
    "Lock",
    "Loop",
    "Map",
    "Parallel",
    "Savepoint",
    "Sleep",
    "Step",
    "Wait",
    "WorkflowBuilder",
    "adopted",
]
