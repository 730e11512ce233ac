"""What a workflow is written down with: steps, and what else may stand in the place of one.

Nothing is checked here: an element may name what is only written down later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

from multiagents.retry import RetryPolicy
from multiagents.workflow.definition.rate_limit import Limit
from multiagents.workflow.definition.step import StepKind

__all__ = [
    "Approval",
    "Child",
    "Choice",
    "Element",
    "Lock",
    "Loop",
    "Map",
    "Node",
    "Parallel",
    "Savepoint",
    "Sleep",
    "Step",
    "Wait",
]

_Code = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, slots=True, repr=False)
class Step:
    """Describe a step, for a branch of `WorkflowBuilder.add_parallel`; the arguments are those of ``add_step``.

    >>> Step("charge", "charge_card", compensation="refund_card")
    Step('charge', 'charge_card', compensation='refund_card')
    """

    name: str
    worker: Any = None
    _: KW_ONLY
    compensation: Any = None
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    inputs: _Code | Mapping[str, str] | None = None
    retry: RetryPolicy | None = None
    undo_retry: RetryPolicy | None = None
    timeout: float | None = None
    schedule_to_start: float | None = None
    schedule_to_close: float | None = None
    heartbeat_timeout: float | None = None
    cancel_safe: bool = False
    resolve_with: Any = None
    external: bool = False
    pivot: bool = False
    reread: Any = None
    on_unknown: str = "compensate"
    compensate_on_failure: bool = False
    no_compensation: str | None = None
    local: bool = False
    queue: str | None = None
    priority: int | None = None
    limit: Limit | None = None
    summary: str | None = None

    def __repr__(self) -> str:
        given = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        shown = [repr(self.name)] + ([repr(self.worker)] if self.worker is not None else [])
        shown += [f"{name}={value!r}" for name, (value, default) in list(given.items())[2:] if value != default]
        return f"Step({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a signal; the arguments are those of `WorkflowBuilder.add_wait`.

    >>> Wait("paid", signal="payment_received", timeout=86_400).kind
    <StepKind.WAIT: 'wait'>
    """

    name: str
    signal: str | None = None
    schema: Any = None
    timeout: float | None = None
    on_timeout: str = "fail"
    _: KW_ONLY
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.WAIT


@dataclass(frozen=True, slots=True)
class Approval:
    """Wait until a person says yes; the arguments are those of `WorkflowBuilder.add_approval`."""

    name: str
    timeout: float | None = None
    on_timeout: str = "reject"
    _: KW_ONLY
    signal: str | None = None
    schema: Any = None
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.APPROVAL


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let time pass; the arguments are those of `WorkflowBuilder.add_sleep`."""

    name: str
    seconds: float | _Code | None = None
    _: KW_ONLY
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.SLEEP


@dataclass(frozen=True, slots=True)
class Savepoint:
    """Go back to here when something behind fails; the arguments are those of `WorkflowBuilder.add_savepoint`."""

    name: str
    retries: int = 1
    _: KW_ONLY
    after: str | Sequence[str] | None = None
    summary: str | None = None

    kind = StepKind.SAVEPOINT


@dataclass(frozen=True, slots=True)
class Choice:
    """Run one of several branches; the arguments are those of `WorkflowBuilder.add_choice`."""

    name: str
    chooser: Callable[[dict[str, Any]], str] | None = None
    branches: Any = None
    default: str | None = None
    _: KW_ONLY
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.CHOICE


@dataclass(frozen=True, slots=True)
class Lock:
    """Have the lock on a business key; the arguments are those of `WorkflowBuilder.add_lock`.

    >>> Lock("stock", "stock:{sku}", timeout=60).kind
    <StepKind.LOCK: 'lock'>
    """

    name: str
    key: str | _Code | None = None
    _: KW_ONLY
    lease: float | None = None
    timeout: float | None = None
    on_timeout: str = "fail"
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.LOCK


@dataclass(frozen=True, slots=True)
class Child:
    """Run another workflow; the arguments are those of `WorkflowBuilder.add_child`."""

    name: str
    workflow: Any = None
    inputs: _Code | Mapping[str, str] | None = None
    compensation: Any = None
    detached: bool = False
    on_failure: str = "fail"
    _: KW_ONLY
    no_compensation: str | None = None
    undo_retry: RetryPolicy | None = None
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.CHILD


@dataclass(frozen=True, slots=True)
class Map:
    """Run the same for each item of a list; the arguments are those of `WorkflowBuilder.add_map`."""

    name: str
    worker: Any = None
    over: str | _Code = "items"
    max_concurrency: int | None = None
    compensation: Any = None
    compensate_each: bool = True
    _: KW_ONLY
    undo_retry: RetryPolicy | None = None
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.MAP


@dataclass(frozen=True, slots=True)
class Parallel:
    """Run branches side by side; the arguments are those of `WorkflowBuilder.add_parallel`."""

    name: str
    branches: Any
    on_failure: str = "wait"
    _: KW_ONLY
    after: str | Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Loop:
    """Run steps again and again, a bounded number of times; the arguments are those of `WorkflowBuilder.add_loop`."""

    name: str
    steps: Any
    until: Callable[[dict[str, Any]], bool]
    max_iterations: int
    on_exhausted: str = "continue"
    _: KW_ONLY
    after: str | Sequence[str] | None = None


#: What becomes a step though no worker does it itself.
Node = Wait | Approval | Sleep | Savepoint | Choice | Child | Map | Lock
Element = Step | Node | Parallel | Loop
