"""A workflow definition: frozen data, told apart by a hash of its content (rule S26), and what follows from its steps.

What is data and what is code is said in `multiagents.workflow.definition.serialization`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from multiagents.exceptions import DecodeError, DefinitionError, UnknownStepError, WorkflowError, did_you_mean
from multiagents.workflow.definition import serialization
from multiagents.workflow.definition.diagram import ascii_diagram, mermaid_diagram
from multiagents.workflow.definition.expansion import Expansion, calls_by_maker, with_calls
from multiagents.workflow.definition.graph import Graph
from multiagents.workflow.definition.map_items import map_of
from multiagents.workflow.definition.step import BlockDefinition, StepDefinition, StepKind
from multiagents.workflow.definition.tool_calls import maker_of

__all__ = ["Definition"]

#: How many steps of expanded definitions a process keeps for each definition.
KEPT_STEPS = 50_000
_NO_CALLS: Mapping[str, tuple[str, int]] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Definition:
    """A workflow: its steps, their order and its limits. Made by `WorkflowBuilder`; equal when the content hash is.

    Args:
        name: the workflow's name.
        version: told apart from other versions of the same name.
        steps: step name -> step, in definition order.
        deadline: seconds a run may take before it is undone.
        retention: seconds a finished run is kept; None is the setting's.
        strict: every step up to a pivot says how it is undone, or why it need not be (rule S14).
        compensate_in: an explicit order of undoing; None is the reverse of completion (rule S6).
        on_end: name of the worker that is told of every end of a run.
        model: what its agents ask that name no model themselves, as plain JSON; None is the setting's.
        blocks: block name -> parallel block.

    Raises:
        UnknownStepError: when a step waits for one that is not defined.
        StepCycleError: when steps wait for each other in a circle.
    """

    name: str
    version: str = "1"
    steps: Mapping[str, StepDefinition]
    deadline: float | None = None
    retention: float | None = None
    strict: bool = False
    compensate_in: tuple[str, ...] | None = None
    on_end: str | None = None
    model: Any = None
    blocks: Mapping[str, BlockDefinition] = field(default_factory=dict)
    #: each step and those that wait for it directly
    successors: Mapping[str, tuple[str, ...]] = field(init=False)
    #: steps that wait for nothing
    entries: tuple[str, ...] = field(init=False)
    #: steps that nothing waits for
    exits: tuple[str, ...] = field(init=False)
    #: a topological order that keeps the definition order where it can
    order: tuple[str, ...] = field(init=False)
    #: some step has a `when` or a callable `inputs`
    has_code: bool = field(init=False)
    #: some of that code is not loaded in this process: only another one can decide
    lacks_code: bool = field(init=False)
    #: the order of steps that results are merged by
    graph: Graph = field(init=False)
    #: map -> how many items of it are among the steps
    sizes: Mapping[str, int] = field(init=False)
    #: the save-points that a run has gone back to, oldest first: there are more passes among the steps
    rollbacks: tuple[str, ...] = field(init=False)
    #: steps of passes that were undone: nothing waits for them any more
    superseded: frozenset[str] = field(init=False)
    #: step of a later pass -> its name in the first
    origins: Mapping[str, str] = field(init=False)
    #: call of a tool that is among the steps -> its compensation, and the how manieth of its step it is
    called: Mapping[str, tuple[str, int]] = field(init=False)
    #: step -> those of its calls that are among the steps, oldest first
    calls: Mapping[str, tuple[str, ...]] = field(init=False)
    _expansion: Expansion = field(init=False)
    #: what it was read from, if some of it was written by a later release
    _unread: Mapping[str, Any] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "steps", MappingProxyType(dict(self.steps)))
        put(self, "blocks", MappingProxyType(dict(self.blocks)))
        for limit in ("deadline", "retention"):
            if (seconds := getattr(self, limit)) is not None:
                put(self, limit, float(seconds))
        if self.compensate_in is not None:
            put(self, "compensate_in", tuple(self.compensate_in))
        graph = Graph(self.name, {name: step.after for name, step in self.steps.items()})
        put(self, "successors", MappingProxyType(graph.successors))
        put(self, "entries", graph.entries)
        put(self, "order", graph.order)
        put(self, "called", _NO_CALLS)
        put(self, "calls", MappingProxyType({}))
        self._take(Expansion(steps=self.steps, compensate_in=self.compensate_in, graphs=(graph,)))
        put(self, "has_code", any(step.has_code for step in self.steps.values()))
        put(self, "lacks_code", any(step.lacks_code for step in self.steps.values()))

    @cached_property
    def _behind(self) -> dict[str, frozenset[str]]:
        return {}

    @cached_property
    def has_children(self) -> bool:
        """Whether some step, or an item of a map, is a run of its own."""
        return any((step.item or step).workflow is not None for step in self.steps.values())

    @cached_property
    def apart(self) -> frozenset[str]:
        """The steps whose results lie under their own names in the context: those that signals end."""
        return frozenset(name for name, step in self.steps.items() if step.awaits_signal and not step.merge)

    @cached_property
    def depth(self) -> int:
        """How many runs of other workflows lie in each other below a run of this one."""
        nested = [(step.item or step).workflow for step in self.steps.values()]
        return max((1 + each.depth for each in nested if each is not None), default=0)

    @cached_property
    def pivots(self) -> tuple[str, ...]:
        """The steps after which there is no way back (rule S12)."""
        return tuple(name for name, step in self.steps.items() if step.pivot)

    @cached_property
    def content_hash(self) -> str:
        """The first 32 hex digits of the SHA-256 over the canonical JSON of `to_dict`."""
        return serialization.digest(self.to_dict())

    def step(self, name: str) -> StepDefinition:
        """The step of this name.

        Raises:
            UnknownStepError: when there is none.
        """
        try:
            return self.steps[name]
        except KeyError:
            raise UnknownStepError(self.name, name, self.steps) from None

    def expanded(
        self,
        sizes: Mapping[str, int],
        rollbacks: Sequence[str] = (),
        called: Mapping[str, tuple[str, int]] = _NO_CALLS,
    ) -> Definition:
        """This definition with all the steps that a run has: items of maps, passes behind save-points, calls of tools.

        Args:
            sizes: map -> how many items it has, as far as that is known.
            rollbacks: the save-points that the run has gone back to, oldest first.
            called: call of a tool that is to be undone -> its compensation, and the how manieth of its step it is.
        """
        if sizes == self.sizes and rollbacks == self.rollbacks and (called is self.called or called == self.called):
            return self
        if called:
            without: Definition = self.expanded(sizes, rollbacks)
            return without._with_calls(called)
        known, key = self._expansions, (tuple(sorted(sizes.items())), tuple(rollbacks))
        found = known.get(key)
        if found is None:
            before: Definition = self.expanded({}, rollbacks if sizes else rollbacks[:-1])
            expansion = before._expansion
            found = before._with(expansion.with_items(sizes) if sizes else expansion.with_pass(rollbacks[-1]))
            if sum(len(each.steps) for each in list(known.values())) > KEPT_STEPS:
                for old in list(known)[1:]:
                    known.pop(old, None)
            known[key] = found
        return found

    @cached_property
    def _expansions(self) -> dict[tuple[tuple[tuple[str, int], ...], tuple[str, ...]], Definition]:
        """What `expanded` was asked for last, shared by all that came of one definition; that one comes first."""
        return {((), ()): self}

    def _with(self, expansion: Expansion) -> Definition:
        made: Definition = replace(self, steps=expansion.steps, compensate_in=expansion.compensate_in)
        made._take(expansion)
        put = object.__setattr__
        put(made, "_expansions", self._expansions)
        # The same content, after these rollbacks.
        put(made, "content_hash", "~".join((self.content_hash, *expansion.rollbacks[len(self.rollbacks) :])))
        return made

    def _with_calls(self, called: Mapping[str, tuple[str, int]]) -> Definition:
        """The same with calls of tools. They stand in no order, so nothing of that is made again."""
        known, made, put = self._expansions, copy(self), object.__setattr__
        made.__dict__.pop("_behind", None)
        put(made, "_expansions", known)
        makers = calls_by_maker(called)
        steps = with_calls(self.steps, called, makers)
        put(made, "steps", MappingProxyType(steps))
        put(made, "called", called)
        put(made, "calls", MappingProxyType(makers))
        put(made, "successors", MappingProxyType({**self.successors, **dict.fromkeys(called, ())}))
        put(made, "superseded", self.superseded.union(*(makers.get(name, ()) for name in self.superseded)))
        return made

    def _take(self, expansion: Expansion) -> None:
        put = object.__setattr__
        put(self, "_expansion", expansion)
        put(self, "exits", expansion.graph.exits)
        for name in ("graph", "sizes", "rollbacks", "superseded", "origins"):
            put(self, name, getattr(expansion, name))

    def own(self, step: str) -> StepDefinition:
        """A step, or an item of a map or the call of a tool that is not among its steps here.

        Of such a call it is known that it is one, and not what undoes it.

        Raises:
            UnknownStepError: when there is none.
        """
        name = step if step in self.steps else map_of(step)
        if name is not None and name not in self.steps and (maker := maker_of(name)):
            retry = self.own(maker).undo_retry
            return StepDefinition(name=step, kind=StepKind.CALL, undo_retry=retry)
        found = self.step(step if name is None else name)
        return found if name == step or found.item is None else found.item

    def ancestors(self, step: str) -> tuple[str, ...]:
        """All steps that must be done before this one, in topological order; items of maps are left out."""
        name = self._known(step)
        return self._graph_of(name).ancestors(name)

    def is_trunk(self, step: str) -> bool:
        """Whether nothing can run beside this step: all others come before it or after it."""
        if step in self.graph.after:
            return self.graph.is_trunk(step)
        name = self._known(step)
        return name == step and self._graph_of(name).is_trunk(name)

    def parts(self, step: str) -> tuple[str, ...]:
        """Steps whose results must be merged onto the trunk context to get this step's context, in topological order.

        The trunk context holds the input and the results of the latest finished trunk step and all its ancestors.
        """
        if step in self.graph.after:
            return self.graph.parts(step)
        name = self._known(step)
        return self._graph_of(name).parts(name)

    def behind(self, step: str) -> frozenset[str]:
        """All steps that stand behind one, items of maps included."""
        if step not in self._behind:
            inside = self.graph.descendants(step)
            inside = inside.union(name for name in self.steps if map_of(name) in inside)
            self._behind[step] = inside.union(*(calls for maker, calls in self.calls.items() if maker in inside))
        return self._behind[step]

    def _known(self, step: str) -> str:
        if step in self.called:
            step = maker_of(step)
        return map_of(step) or self.step(step).name

    def _graph_of(self, step: str) -> Graph:
        """The order of steps in the pass that a step belongs to."""
        return next(graph for graph in reversed(self._expansion.graphs) if step in graph.after)

    def tail_parts(self) -> tuple[str, ...]:
        """Steps whose results must be merged onto the trunk context to get the context of the run's end."""
        return self.graph.tail_parts()

    def input_of(self, step: str, context: dict[str, Any]) -> Any:
        """Narrow a context to what the step's ``inputs`` mapping names.

        Without ``inputs`` that is the context itself. So it is for a callable: those are called by the shell, which
        records the answer, and never here.

        Raises:
            WorkflowError: when the context lacks something that the mapping names.
        """
        inputs = self.step(step).inputs
        return self.narrowed(step, inputs, context) if isinstance(inputs, Mapping) else context

    def narrowed(self, step: str, inputs: Mapping[str, str], context: Mapping[str, Any]) -> dict[str, Any]:
        """What a mapping of argument to dotted path takes from a context, for a step.

        Raises:
            WorkflowError: when the context lacks something that the mapping names.
        """
        return {argument: self._look_up(step, argument, path, context) for argument, path in inputs.items()}

    def _look_up(self, step: str, argument: str, path: str, context: Mapping[str, Any]) -> Any:
        try:
            return _follow(context, path.split("."))
        except LookupError:
            # Keys only: values may be secret.
            raise WorkflowError(
                f'workflow "{self.name}" step "{step}" takes its input "{argument}" from "{path}", which the context '
                f"does not have{did_you_mean(path, context)} (it has: {', '.join(map(str, context)) or 'nothing'})"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """The definition as JSON-ready data, without what equals the defaults.

        One that was read from data with keys of a later release gives that data: whoever stores it loses nothing.
        """
        if self._unread is not None:
            return dict(self._unread)
        options = {name: getattr(self, name) for name in serialization.OPTIONS}
        return serialization.to_data(self.name, self.version, options, self.steps.values(), self.blocks.values())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Definition:
        """Read a definition; keys that a later release added are passed over, and its hash is kept.

        Raises:
            DecodeError: when the data was written in a newer schema, or is not a definition.
        """
        definition = serialization.from_data(data, cls, cls.from_dict)
        if serialization.has_unknown_keys(data):
            # A run names its definition by the hash that its writer computed, over keys that are not known here.
            object.__setattr__(definition, "content_hash", serialization.digest(data))
            object.__setattr__(definition, "_unread", data)
        return definition

    def to_json(self) -> str:
        """`to_dict` as canonical JSON: sorted keys, no blanks."""
        return serialization.as_json(self.to_dict())

    @classmethod
    def from_json(cls, data: str | bytes) -> Definition:
        """The inverse of `to_json`.

        Raises:
            DecodeError: as `from_dict`, and when it is not JSON.
        """
        try:
            loaded = json.loads(data)
        except ValueError as error:
            raise DecodeError(f"a workflow definition is not JSON: {error}; expected what to_json() returns") from error
        return cls.from_dict(loaded)

    def with_code_of(self, other: Definition) -> Definition:
        """This definition with the ``when`` and ``inputs`` callables of one that was built in this process.

        Raises:
            DefinitionError: when the other one has another content.
        """
        if other.content_hash != self.content_hash:
            raise DefinitionError(
                f"{other!r} has other content than {self!r}, so its code does not fit; expected a definition with "
                f"content hash {self.content_hash}"
            )
        # Equal content leaves nothing but code to differ in.
        return other

    def diagram(self, kind: Literal["mermaid", "ascii"] = "mermaid") -> str:
        """Draw the workflow: ``mermaid`` for documents that render it, ``ascii`` for a terminal.

        Raises:
            DefinitionError: for any other kind.
        """
        title = f"{self.name} · version {self.version}"
        match kind:
            case "mermaid":
                return mermaid_diagram(title, self.steps, self.blocks)
            case "ascii":
                return ascii_diagram(title, self.steps, self.blocks, self.graph)
        raise DefinitionError(
            f'workflow "{self.name}": no diagram of kind {kind!r}; expected "mermaid" or "ascii"'
            f"{did_you_mean(str(kind), ('mermaid', 'ascii'))}"
        )

    def __eq__(self, other: object) -> bool:
        return self.content_hash == other.content_hash if isinstance(other, Definition) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def __repr__(self) -> str:
        count = f"{len(self.steps)} step{'s' if len(self.steps) != 1 else ''}"
        return f"<Definition {self.name!r} version {self.version!r}: {count}, {self.content_hash[:8]}>"


def _follow(value: Any, path: Sequence[str]) -> Any:
    """Walk a dotted path. A key may hold dots itself (a step's name may): the longest one that fits is tried first."""
    if not path:
        return value
    if isinstance(value, list) and path[0].isdecimal():
        return _follow(value[int(path[0])], path[1:])
    if isinstance(value, Mapping):
        for length in range(len(path), 0, -1):
            key = ".".join(path[:length])
            if key in value:
                try:
                    return _follow(value[key], path[length:])
                except LookupError:
                    continue
    raise LookupError(path)
