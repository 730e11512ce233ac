"""A claim: all that a worker needs to run one attempt and to decide what follows, read in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic_core import from_json

from multiagents.clock import from_ms
from multiagents.events import ErrorInfo
from multiagents.exceptions import WorkflowError
from multiagents.names import Correlation, Direction
from multiagents.state_store.payloads import Reading, as_given, as_mapping, has_marks, merge
from multiagents.workflow.definition import Definition, map_of
from multiagents.workflow.state import (
    CalledTool,
    Cause,
    RunState,
    RunStatus,
    StepState,
    parent_of,
    rollbacks_of,
    sizes_of,
)


class Claim(NamedTuple):
    """What a worker needs to run one attempt, and to decide what follows from it.

    Attributes:
        correlation: the attempt.
        definition: what the run follows.
        context: what the function gets (in an undo: the step's context merged with its result; in that of the call of a
            tool, the arguments of the call).
        input: the step's own input: the context, or what its ``inputs`` answered.
        result: in an undo, what the step returned, if it did.
        outcome: in an undo, ``succeeded``, ``unknown`` or ``failed``.
        error: in an undo, the run's original error.
        deadline: when the attempt has to be over, by the store's clock.
        owner: the lease's token.
        cancelled: the run is to stop.
        signals_wait: there are signals that no step has taken: what waits for them is decided from the whole run.
        state: the run, as a projection that holds this step.
        epoch: fences the commit.
        merged: the context as the store has it (before ``inputs``), for the steps that follow. Where the step has
            ``inputs``, so does not read it, what of it is kept apart or encoded is fetched when it is first asked for.
        parts: steps whose results are in ``merged`` and not yet in the stored context.
        now: the store's clock.
        generation: of the run: 1, and one more for each run that it replaced.
    """

    correlation: Correlation
    definition: Definition
    context: dict[str, Any]
    input: Any
    owner: str
    state: RunState
    epoch: int
    merged: Mapping[str, Any]
    now: datetime
    parts: Mapping[str, Any] = MappingProxyType({})
    result: Any = None
    outcome: str | None = None
    error: ErrorInfo | None = None
    deadline: datetime | None = None
    cancelled: bool = False
    signals_wait: bool = False
    generation: int = 1

    @property
    def probing(self) -> bool:
        """Whether the attempt asks the step's probe."""
        return bool(self.definition.own(self.correlation.step).resolve_with) and self.state.is_probe(self.correlation)


class ClaimRefused(WorkflowError):  # noqa: N818 - not an error of anybody: the message came too late, or twice
    """The attempt is not to be run: somebody else has it, it is over, or the run is."""

    def __init__(self, correlation: Correlation, reason: str) -> None:
        self.correlation = correlation
        self.reason = reason
        super().__init__(f"attempt {correlation} is not run: {reason}")


class Renewal(NamedTuple):
    """The answer to a renewed lease."""

    #: False: the lease is no longer ours, and what the attempt does will be refused
    alive: bool
    #: the run is to stop
    cancelled: bool


def limits_of(
    correlation: Correlation,
    definition: Definition,
    timeout: float | None,
    heartbeat_timeout: float | None,
    task: str = "",
) -> tuple[int, int]:
    """The time limit and the time between heartbeats that an attempt gets, in ms; 0 is none.

    What the step says goes before what its worker says; an undo has its own worker's, and so has a probe.
    """
    step = definition.own(correlation.step)
    if correlation.direction is Direction.DO and task != step.resolve_with:
        timeout = timeout if step.timeout is None else step.timeout
        heartbeat_timeout = heartbeat_timeout if step.heartbeat_timeout is None else step.heartbeat_timeout
    return round((timeout or 0) * 1000), round((heartbeat_timeout or 0) * 1000)


_STATUS = {status.value: status for status in RunStatus}

_NO_CALLS: Mapping[str, CalledTool] = MappingProxyType({})

#: Why a claim was refused: the number that the script returns, in words.
REFUSED = {
    1: "there is no such run, or it has been forgotten",
    2: "the run does not wait for this attempt (any more)",
    3: "another worker holds it",
    4: "it is of an earlier run with this id",
}


class Header(NamedTuple):
    """What a claim reads of a run's header, as it is stored; None is for a field that is not there."""

    status: str
    stop: str | None
    epoch: str
    error: str | None
    cause: str | None
    signals: str | None
    generation: str | None
    sizes: str | None
    parent: str | None
    rollbacks: str | None


class StoredClaim(NamedTuple):
    """What a store has read for a claim, as it is stored.

    Attributes:
        correlation: the attempt.
        definition: what its run follows.
        owner: the lease's token.
        now_ms: the store's clock.
        deadline_ms: the attempt's time limit by that clock; 0 is none.
        header: of the run.
        step: the step's state.
        context: the stored context: keys with their JSON; empty where it is not read (`reads_context`).
        values: fields of the run's results with their JSON, of those that `fields_of` names.
    """

    correlation: Correlation
    definition: Definition
    owner: str
    now_ms: int
    deadline_ms: int
    header: Header
    step: str
    context: Mapping[str, str]
    values: Mapping[str, str]

    def decode(self, reading: Callable[[], Reading]) -> Claim:
        """Put the claim together.

        Args:
            reading: gives what opens values that are more than JSON.

        Raises:
            DecodeError: when something of it cannot be opened.
            StateStoreError: when something of it is kept apart, and that place does not answer.
        """
        try:
            return self.decode_plain()
        except ValueError:
            # Looked at only now: where all of it is plain JSON, which is so without any setting, this costs nothing.
            header_and_step = (self.header.error, self.step)
            if not any(map(has_marks, (self.values.values(), self.context.values(), header_and_step))):
                raise
        return self._decode_opened(reading())

    def _decode_opened(self, opens: Reading) -> Claim:
        """Put it together where some of it went through codecs, or is kept apart."""
        header = self.header._replace(error=opens.text(self.header.error))
        stored = self._replace(header=header, step=opens.text(self.step) or "")
        texts = _by_place(self.context, self.values)
        correlation = self.correlation
        if f"n:{correlation.step}" not in self.values or map_of(correlation.step) is not None:
            context, values = _apart(opens.texts(texts))
            return stored._replace(context=context, values=values).decode_plain()
        # A step with inputs of its own does not read the context, and an undo of it no other results.
        own = {("v", f"n:{correlation.step}"), ("v", f"r:{correlation.step}")}
        undo = correlation.direction is Direction.UNDO
        needed = {place for place in texts if place in own or (place[0] == "v" and place[1][:2] == "r:" and not undo)}
        later = {place: text for place, text in texts.items() if place not in needed}
        context, values = _apart(opens.texts({place: texts[place] for place in needed}))
        definition = self.definition.expanded(sizes_of(self.header.sizes), rollbacks_of(self.header.rollbacks))
        parts = _parts(correlation, definition)
        deferred = DeferredContext(opens, {**later, **_by_place(context, values)}, definition, parts)
        return stored._replace(context=context, values=values).decode_plain(deferred)

    def decode_plain(self, merged: Mapping[str, Any] | None = None) -> Claim:
        """Put the claim together where all of it is plain JSON.

        Args:
            merged: the context, if it is not to be made of what was read here.

        Raises:
            ValueError: when something is not.
        """
        correlation, values, header = self.correlation, self.values, self.header
        sizes, rollbacks = sizes_of(header.sizes), rollbacks_of(header.rollbacks)
        state = StepState.decode(self.step)
        called = _NO_CALLS if state.called is None else {correlation.step: state.called}
        definition = self.definition.expanded(sizes, rollbacks, called)
        undo = correlation.direction is Direction.UNDO
        parts = _parts(correlation, definition)
        results: Mapping[str, Any] = _results(values, parts)
        given = f"n:{correlation.step}" in values
        own_input = from_json(values[f"n:{correlation.step}"]) if given else {}
        if called:  # its arguments
            merged = own_input
        elif (name := map_of(correlation.step)) is not None:
            own_input = merged = {**as_given(name, from_json(values[f"n:{name}"])), **own_input}
        elif merged is None:
            merged = _merged_context(definition, self.context, values["i"], results, parts)
            if not given:
                # That is the worker's own, who may do with it as it likes. What follows is decided by what is stored.
                own_input, merged = merged, Reread(partial(_reread, definition, self.context, values, parts))
                results = Reread(partial(_results, values, parts)) if results else results
        elif not given:
            own_input = merged
        error = ErrorInfo.model_validate_json(header.error) if header.error else None
        result = None
        context: Any = own_input if given else dict(own_input)
        if undo:
            returned = values.get(f"r:{correlation.step}")
            if returned is not None:
                result = from_json(returned)
            elif state.outcome == "succeeded":
                result = definition.own(correlation.step).silence
            if isinstance(own_input, dict) and not called:
                context = {**own_input, **as_mapping(correlation.step, result)}
        return Claim(
            correlation=correlation,
            definition=definition,
            context=context,
            input=own_input,
            owner=self.owner,
            state=RunState(
                correlation.transaction_id,
                definition.name,
                definition.version,
                definition.content_hash,
                _STATUS[header.status],
                {correlation.step: state},
                error=error,
                cause=Cause(header.cause) if header.cause else None,
                sizes=sizes,
                rollbacks=rollbacks,
                parent=parent_of(header.parent),
                nonce=correlation.nonce,
                home=None,
                called=called,
            ),
            epoch=int(header.epoch),
            merged=merged,
            now=from_ms(self.now_ms),
            parts=results,
            result=result,
            outcome=state.outcome if undo else None,
            error=error if undo else None,
            deadline=from_ms(self.deadline_ms) if self.deadline_ms else None,
            cancelled=bool(header.stop),
            signals_wait=bool(header.signals),
            generation=int(header.generation or 1),
        )


def fields_of(correlation: Correlation, definition: Definition) -> list[str]:
    """The fields of a run's results that running an attempt, and deciding it, needs."""
    name = map_of(correlation.step)
    fields = ["i" if name is None else f"n:{name}", f"n:{correlation.step}"]
    fields += [f"r:{part}" for part in _parts(correlation, definition)]
    if correlation.direction is Direction.UNDO:
        fields.append(f"r:{correlation.step}")
    return fields


def reads_context(correlation: Correlation) -> bool:
    """Whether an attempt is given the stored context: an undo has that of its step, an item of a map its own."""
    return correlation.direction is Direction.DO and map_of(correlation.step) is None


def _parts(correlation: Correlation, definition: Definition) -> Sequence[str]:
    if map_of(correlation.step) is not None:
        return ()
    # The stored context has what came before on the trunk; an undo needs what there was when its step ran.
    undo = correlation.direction is Direction.UNDO
    return definition.ancestors(correlation.step) if undo else definition.parts(correlation.step)


def _results(values: Mapping[str, str], parts: Iterable[str]) -> dict[str, Any]:
    return {part: from_json(values[f"r:{part}"]) for part in parts if f"r:{part}" in values}


def _reread(
    definition: Definition, context: Mapping[str, str], values: Mapping[str, str], parts: Sequence[str]
) -> dict[str, Any]:
    return _merged_context(definition, context, values["i"], _results(values, parts), parts)


def _merged_context(
    definition: Definition, context: Mapping[str, str], given: str, results: Mapping[str, Any], parts: Iterable[str]
) -> dict[str, Any]:
    """The context of a step: the run's input, what trunk steps have returned, and what ran beside the way to it."""
    merged: dict[str, Any] = from_json(given)
    merged.update((key, from_json(value)) for key, value in context.items())
    return merge(definition, merged, results, parts)


def _by_place(context: Mapping[str, str], values: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """The stored context and the other values in one: a context may have a key that is also the name of a field."""
    return {("c", key): text for key, text in context.items()} | {("v", name): text for name, text in values.items()}


def _apart(texts: Mapping[tuple[str, str], str]) -> tuple[dict[str, str], dict[str, str]]:
    """The inverse of `_by_place`."""
    context = {key: text for (place, key), text in texts.items() if place == "c"}
    return context, {name: text for (place, name), text in texts.items() if place == "v"}


class Reread(Mapping[str, Any]):
    """What was read for the worker, read once more when it is first asked for.

    Args:
        read: reads it.
    """

    __slots__ = ("_found", "_read")

    def __init__(self, read: Callable[[], dict[str, Any]]) -> None:
        self._read = read
        self._found: dict[str, Any] | None = None

    def _all(self) -> dict[str, Any]:
        if self._found is None:
            self._found = self._read()
        return self._found

    def __getitem__(self, key: str) -> Any:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class DeferredContext(Mapping[str, Any]):
    """A context that is read when it is first asked for."""

    def __init__(
        self, reading: Reading, texts: Mapping[tuple[str, str], str], definition: Definition, parts: Iterable[str]
    ) -> None:
        self._reading = reading
        self._texts = texts
        self._definition = definition
        self._parts = parts
        self._merged: dict[str, Any] | None = None

    def _read(self) -> dict[str, Any]:
        if self._merged is None:
            context, values = _apart(self._reading.texts(self._texts))
            results = _results(values, self._parts)
            self._merged = _merged_context(self._definition, context, values["i"], results, self._parts)
        return self._merged

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())
