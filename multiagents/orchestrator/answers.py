"""Where user code is asked: ``when`` and ``inputs``.

The core never calls them. The shell does, and what they answered is recorded in the event that commits, so that a
replay reads the answer and does not ask again. A callable that raises is a definite failure of its step that names it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from multiagents.events import CommandEvent, ErrorEvent, ErrorInfo, Event, StatusEvent
from multiagents.exceptions import DecodeError
from multiagents.state_store.base import dumps
from multiagents.workflow.decider import SKIPPED, Ask
from multiagents.workflow.step import StepDefinition


class CodeElsewhereError(Exception):
    """This process lacks the code of a callable: the decision belongs to a process that has it."""

    def __init__(self, step: str) -> None:
        self.step = step
        super().__init__(step)


def asker(
    context_of: Callable[[str], dict[str, Any]],
    input_of: Callable[[str, dict[str, Any]], Any],
    waits_too_long: Callable[[str], bool] = lambda _step: False,
) -> Ask:
    """Make the `Ask` for one decision.

    Args:
        context_of: the context of a step, loaded when it is first needed.
        input_of: applies a mapping ``inputs``, which is data.
        waits_too_long: whether a step whose code is not here is to be given up (rule S27).
    """

    def ask(step: StepDefinition, command: CommandEvent) -> Event:
        if step.when is None and step.inputs is None:
            return command
        if step.lacks_code:
            if not waits_too_long(step.name):
                raise CodeElsewhereError(step.name)
            return _nobody_has_it(step, command)
        name = "when" if step.when is not None else "inputs"
        try:
            context = context_of(step.name)
        except DecodeError as error:
            return _raised(step, command, name, error)
        name = "when"
        try:
            if step.when is not None and not step.when(dict(context)):
                return StatusEvent(
                    id=f"{command.transaction_id}/{SKIPPED}/{step.name}",
                    transaction_id=command.transaction_id,
                    timestamp=command.timestamp,
                    occurred_at=command.occurred_at,
                    step=step.name,
                    status=SKIPPED,
                    reason="its when was false",
                )
            if step.inputs is None:
                return command
            name = "inputs"
            given = step.inputs(dict(context)) if callable(step.inputs) else input_of(step.name, context)
            dumps(given)
        except Exception as error:  # noqa: BLE001 - whatever user code raises is the failure of its step
            return _raised(step, command, name, error)
        return command.model_copy(update={"payload": given})

    return ask


def _nobody_has_it(step: StepDefinition, command: CommandEvent) -> ErrorEvent:
    name = "when" if step.when is not None else "inputs"
    message = (
        f"{name}= of step {step.name!r} is code, and no worker process that has it came within the step's "
        f"schedule_to_start; import the module that builds the workflow in the workers"
    )
    return _failed(step, command, ErrorInfo(type="multiagents.exceptions.WorkerNotFoundError", message=message))


def _raised(step: StepDefinition, command: CommandEvent, name: str, error: Exception) -> ErrorEvent:
    kind = type(error)
    type_name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message = (
        f"{name}= of step {step.name!r} raised {type_name}: {error}; it gets the context and has to return "
        f"{'a truth value' if name == 'when' else 'what can be written as JSON'}"
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
