"""What a workflow is written down with: steps, and what else may stand in the place of one.

Each of them is a method of `WorkflowBuilder`, too: ``add_step`` takes the arguments of `Step` and has its docstring. As
values they stand in the branches of blocks and choices, in loops and in maps. Nothing is checked here: an element may
name what is only written down later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal

from multiagents.clock import Duration, in_seconds
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder.workers import is_listing, worker_name
from multiagents.workflow.definition import Limit, StepKind

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


@dataclass(frozen=True, slots=True, repr=False)
class Step:
    """Run a worker, and another one to undo it. Without ``after`` the step follows the step or block added before it.

    Args:
        name: what the step is called in this workflow.
        worker: a worker's name, a decorated function or a Celery task; None is the step's own name.
        compensation: the worker that undoes the step, given likewise.
        after: the steps or blocks it waits for, also later ones; ``[]`` for none.
        when: called with the context; the step is skipped where it answers false.
        inputs: what the worker gets in place of the context: a mapping of argument to dotted path
            (``{"amount": "order.total"}``), or a callable that makes it from the context.
        retry: how failed attempts are retried; None leaves it to the worker.
        undo_retry: the same for the compensation; None is long and capped (rule S16).
        timeout: seconds an attempt may take, or a timedelta, as for every time limit; None is the setting
            ``multiagents_step_timeout``, 0 is no limit.
        schedule_to_start: seconds an attempt may wait until a worker takes it.
        schedule_to_close: seconds that all attempts may take together.
        heartbeat_timeout: seconds that may pass between two heartbeats of the worker.
        cancel_safe: the step may be undone while an attempt might still be running (rule S5).
        resolve_with: with ``on_unknown="resolve"``: the worker that finds out whether the step took effect, its probe;
            given like ``worker``. It is asked once the outcome is unknown for good, with the step's input, and answers
            with a `Resolution`. Where it cannot tell, or fails beyond its own retry policy, the step waits for a
            person.
        external: somebody else does the step and reports its result; it is never dispatched again.
        pivot: the point of no return: once the step has succeeded, nothing is undone any more, and what fails then
            waits for a person (rule S12). Of a pivot whose outcome is unknown a person decides, too (rule S13), after
            its probe if it has one.
        reread: of a pivot: a worker that looks once more, right before it, whether all is as the run takes it to be; a
            step of its own, ``<name>.reread``, with the pivot's ``when`` and ``inputs``. If it fails, the run goes
            back: the pivot has not been done yet (rule S29).
        on_unknown: what to do about an unknown outcome: ``compensate``, ``resolve`` it by asking ``resolve_with``, or
            ``park`` it for a person (rule S3).
        compensate_on_failure: undo the step also when it failed for certain.
        on_failure: what it means that the step has failed for good: the run goes back, or with ``park`` it is paused
            until a person retries, skips or supplies the step, or cancels the run. A worker asks for that itself with
            `NeedsAttentionError`.
        no_compensation: why the step needs no compensation, in words.
        local: a step of milliseconds: the process that has run the step before it runs this one, too, with a commit
            and without a message, if it knows the worker. Where a step is the first, is one of several that are due at
            once, or is tried again, and with ``multiagents_orchestration = "queued"``, it is sent like others.
        queue: the Celery queue of its messages.
        priority: the priority of its messages, 0-9.
        limit: how many attempts to do it run at once, or begin in a time, over all workers; None leaves it to the
            worker. Its undo has the limit of its own worker.
        summary: a line for people.

    >>> Step("charge", "charge_card", compensation="refund_card")
    Step('charge', 'charge_card', compensation='refund_card')
    """

    name: str
    worker: Any = None
    _: KW_ONLY
    compensation: Any = None
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    inputs: Callable[[dict[str, Any]], Any] | Mapping[str, str] | None = None
    retry: RetryPolicy | None = None
    undo_retry: RetryPolicy | None = None
    timeout: Duration | None = None
    schedule_to_start: Duration | None = None
    schedule_to_close: Duration | None = None
    heartbeat_timeout: Duration | None = None
    cancel_safe: bool = False
    resolve_with: Any = None
    external: bool = False
    pivot: bool = False
    reread: Any = None
    on_unknown: Literal["compensate", "resolve", "park"] = "compensate"
    compensate_on_failure: bool = False
    on_failure: Literal["fail", "park"] = "fail"
    no_compensation: str | None = None
    local: bool = False
    queue: str | None = None
    priority: int | None = None
    limit: Limit | None = None
    summary: str | None = None

    kind = StepKind.WORK

    def __post_init__(self) -> None:
        _count_in_seconds(self, "timeout", "schedule_to_start", "schedule_to_close", "heartbeat_timeout")

    @property
    def multiagents_name(self) -> str | None:
        """The name of its worker, where nothing but a worker is meant; None if it says more than that."""
        plain = Step(self.name, self.worker) == self
        return (worker_name(self.worker) or self.name) if plain else None

    def __repr__(self) -> str:
        given = {each.name: (getattr(self, each.name), each.default) for each in fields(self)}
        shown = [repr(self.name)] + ([repr(self.worker)] if self.worker is not None else [])
        shown += [f"{name}={value!r}" for name, (value, default) in list(given.items())[2:] if value != default]
        return f"Step({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Parallel:
    """Run branches side by side; what follows waits for the last step of each.

    Args:
        name: what ``after=`` of other steps may call the block.
        branches: each a `Step`, a worker, or a list of these that run one after the other. A list inside such a list is
            more of the same sequence.
        on_failure: when a step of a branch is over without success, no further step starts. ``wait`` until what runs in
            the other branches has come to its own end before anything is undone, or ``cancel`` it: its worker is asked
            to stop, and a step that is ``cancel_safe`` is not waited for (rules S5, S7).
        after: the steps or blocks that every branch waits for; None is the one added before.

    >>> from multiagents import WorkflowBuilder
    >>> checks = WorkflowBuilder("checks").add_parallel("risk", ["check_fraud", "check_credit"]).build()
    >>> checks.entries
    ('check_fraud', 'check_credit')
    """

    name: str
    branches: Iterable[Any]
    on_failure: Literal["wait", "cancel"] = "wait"
    _: KW_ONLY
    after: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "branches", _read(self.branches))


@dataclass(frozen=True, slots=True)
class Choice:
    """Run exactly one of several branches; the steps of the others are skipped.

    Args:
        name: what the choice is called; its result is the label that was chosen. ``after=[name]`` waits for the branch
            that ran.
        chooser: called with the context; answers a label. It is asked once, and the answer is recorded. Where it
            raises, or answers a label that is not there, the choice fails for certain.
        branches: label -> a `Step`, a worker, or a list of these that run one after the other; ``[]`` for nothing.
        default: the label that counts where the answer is none of them.
        after: the steps or blocks it waits for; None is the one added before.
        when: called with the context; where it answers false, no branch runs.
        summary: a line for people.

    >>> from multiagents import WorkflowBuilder
    >>> check = (
    ...     WorkflowBuilder("check")
    ...     .add_step("classify")
    ...     .add_choice("route", lambda ctx: ctx["kind"], {"passport": "check_identity", "invoice": "check_sums"})
    ...     .build()
    ... )
    >>> check.steps["route"].branches["invoice"]
    ('check_sums',)
    """

    name: str
    chooser: Callable[[dict[str, Any]], str]
    branches: Mapping[str, Any]
    default: str | None = None
    _: KW_ONLY
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.CHOICE

    def __post_init__(self) -> None:
        object.__setattr__(self, "branches", _read(self.branches))


@dataclass(frozen=True, slots=True)
class Loop:
    """Run steps again and again until a condition holds, at most so many times.

    Every round has steps of its own: ``poll#1``, ``poll#2``, ... with idempotency keys of their own; rounds that were
    not needed show as skipped, and the others are undone newest first (rule S9). Behind a round stands the check
    ``<name>.until#<n>``, whose result is ``again`` or ``done``.

    Args:
        name: what the loop is called; ``after=[name]`` waits for its end.
        steps_or_worker: a worker (its rounds are named after the loop), a `Step`, or a list of these that run one after
            the other.
        until: called with the context after each round; true ends the loop.
        max_iterations: how many rounds there are at most, 1 to 100.
        on_exhausted: what it means that the condition still does not hold then: go on, or ``fail``.
        after: the steps or blocks it waits for; None is the one added before.

    >>> from multiagents import WorkflowBuilder
    >>> text = WorkflowBuilder("text").add_loop("write", ["draft", "review"], lambda ctx: ctx["good"], 3).build()
    >>> list(text.steps)[:3]
    ['draft#1', 'review#1', 'write.until#1']
    """

    name: str
    steps_or_worker: Any
    until: Callable[[dict[str, Any]], bool]
    max_iterations: int
    on_exhausted: Literal["continue", "fail"] = "continue"
    _: KW_ONLY
    after: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps_or_worker", _read(self.steps_or_worker))


@dataclass(frozen=True, slots=True)
class Map:
    """Run the same for each item of a list, as many as there are when the run gets there.

    Each item is a step of its own, ``<name>[0]``, ``<name>[1]``, ..., with its own attempts, idempotency key and undo.
    Its context is the run's without the list, with ``item`` and ``index`` added. The map's result is the list of the
    items' results in order; it is in the context under ``name``. When an item fails for good, no further one starts,
    and what was done is undone (rule S8).

    Args:
        name: what the map is called.
        worker_or_workflow: what is run for each item: a worker, or a definition, and then each is a run of it. A `Step`
            or a `Child` gives it options of its own (its ``inputs`` narrow the context that items share). None is the
            map's name.
        over: dotted path of the list in the context, or a callable that answers it.
        max_concurrency: how many items run at once; None is all of them. Item i waits for item i - n, so that of n rows
            each goes its own way.
        compensation: the worker that undoes an item; with ``compensate_each=False`` all of them in one go: its
            ``current_step().result`` is the list of results, None for an item that has none.
        compensate_each: whether each item is undone by itself.
        undo_retry: how failed attempts of ``compensation`` are retried.
        after: the steps or blocks it waits for; None is the one added before.
        when: called with the context; no item is run where it answers false.
        summary: a line for people.

    >>> from multiagents import WorkflowBuilder
    >>> album = WorkflowBuilder("album").add_map("resize", over="images", max_concurrency=20).build()
    >>> list(album.expanded({"resize": 2}).steps)
    ['resize[0]', 'resize[1]', 'resize']
    """

    name: str
    worker_or_workflow: Any = None
    over: str | Callable[[dict[str, Any]], Any] = "items"
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
class Child:
    """Run another workflow as a step: it has its own run, journal and undo.

    The child's run is called ``<run>:<name>``. When it is completed, what its steps have returned is the step's result.
    When it has failed, it has undone what it did, and the step has failed. A completed child is undone as a unit, by
    its own journal; a running one is cancelled and undoes what it did before its parent goes on (rule S11). A child
    with a pivot is a pivot.

    Args:
        name: what the step is called.
        workflow: a definition, or the name of one that was built before; the run is pinned to it.
        inputs: the child's input: a mapping of name to dotted path or a callable, as for a step; None is the context.
        compensation: a worker that undoes the completed child in place of its own journal.
        detached: start it and go on; whatever becomes of either run, the other is left alone.
        on_failure: what it means for this run that the child has failed, and has undone what it did: it has failed,
            too; it goes on, and the step counts as skipped (rule S10); or with ``park`` it is paused until a person
            retries, skips or supplies the step, or cancels it.
        no_compensation: why the completed child is not undone with its parent, in words.
        undo_retry: how failed attempts of ``compensation`` are retried.
        after: the steps or blocks it waits for; None is the one added before.
        when: called with the context; the child is not run where it answers false.
        summary: a line for people.

    >>> from multiagents import WorkflowBuilder
    >>> pay = WorkflowBuilder("pay").add_step("charge", compensation="refund").build()
    >>> order = WorkflowBuilder("order-with-pay").add_step("reserve").add_child("payment", pay).build()
    >>> order.steps["payment"].workflow
    <Definition 'pay' version '1': 1 step, 2450746c>
    """

    name: str
    workflow: Any
    inputs: Callable[[dict[str, Any]], Any] | Mapping[str, str] | None = None
    compensation: Any = None
    detached: bool = False
    on_failure: Literal["fail", "continue", "park"] = "fail"
    _: KW_ONLY
    no_compensation: str | None = None
    undo_retry: RetryPolicy | None = None
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.CHILD


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until a signal comes; its data is the step's result. A signal that came earlier is kept for it.

    The data is in the context under the step's name: what comes from outside takes nothing's place.

    Args:
        name: what the step is called.
        signal: the signal's name (``run.signal(name, data)``); None is the step's own.
        schema: a Pydantic model, or any type that Pydantic can validate, that the data has to fit; whoever gives a
            signal that does not fit is told so, and the run waits on.
        timeout: seconds to wait at most, or a timedelta; None waits as long as it takes.
        on_timeout: ``fail`` the step, or ``continue`` without a result.
        merge: merge the data into the context, as a worker's result is, in place of putting it under the step's name.
        after: the steps or blocks it waits for; None is the one added before.
        when: called with the context; the step is skipped where it answers false.
        summary: a line for people.

    >>> from multiagents import WorkflowBuilder
    >>> paid = WorkflowBuilder("paid").add_wait("paid", signal="payment", timeout=86_400).add_step("ship").build()
    >>> paid.steps["paid"].signal
    'payment'
    """

    name: str
    signal: str | None = None
    schema: Any = None
    timeout: Duration | None = None
    on_timeout: Literal["fail", "continue"] = "fail"
    _: KW_ONLY
    merge: bool = False
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.WAIT

    def __post_init__(self) -> None:
        _count_in_seconds(self, "timeout")


@dataclass(frozen=True, slots=True)
class Approval:
    """Wait until a person says yes: ``run.signal(name, {"approved": True}, actor="ann")``.

    Nothing but the literal ``True`` approves. A no, the literal ``False``, fails the step for certain, so that the run
    goes back. What is neither is refused where it is given, and the run waits on (rule S31). Who decided, and why, is
    in the history.

    Args:
        name: what the step is called, and its signal.
        timeout: seconds to wait at most, or a timedelta; None waits as long as it takes.
        on_timeout: what it means that nobody decided: ``reject``, or ``continue`` without a result.
        signal: another name for the signal.
        schema: a model that the data has to fit besides; it keeps ``approved``.
        merge: merge the decision's data into the context, in place of putting it under the step's name.
        after: the steps or blocks it waits for; None is the one added before.
        when: called with the context; the step is skipped where it answers false.
        summary: a line for people.
    """

    name: str
    timeout: Duration | None = None
    on_timeout: Literal["reject", "continue"] = "reject"
    _: KW_ONLY
    signal: str | None = None
    schema: Any = None
    merge: bool = False
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.APPROVAL

    def __post_init__(self) -> None:
        _count_in_seconds(self, "timeout")


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let time pass: seconds or months, through any restart. No process waits meanwhile.

    Args:
        name: what the step is called.
        seconds: how long, as a number or a timedelta; or a callable that says so, asked once with the context.
        after: the steps or blocks it waits for; None is the one added before.
        when: called with the context; the step is skipped where it answers false.
        summary: a line for people.

    >>> from multiagents import WorkflowBuilder
    >>> WorkflowBuilder("trial").add_sleep("trial_period", 14 * 86_400).add_step("charge").build().entries
    ('trial_period',)
    """

    name: str
    seconds: Duration | Callable[[dict[str, Any]], Duration]
    _: KW_ONLY
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.SLEEP

    def __post_init__(self) -> None:
        _count_in_seconds(self, "seconds")


@dataclass(frozen=True, slots=True)
class Lock:
    """Wait until the run has the lock on a business key, so that no other run works on the same thing (rule S29).

    It is held until the run is over, undo included, or until the lease is. Whoever waits gets it in the order of
    asking. The step's result is ``{name: {"key": ..., "token": n}}``: the token grows with every grant of that key, so
    that whoever keeps the thing itself can refuse a holder of a lease that is over. No process waits meanwhile.

    Args:
        name: what the step is called.
        key: what is locked, with ``{field}`` or ``{field.field}`` for what the context says; or a callable that says
            it, asked once with the context. A run that asks for the same key again has it already.
        lease: seconds after which others may have the lock, or a timedelta; None is when the run is over.
        timeout: seconds to wait at most, or a timedelta; None waits as long as it takes.
        on_timeout: ``fail`` the step, or ``continue`` without the lock, and without a result.
        after: the steps or blocks it waits for; None is the one added before.
        when: called with the context; the step is skipped where it answers false.
        summary: a line for people.

    >>> from multiagents import WorkflowBuilder
    >>> pick = WorkflowBuilder("pick").add_lock("stock", "stock:{sku}", timeout=60).add_step("reserve").build()
    >>> pick.steps["stock"].key
    'stock:{sku}'
    """

    name: str
    key: str | Callable[[dict[str, Any]], str]
    _: KW_ONLY
    lease: Duration | None = None
    timeout: Duration | None = None
    on_timeout: Literal["fail", "continue"] = "fail"
    after: str | Sequence[str] | None = None
    when: Callable[[dict[str, Any]], bool] | None = None
    summary: str | None = None

    kind = StepKind.LOCK

    def __post_init__(self) -> None:
        _count_in_seconds(self, "lease", "timeout")


@dataclass(frozen=True, slots=True)
class Savepoint:
    """Mark a point to go back to: when a step behind it fails for good, only what stands behind it is undone.

    Then the run goes forward again from here, so many times at most; after that a failure undoes the whole run, or
    leads to the save-point before. Steps of a later pass are steps of their own, ``charge#2``, with idempotency keys of
    their own (rule S15). The context says which pass it is, and why, so that a choice, a ``when`` or ``inputs`` can
    take another way: ``{name: {"attempt": 2, "error": {"type": ..., "message": ...}}}``. A cancel, and the deadline,
    still undo everything.

    Args:
        name: what the save-point is called.
        retries: how often a run may go back to it, at least 1.
        after: the steps or blocks it waits for; None is the one added before.
        summary: a line for people.

    >>> from multiagents import WorkflowBuilder
    >>> parcel = (
    ...     WorkflowBuilder("parcel")
    ...     .add_step("pack")
    ...     .add_savepoint("packed")
    ...     .add_choice("way", lambda ctx: str(ctx["packed"]["attempt"]), {"1": "by_air", "2": "by_road"})
    ...     .add_step("send", compensation="fetch_back")
    ...     .build()
    ... )
    >>> [name for name in parcel.expanded({}, ["packed"]).steps if name.endswith("#2")]
    ['way#2', 'by_air#2', 'by_road#2', 'send#2']
    """

    name: str
    retries: int = 1
    _: KW_ONLY
    after: str | Sequence[str] | None = None
    summary: str | None = None

    kind = StepKind.SAVEPOINT


#: What becomes a step though no worker does it itself.
Node = Wait | Approval | Sleep | Savepoint | Choice | Child | Map | Lock
Element = Step | Node | Parallel | Loop


def _count_in_seconds(element: Any, *options: str) -> None:
    """Keep time limits as seconds, however they were given."""
    for option in options:
        object.__setattr__(element, option, in_seconds(getattr(element, option)))


def _read(given: Any) -> Any:
    """What was given, walked through once: an iterator could not be built from twice."""
    if isinstance(given, Mapping):
        return {key: _read(value) for key, value in given.items()}
    return [_read(each) for each in given] if is_listing(given) else given
