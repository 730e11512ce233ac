"""Where user code is asked: ``when``, ``inputs``, the chooser of a choice, the list of a map, how long to sleep,
what to lock.

The core never calls them. The shell does, and what they answered is recorded in the event that commits, so that a
replay reads the answer and does not ask again. A callable that raises is a definite failure of its step that names it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from multiagents.events import CommandEvent, ErrorEvent, ErrorInfo, Event, StatusEvent
from multiagents.orchestrator.engine.version_check import code_is_elsewhere
from multiagents.state_store.payloads import dumps, merge
from multiagents.workflow.decider.decider import CHOSEN, GATHERED, LAID_OUT, REACHED, ROLLED_BACK, SKIPPED, Ask, advance
from multiagents.workflow.definition import (
    Definition,
    StepDefinition,
    StepKind,
    checked_key,
    filled_template,
    item_name,
)
from multiagents.workflow.state.run_state import RunState


class CodeElsewhereError(Exception):
    """This process lacks the code of a callable: the decision belongs to a process that has it."""

    def __init__(self, step: str) -> None:
        self.step = step
        super().__init__(step)


def asker(
    definition: Definition,
    context_of: Callable[[Definition, str], dict[str, Any]],
    *,
    data_of: Callable[[str], Any] | None = None,
    results: Callable[[], Mapping[str, Any]] | None = None,
    waits_too_long: Callable[[str], bool] = lambda _step: False,
) -> Ask:
    """Make the `Ask` for one decision.

    Args:
        definition: what the run follows.
        context_of: the context of a step, of the definition as it is by then, without what this decision adds; loaded
            when it is first needed.
        data_of: the data of a signal, by its key.
        results: gives the results of the run's steps; None where only a part of the run is in hand.
        waits_too_long: whether a step whose code is not here is to be given up (rule S27).
    """
    #: results that come of this very decision: the label of a choice, the data of a signal
    fresh: dict[str, Any] = {}

    def context(step: str) -> dict[str, Any]:
        known = dict(context_of(definition, step))
        return merge(known, fresh, definition.ancestors(step)) if fresh else known

    def ask(step: StepDefinition, said: Event) -> Event:
        nonlocal definition
        if isinstance(said, StatusEvent) and said.status in (REACHED, ROLLED_BACK):
            fresh[step.name] = said.payload["result"]
            if said.status == ROLLED_BACK:
                definition = definition.expanded(definition.sizes, (*definition.rollbacks, step.name))
            return said
        if step.kind is StepKind.MAP and results is None:
            raise WholeNeededError(step.name)
        if isinstance(said, StatusEvent) and said.status == GATHERED:
            assert results is not None
            known = results()
            items = [item_name(step.name, index) for index in range(said.payload["count"])]
            fresh[step.name] = gathered = [known.get(item) for item in items]
            return said.model_copy(update={"payload": {**said.payload, "results": gathered}})
        if not isinstance(said, CommandEvent):
            assert data_of is not None  # only a decision that was told of signals takes one
            data = data_of(said.payload["key"])
            fresh[step.name] = data
            return said.model_copy(update={"payload": {**said.payload, "data": data}})
        if step.inputs is None and step.key is None and not step.has_code and step.kind is not StepKind.MAP:
            return said
        if step.lacks_code:
            if not waits_too_long(step.name):
                raise CodeElsewhereError(step.name)
            return _nobody_has_it(definition, step, said)
        asked = _Asked(step)
        try:
            answer = asked.of(context(step.name), said, definition)
        except Exception as error:  # noqa: BLE001 - whatever user code raises is the failure of its step
            return _raised(step, said, asked.name, error)
        if isinstance(answer, StatusEvent) and answer.status == CHOSEN:
            fresh[step.name] = answer.payload["label"]
        return answer

    return ask


class WholeNeededError(CodeElsewhereError):
    """What a map is made of is looked at with the whole run in hand only."""


def advance_here(
    definition: Definition, state: RunState, *, ask: Ask, **how: Any
) -> tuple[RunState, tuple[Event, ...], CodeElsewhereError | None]:
    """Advance a run as far as the code that this process has goes: what needs no other code is not held up.

    Args:
        definition: what the run follows.
        state: the run.
        ask: made by `asker`.
        how: further arguments of `multiagents.workflow.decider.decider.advance`.

    Returns:
        The new state, what was said, and the error for a step whose code is elsewhere, if there is one.
    """
    elsewhere: dict[str, CodeElsewhereError] = {}
    while True:
        try:
            after, said = advance(definition, state, ask=ask, without=elsewhere, **how)
        except CodeElsewhereError as error:
            if error.step in elsewhere:
                raise
            elsewhere[error.step] = error
        else:
            return after, said, next(iter(elsewhere.values()), None)


class _Asked:
    """One step's code, asked in turn. ``name`` is what is asked now: an error names it."""

    def __init__(self, step: StepDefinition) -> None:
        self.step = step
        self.name = next(name for name in _EXPECTED if getattr(step, name) is not None)

    def of(self, context: dict[str, Any], command: CommandEvent, definition: Definition) -> Event:
        step = self.step
        if step.when is not None:
            self.name = "when"
            if not step.when(dict(context)):
                return settled(step.name, command, SKIPPED, reason="its when was false")
        if step.chooser is not None:
            self.name = "chooser"
            label = step.chooser(dict(context))
            if label not in step.branches:
                if step.default is None:
                    raise LookupError(f"there is no branch {label!r}")
                label = step.default
            return settled(step.name, command, CHOSEN, payload={"label": label})
        if step.item is not None:
            self.name = "over"
            items, shared = _items(step, context, definition)
            if step.item.inputs is not None:
                self.name = "inputs"
                narrow = step.item.inputs
                shared = narrow(dict(context)) if callable(narrow) else definition.narrowed(step.name, narrow, context)
                dumps(shared)
            return settled(
                step.name, command, LAID_OUT, payload={"count": len(items), "items": items, "shared": shared}
            )
        if callable(step.seconds):
            self.name = "seconds"
            seconds = float(step.seconds(dict(context)))
            if not (isfinite(seconds) and seconds >= 0):
                raise ValueError(f"{seconds} is no time to sleep")
            return command.model_copy(update={"payload": {"seconds": seconds}})
        if step.key is not None:
            self.name = "key"
            key = checked_key(step.key(dict(context))) if callable(step.key) else filled_template(step.key, context)
            return command.model_copy(update={"payload": {"key": key}})
        if step.inputs is None:
            return command
        self.name = "inputs"
        given = step.inputs(dict(context)) if callable(step.inputs) else definition.input_of(step.name, context)
        dumps(given)
        if step.kind is StepKind.CHILD and not isinstance(given, dict):
            raise TypeError(f"the input of a run is a dict, not {type(given).__name__}")
        return command.model_copy(update={"payload": given})


def _items(step: StepDefinition, context: dict[str, Any], definition: Definition) -> tuple[list[Any], Any]:
    """The items of a map, and the context that they share: that of the map without its list."""
    if callable(step.over):
        items, shared = step.over(dict(context)), context
    else:
        path = str(step.over)
        items, shared = definition.narrowed(step.name, {"over": path}, context)["over"], without(context, path)
    if not isinstance(items, list | tuple):
        raise TypeError(f"it is {type(items).__name__}, and a map runs over a list")
    dumps([items, shared])
    return list(items), shared


def without(context: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A context without what a dotted path leads to.

    >>> without({"order": {"id": 7, "lines": [1, 2]}}, "order.lines")
    {'order': {'id': 7}}
    """
    first, _, rest = path.partition(".")
    inner = context.get(first)
    kept = {key: value for key, value in context.items() if key not in (first, path)}
    return {**kept, first: without(inner, rest)} if rest and isinstance(inner, Mapping) else kept


def settled(step: str, of: Event, status: str, **facts: Any) -> StatusEvent:
    """What is decided of a step that nobody is asked to do, at the time of the event that led to it."""
    return StatusEvent(
        id=f"{of.transaction_id}/{status}/{step}",
        transaction_id=of.transaction_id,
        timestamp=of.timestamp,
        occurred_at=of.occurred_at,
        step=step,
        status=status,
        **facts,
    )


#: The code a step may have, in the order in which it is asked, and what it has to answer.
_EXPECTED = {
    "when": "a truth value",
    "chooser": "the label of one of its branches",
    "over": "a list of what can be written as JSON",
    "seconds": "a number of seconds",
    "key": "the key to lock",
    "inputs": "what can be written as JSON",
}


def _nobody_has_it(definition: Definition, step: StepDefinition, command: CommandEvent) -> ErrorEvent:
    name = next(name for name in _EXPECTED if getattr(step, name) is not None)
    message = (
        f"{name}= of step {step.name!r} is code of workflow {definition.name!r} version {definition.version!r}, and no "
        f"worker process that has it came within the step's schedule_to_start ({code_is_elsewhere(definition)}); have "
        f"the workers import the module that builds this version until its last run is over"
    )
    return _failed(step, command, ErrorInfo(type="multiagents.exceptions.WorkerNotFoundError", message=message))


def _raised(step: StepDefinition, command: CommandEvent, name: str, error: Exception) -> ErrorEvent:
    kind = type(error)
    type_name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message = (
        f"{name}= of step {step.name!r} raised {type_name}: {error}; it gets the context and has to return "
        f"{_EXPECTED[name]}"
    )
    shown = "".join(traceback.format_exception(error))[-16_384:]
    return _failed(step, command, ErrorInfo(type=type_name, message=message, traceback=shown, attempt=command.attempt))


def _failed(step: StepDefinition, command: CommandEvent, error: ErrorInfo) -> ErrorEvent:
    """The step failed for good before anybody was asked to do it."""
    return ErrorEvent(
        id=f"{command.correlation_id}/end",
        transaction_id=command.transaction_id,
        correlation_id=command.correlation_id,
        timestamp=command.timestamp,
        occurred_at=command.occurred_at,
        step=step.name,
        attempt=command.attempt,
        retryable=False,
        error=error,
    )
