"""Signals: what comes to a run from outside, while it waits, before it does, or too late."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from multiagents.error_report import message_of
from multiagents.exceptions import UnknownSignalError, WorkflowError
from multiagents.orchestrator.engine.pipeline import Outcome
from multiagents.plain_json import plain
from multiagents.state_store.records import Verdict
from multiagents.workflow.decider import Answer, Lateness, answer_of, why_unclear
from multiagents.workflow.definition import Definition, StepDefinition, StepKind, code_elsewhere


class SignalOutcome(StrEnum):
    """What became of a signal."""

    #: a step that waited for it has it
    RECEIVED = "received"
    #: no step waits for it yet: it is kept for the one that will
    KEPT = "kept"
    #: no step can take it any more, or the run goes back or is over: it is on record, and changes nothing (rule S23)
    LATE = "late"
    #: a person has decided before, whatever this one says: it is on record, and changes nothing
    ALREADY_DECIDED = "already_decided"
    #: this very signal, by its name and key, has come before: nothing was done
    REPEATED = "repeated"


def fitting(definition: Definition, name: str, data: Any, max_bytes: int) -> Any:
    """A signal's data as it is recorded.

    It is checked where the signal is given, so that whoever gives it is told; where the code of the workflow is not
    loaded, no schema is asked.

    Raises:
        UnknownSignalError: when no step waits for such a signal.
        WorkflowError: when it cannot be written as JSON, is too large, does not fit the step's schema, or says neither
            yes nor no to an approval (rule S31).
    """
    waiting = [step for step in definition.steps.values() if step.signal == name]
    if not waiting:
        known = {step.signal for step in definition.steps.values() if step.signal is not None}
        raise UnknownSignalError(definition.name, name, sorted(known))
    what = f'signal "{name}" of workflow "{definition.name}" was not given: its data'
    given = data = plain(data, what, max_bytes=max_bytes)
    for step in waiting:
        data, refusal = checked(step, given, data, max_bytes)
        if refusal is not None:
            raise WorkflowError(
                f'signal "{name}" of workflow "{definition.name}" was not given: {refusal}; the run waits on: give the '
                f"signal again with data that fits"
            )
    return data


def checked(step: StepDefinition, given: Any, data: Any, max_bytes: int) -> tuple[Any, str | None]:
    """Data as a step that waits for it takes it, and why it does not, in words.

    An approval's answer is looked for in what was given: a schema may read ``"no"`` as a bool, or have a default.

    Args:
        step: what waits.
        given: the data as it was given.
        data: the same, as others that wait for it have read it.
        max_bytes: how large it may be as JSON once it is read.
    """
    if step.schema is not None and step.schema is not code_elsewhere:
        adapter = _adapter(step.schema)
        try:
            read = adapter.dump_python(adapter.validate_python(data), mode="json")
            data = plain(read, f'its data as the schema of step "{step.name}" reads it', max_bytes=max_bytes)
        except WorkflowError as error:
            return data, str(error)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'data'}: {each['msg']}" for each in error.errors()
            )
            return data, f'its data does not fit the schema of step "{step.name}": {problems}'
        except Exception as error:  # noqa: BLE001 - code of the user: validators, serializers
            return data, f'the schema of step "{step.name}" raised {type(error).__name__}: {message_of(error)}'
    if step.kind is StepKind.APPROVAL:
        if answer_of(given) is Answer.NONE:
            return (
                data,
                f'step "{step.name}" is an approval, and its data says neither yes nor no: {why_unclear(given)}',
            )
        if answer_of(data) is not answer_of(given):
            return data, (
                f'step "{step.name}" is an approval, and its schema does not keep a clear {answer_of(given)}: '
                f"{why_unclear(data)}; have the schema keep `approved` as it is"
            )
    return data, None


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def outcome_of(outcome: Outcome, name: str, key: str, late: Lateness | None) -> SignalOutcome:
    """What became of the signal that a decision was made upon.

    Args:
        outcome: the decision.
        name: of the signal.
        key: of the signal.
        late: why it was too late, if it was.
    """
    if outcome.verdict is not Verdict.APPLIED:
        return SignalOutcome.REPEATED
    if late is not None:
        return SignalOutcome.ALREADY_DECIDED if late.decided else SignalOutcome.LATE
    if any((signal.name, signal.key) == (name, key) for signal in outcome.after.signals):
        return SignalOutcome.KEPT
    return SignalOutcome.RECEIVED


def assert_same(transaction_id: str, name: str, key: str, data: Any, known: Any) -> None:
    """See that what is given again under one key is what was given before.

    Raises:
        WorkflowError: when it is not.
    """
    if data != known:
        raise WorkflowError(
            f'run {transaction_id!r} has signal "{name}" with key {key!r:.80} already, and with other data; nothing '
            f"was changed: a key names one signal, so give another one a key of its own"
        )
