"""The pieces a definition is made of: its steps and its blocks, as frozen data.

``when``, ``chooser``, and callable ``inputs``, ``over`` and ``seconds`` are code: the data says only that they exist
(``true``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from multiagents.exceptions import DecodeError, DefinitionError
from multiagents.names import Direction
from multiagents.retry import RetryPolicy
from multiagents.workflow.definition.rate_limit import Limit

#: What may be done about a step whose outcome is unknown (rule S3).
ON_UNKNOWN = ("compensate", "resolve", "park")

_TIMES = ("timeout", "schedule_to_start", "schedule_to_close", "heartbeat_timeout", "lease")
#: The fields that may be code.
_CODE = ("when", "inputs", "seconds", "chooser", "over", "schema", "key")


class StepKind(StrEnum):
    """Who does a step."""

    #: a worker, or for an ``external`` one somebody who publishes its result
    WORK = "work"
    #: nobody: it is done when a signal has come
    WAIT = "wait"
    #: a person, whose signal says yes or no; a no fails the step
    APPROVAL = "approval"
    #: nobody: it is done when its time has passed
    SLEEP = "sleep"
    #: nobody: its answer says which branch runs; the others are skipped
    CHOICE = "choice"
    #: a run of another workflow
    CHILD = "child"
    #: nobody: a failure behind it leads back to it
    SAVEPOINT = "savepoint"
    #: its items, which are steps of their own once their number is known; it is done when they are
    MAP = "map"
    #: nobody: it is done when the run has the lock on a business key
    LOCK = "lock"
    #: nobody: a tool of an agent was called, and that is to be undone as a step is (rule S36)
    CALL = "call"


def plain(value: Any) -> Any:
    """A field's value as JSON-ready data; code becomes ``True``."""
    if callable(value):
        return True
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def code_elsewhere(_context: dict[str, Any]) -> Any:
    """Stand in for code of a definition that this process does not have.

    Raises:
        DefinitionError: whenever it is called.
    """
    raise DefinitionError(
        "a definition read from the state store was asked to run code (`when`, `inputs`, ...) that is not loaded here; "
        "import the module that builds the workflow, then use with_code_of()"
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepDefinition:
    """One step of a definition. Two are equal when their data is: their code does not count.

    Attributes:
        name: what the step is called in its workflow.
        worker: name of the worker that does it; empty where nobody is asked.
        kind: who does it.
        compensation: name of the worker that undoes it.
        after: the steps it waits for directly, in definition order.
        when: asked with the context whether the step runs at all.
        inputs: what the worker gets in place of the context: a mapping of argument to dotted path, or a callable.
        retry: how failed attempts are retried; None leaves it to the worker.
        undo_retry: the same for the compensation; None is `multiagents.retry.UNDO_RETRY`.
        timeout: seconds an attempt may take; None is the setting's, 0 is no limit.
        schedule_to_start: seconds an attempt may wait for a worker.
        schedule_to_close: seconds that all attempts may take together.
        heartbeat_timeout: seconds that may pass between two heartbeats.
        cancel_safe: an attempt may be undone while it might still be running (rule S5).
        external: somebody else does the step and reports the result; it is never dispatched again.
        pivot: once it has succeeded, there is no way back (rule S12).
        on_unknown: what is done about an unknown outcome: ``compensate``, ``resolve`` or ``park`` (rule S3).
        resolve_with: name of the worker that finds out whether the step took effect, its *probe*.
        compensate_on_failure: undo the step also after a definite failure.
        no_compensation: why the step needs no compensation.
        local: it is run by the process that has run the step before it, without a message.
        queue: the Celery queue of its messages.
        priority: the priority of its messages, 0-9.
        limit: how many attempts to do it run at once, or begin in a time, over all workers.
        summary: a line for people.
        block: the parallel block it is in.
        cancel_siblings: its failure cancels the other branches of its block (rule S7).
        signal: of a wait or an approval: the signal that ends it.
        schema: the model that the signal's data has to fit; checked where the signal is given.
        merge: of a wait or an approval: the signal's data is merged into the context, not put under the step's name.
        on_timeout: of a wait or an approval: ``fail``, ``continue`` or ``reject``.
        seconds: of a sleep: how long, or a callable that says so.
        chooser: of a choice: answers the label of the branch that runs.
        branches: of a choice: label -> all steps of that branch.
        default: of a choice: the branch for any other label.
        workflow: of a child: the `Definition` that its run follows.
        detached: of a child: it is started and left alone.
        on_failure: what a failure for good means: ``fail``, or ``park``, where a person has to look first; of a child,
            which has undone what it did, also ``continue``.
        over: of a map: dotted path to its list in the context, or a callable that answers it.
        item: of a map: what every item is, but for its name and place.
        retries: of a save-point: how often a run may go back to it.
        max_concurrency: of a map: how many items run at once; None is all of them.
        key: of a lock: the business key, with ``{field}`` for what the context says, or a callable that says it.
        lease: of a lock: seconds after which others may have it; None is when the run is over.
    """

    name: str
    worker: str = ""
    kind: StepKind = StepKind.WORK
    compensation: str | None = None
    after: tuple[str, ...] = ()
    when: Callable[[dict[str, Any]], bool] | None = None
    inputs: Callable[[dict[str, Any]], Any] | Mapping[str, str] | None = None
    retry: RetryPolicy | None = None
    undo_retry: RetryPolicy | None = None
    timeout: float | None = None
    schedule_to_start: float | None = None
    schedule_to_close: float | None = None
    heartbeat_timeout: float | None = None
    cancel_safe: bool = False
    external: bool = False
    pivot: bool = False
    on_unknown: str = "compensate"
    resolve_with: str | None = None
    compensate_on_failure: bool = False
    no_compensation: str | None = None
    local: bool = False
    queue: str | None = None
    priority: int | None = None
    summary: str | None = None
    block: str | None = None
    cancel_siblings: bool = False
    signal: str | None = None
    schema: Any = None
    merge: bool = False
    on_timeout: str | None = None
    seconds: float | Callable[[dict[str, Any]], float] | None = None
    chooser: Callable[[dict[str, Any]], str] | None = None
    branches: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default: str | None = None
    workflow: Any = None
    detached: bool = False
    on_failure: str | None = None
    over: str | Callable[[dict[str, Any]], Any] | None = None
    item: StepDefinition | None = None
    max_concurrency: int | None = None
    retries: int | None = None
    key: str | Callable[[dict[str, Any]], str] | None = None
    lease: float | None = None
    limit: Limit | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "after", tuple(self.after))
        put(self, "kind", StepKind(self.kind))
        put(self, "branches", MappingProxyType({label: tuple(steps) for label, steps in self.branches.items()}))
        if isinstance(self.seconds, int):
            put(self, "seconds", float(self.seconds))
        if isinstance(self.inputs, Mapping):
            put(self, "inputs", MappingProxyType(dict(self.inputs)))
        for name in _TIMES:
            # 30 and 30.0 are the same limit and must have the same hash.
            if (seconds := getattr(self, name)) is not None:
                put(self, name, float(seconds))

    @property
    def has_code(self) -> bool:
        """Whether part of this step is code, which its data can only mention."""
        item = self.item
        return (
            callable(self.when)
            or callable(self.inputs)
            or callable(self.seconds)
            or callable(self.chooser)
            or callable(self.over)
            or callable(self.key)
            or (item is not None and callable(item.inputs))
        )

    @property
    def lacks_code(self) -> bool:
        """Whether it has code, needed to decide, that was never loaded here."""
        return any(code is code_elsewhere for code in self._code)

    @property
    def _code(self) -> tuple[Any, ...]:
        return (self.when, self.inputs, self.seconds, self.chooser, self.over, self.key, self.item and self.item.inputs)

    def worker_of(self, direction: Direction, *, probe: bool = False) -> str:
        """Name of the worker that makes an attempt: the step's, its compensation, or its probe."""
        asked = self.compensation if direction is Direction.UNDO else self.resolve_with if probe else self.worker
        return asked or ""

    @property
    def is_work(self) -> bool:
        """Whether a worker, or a run of its own, does it: it may have an effect."""
        return self.kind in (StepKind.WORK, StepKind.CHILD)

    @property
    def may_have_effect(self) -> bool:
        """Whether it may have an effect; the call of a tool may, too."""
        return self.is_work or self.kind is StepKind.CALL

    @property
    def silence(self) -> dict[str, Any] | None:
        """What it has returned if it has succeeded and nothing is stored of that.

        Of what a worker or a run does it is ``{}``, so that the most frequent result costs nothing; of what nobody
        does, a wait or a sleep, it is None.
        """
        return {} if self.is_work else None

    @property
    def is_undoable(self) -> bool:
        """Whether something is there to undo it: a worker, or of a child run its own journal (rule S11)."""
        return self.compensation is not None or self.is_undone_as_child

    @property
    def is_undone_as_child(self) -> bool:
        """Whether its effect is undone by undoing the run that it is."""
        own = self.kind is StepKind.CHILD and self.compensation is None and self.no_compensation is None
        return own and not self.detached and not self.pivot

    @property
    def says_how_undone(self) -> bool:
        """Whether it is settled what becomes of its effect (rule S14)."""
        if self.is_undoable or self.no_compensation is not None or self.detached or self.pivot:
            return True
        return self.item is not None and self.item.says_how_undone

    @property
    def awaits_signal(self) -> bool:
        """Whether a signal ends it: nobody does anything for it, so nothing of it is ever undone or in doubt."""
        return self.kind in (StepKind.WAIT, StepKind.APPROVAL)

    def to_dict(self) -> dict[str, Any]:
        """The step as JSON-ready data, without what equals the defaults."""
        data: dict[str, Any] = {}
        for name, default in STEP_DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                data[name] = plain(value)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], nested: Callable[[Mapping[str, Any]], Any]) -> StepDefinition:
        """The inverse of `to_dict`; keys that this release does not know are passed over.

        Args:
            data: the step.
            nested: makes the definition of a child.
        """
        values = {name: value for name, value in data.items() if name in STEP_DEFAULTS}
        for name in ("retry", "undo_retry"):
            if name in values:
                known = {key: values[name][key] for key in RetryPolicy.model_fields if key in values[name]}
                values[name] = RetryPolicy.from_dict(known)
        if "workflow" in values:
            values["workflow"] = nested(values["workflow"])
        if "item" in values:
            values["item"] = cls.from_dict(values["item"], nested)
        if "limit" in values:
            values["limit"] = Limit.from_dict(values["limit"])
        for name in _CODE:
            if values.get(name) is True:
                values[name] = code_elsewhere
        try:
            StepKind(values.get("kind", StepKind.WORK))
        except ValueError:
            raise DecodeError(
                f'step "{values.get("name")}" is of kind {values["kind"]!r}; this release knows '
                f"{', '.join(StepKind)}: upgrade multiagents in this process"
            ) from None
        step = cls(**values)
        if step.kind is StepKind.WORK and not step.worker:
            raise KeyError("worker")
        if step.on_unknown not in ON_UNKNOWN:
            raise DecodeError(
                f'step "{step.name}" says on_unknown={step.on_unknown!r}; this release knows '
                f"{', '.join(ON_UNKNOWN)}: upgrade multiagents in this process"
            )
        return step

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, StepDefinition) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.name, self.worker, self.after))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.to_dict().items())
        return f"StepDefinition({shown})"


#: Each field and its default; `name` has none and so is always written.
STEP_DEFAULTS: dict[str, Any] = {
    each.name: {} if each.name == "branches" else each.default for each in fields(StepDefinition)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDefinition:
    """A parallel block: what diagrams need to know of it. The steps themselves say what they wait for.

    Attributes:
        name: what ``after=`` may call it.
        branches: the steps of each branch, in their order.
        on_failure: ``wait`` for the other branches or ``cancel`` them (rule S7).
    """

    name: str
    branches: tuple[tuple[str, ...], ...]
    on_failure: str = "wait"

    @property
    def ends(self) -> tuple[str, ...]:
        """The last step of each branch: whoever waits for the block waits for these."""
        return tuple(branch[-1] for branch in self.branches)

    @property
    def steps(self) -> tuple[str, ...]:
        """Every step of every branch."""
        return tuple(step for branch in self.branches for step in branch)

    def to_dict(self) -> dict[str, Any]:
        """The block as JSON-ready data."""
        return {
            "name": self.name,
            "branches": [list(branch) for branch in self.branches],
            "on_failure": self.on_failure,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BlockDefinition:
        """The inverse of `to_dict`."""
        branches = tuple(tuple(branch) for branch in data["branches"])
        return cls(name=data["name"], branches=branches, on_failure=data.get("on_failure", "wait"))
