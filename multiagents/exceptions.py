"""Every error the library raises.

::

    MultiAgentsError
     ├── ConfigurationError            a setting, the broker or the store is not as it must be
     ├── InvalidValueError             a policy or an event was given what it cannot have; a ValueError, too
     ├── DefinitionError               a workflow does not build
     │    ├── DuplicateStepError
     │    ├── UnknownStepError
     │    └── StepCycleError
     ├── WorkflowError                 a run cannot do what was asked of it
     │    ├── WorkflowNotFoundError
     │    ├── WorkflowAlreadyExistsError
     │    ├── WorkflowFailedError      the run ended, and not as completed
     │    ├── UnknownSignalError
     │    ├── WorkflowNotEndedError
     │    ├── UnexpectedEventError
     │    └── StateConflictError
     ├── WorkerError
     │    ├── WorkerNotFoundError
     │    ├── WorkerAlreadyRegisteredError
     │    ├── ProgramNotFoundError     what an agent has learned is not kept
     │    ├── ProgramMismatchError     or was learned for other code
     │    ├── TerminalError            raised by users: do not retry
     │    │    ├── NeedsAttentionError raised by users: a person has to look
     │    │    ├── ResolutionError     a probe's answer is none
     │    │    ├── LMNotConfiguredError
     │    │    ├── LMUnavailableError
     │    │    ├── ContextOverflowError
     │    │    └── BudgetExceededError
     │    ├── OutcomeUnknownError      raised by users: it may have taken effect
     │    ├── MCPUnavailableError      a server of tools does not answer; the attempt is tried again
     │    └── LMAnswerError            a language model's answer cannot be used; it is asked again
     │         ├── LMTruncatedError
     │         └── NoAnswerError
     ├── EventBusError
     ├── StateStoreError
     │    ├── StateRefusedError        the server is there, and refused this very call
     │    └── PayloadStoreError        the store for large payloads, or the archive, where it is another one
     └── DecodeError

A message says what happened with the values, what was expected, and what to do. Exceptions cross process borders, so
every one of them survives pickling with its attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

__all__ = [
    "BudgetExceededError",
    "ConfigurationError",
    "ContextOverflowError",
    "DecodeError",
    "DefinitionError",
    "DuplicateStepError",
    "EventBusError",
    "InvalidValueError",
    "LMAnswerError",
    "LMNotConfiguredError",
    "LMTruncatedError",
    "LMUnavailableError",
    "MCPUnavailableError",
    "MultiAgentsError",
    "NeedsAttentionError",
    "NoAnswerError",
    "OutcomeUnknownError",
    "PayloadStoreError",
    "ProgramMismatchError",
    "ProgramNotFoundError",
    "ResolutionError",
    "StateConflictError",
    "StateRefusedError",
    "StateStoreError",
    "StepCycleError",
    "TerminalError",
    "UndoMissingWarning",
    "UnexpectedEventError",
    "UnknownSignalError",
    "UnknownStepError",
    "WorkerAlreadyRegisteredError",
    "WorkerError",
    "WorkerNotFoundError",
    "WorkflowAlreadyExistsError",
    "WorkflowError",
    "WorkflowFailedError",
    "WorkflowNotEndedError",
    "WorkflowNotFoundError",
    "did_you_mean",
]


class UndoMissingWarning(UserWarning):
    """A workflow undoes some of its steps, and says of others neither how they are undone nor why they need not be."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Render ``; did you mean "charge"?`` for the nearest known name, or nothing when none is near.

    >>> did_you_mean("chrage", ["reserve", "charge"])
    '; did you mean "charge"?'
    """
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


class MultiAgentsError(Exception):
    """The root of every error of this library."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception rebuilds itself from ``args`` alone: that fails for those built from typed fields.
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(cls: type[MultiAgentsError], args: tuple[Any, ...], state: Mapping[str, Any]) -> MultiAgentsError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(MultiAgentsError):
    """A setting, the broker or the state store is not as it must be."""


class InvalidValueError(MultiAgentsError, ValueError):
    """A `RetryPolicy`, an event or another model of ours was given what it cannot have."""


class DefinitionError(MultiAgentsError):
    """A workflow definition cannot be built."""


class DuplicateStepError(DefinitionError):
    """Two steps of a definition have the same name."""

    def __init__(self, workflow: str, step: str) -> None:
        self.workflow = workflow
        self.step = step
        super().__init__(
            f'workflow "{workflow}" has two steps named "{step}"; names are how steps are told apart: rename one of '
            f"them"
        )


class UnknownStepError(DefinitionError):
    """A definition or an event names a step that the workflow does not have."""

    def __init__(self, workflow: str, step: str, known: Iterable[str], named_by: str | None = None) -> None:
        self.workflow = workflow
        self.step = step
        self.known = tuple(known)
        self.named_by = named_by
        who = f'step "{named_by}" waits for step "{step}"' if named_by else f'step "{step}" was named'
        steps = ", ".join(self.known) or "none"
        super().__init__(
            f'workflow "{workflow}": {who}, which is not defined{did_you_mean(step, self.known)} (steps: {steps})'
        )


class StepCycleError(DefinitionError):
    """Steps of a definition wait for each other in a circle."""

    def __init__(self, workflow: str, cycle: Iterable[str]) -> None:
        self.workflow = workflow
        self.cycle = tuple(cycle)
        super().__init__(
            f'workflow "{workflow}": steps wait for each other in a circle: {" -> ".join(self.cycle)}; '
            f"remove one of these after="
        )


class WorkflowError(MultiAgentsError):
    """A run cannot do what was asked of it."""


class WorkflowNotFoundError(WorkflowError):
    """No run, or no definition, has this name."""

    def __init__(self, name: str, message: str | None = None) -> None:
        self.name = name
        super().__init__(
            message
            or f"there is no run {name!r} in the state store; check the transaction id, the Redis database and whether "
            f"its retention has passed"
        )


class WorkflowAlreadyExistsError(WorkflowError):
    """A run with this transaction id exists, and the caller does not want that one.

    Attributes:
        transaction_id: the run.
        difference: what it was started with that is not the same; None when any run would have been refused.
    """

    def __init__(self, transaction_id: str, difference: str | None) -> None:
        self.transaction_id = transaction_id
        self.difference = difference
        super().__init__(
            f'run {transaction_id!r} exists already, and on_conflict="fail" asks for a new one; choose another '
            f'transaction id or idempotency key, or on_conflict="return" to get the existing run'
            if difference is None
            else f"run {transaction_id!r} exists already and was started with another {difference}; choose another "
            f"transaction id, or start it with the same workflow and input to get the existing run"
        )


class WorkflowFailedError(WorkflowError):
    """A run ended otherwise than as completed.

    Attributes:
        transaction_id: the run.
        status: how it ended, e.g. ``compensated``.
        error: the original error, with ``type``, ``message``, ``traceback``, ``attempt``, ``causes``; or None.
        steps: name of each step -> its status.
        live: the steps whose effects nobody has undone, as ``describe().live`` has them.
        step: the step whose error it is; None where it is none's, as that of a deadline.
    """

    def __init__(
        self,
        transaction_id: str,
        status: str,
        error: Any = None,
        steps: Mapping[str, str] | None = None,
        live: Iterable[str] = (),
        step: str | None = None,
    ) -> None:
        self.transaction_id = transaction_id
        self.status = status
        self.error = error
        self.steps = dict(steps or {})
        self.live = tuple(live)
        self.step = step
        of = f"step {step!r}: " if step else ""
        cause = f": {of}{error.type}: {error.message}" if error is not None else ""
        left = f", and what {', '.join(self.live)} did is not undone" if self.live else ""
        super().__init__(
            f"run {transaction_id!r} ended as {status}{left}{cause}; see .steps, or describe() and history() of the run"
        )


class UnknownSignalError(WorkflowError):
    """No step of a workflow waits for a signal of this name."""

    def __init__(self, workflow: str, signal: str, known: Iterable[str]) -> None:
        self.workflow = workflow
        self.signal = signal
        self.known = tuple(known)
        super().__init__(
            f'no step of workflow "{workflow}" waits for signal "{signal}"{did_you_mean(signal, self.known)} (signals: '
            f"{', '.join(self.known) or 'none'}); nothing was recorded"
        )


class WorkflowNotEndedError(WorkflowError):
    """What was asked for takes a run that has ended.

    Attributes:
        transaction_id: the run.
        status: where it stands.
        verb: what was asked for.
    """

    def __init__(self, transaction_id: str, status: str, verb: str) -> None:
        self.transaction_id = transaction_id
        self.status = status
        self.verb = verb
        super().__init__(
            f"run {transaction_id!r} is {status}, and {verb} takes a run that has ended; cancel() it and wait for its "
            f"end first"
        )


class UnexpectedEventError(WorkflowError):
    """An event does not fit the run it names."""


class StateConflictError(WorkflowError):
    """Other writers kept changing the run while this one tried to."""


class WorkerError(MultiAgentsError):
    """A worker cannot be found, registered or run."""


class WorkerNotFoundError(WorkerError):
    """No worker of this name is registered in this process."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name = name
        self.known = tuple(known)
        workers = ", ".join(sorted(self.known)) or "none"
        super().__init__(
            f'no worker named "{name}" is registered here{did_you_mean(name, self.known)} (registered: {workers}); '
            f"import the module that defines it, e.g. with app.autodiscover_tasks([...])"
        )


class WorkerAlreadyRegisteredError(WorkerError):
    """Two different functions claim one worker name."""

    def __init__(self, name: str, first: str, second: str) -> None:
        self.name = name
        super().__init__(
            f'worker "{name}" is registered already by {first}, and now by {second}; a worker is found by its name: '
            f"rename one of them"
        )


class ProgramNotFoundError(WorkerError):
    """A worker has no such program, or has one no more."""

    def __init__(self, worker: str, version: Any, known: Iterable[int] = ()) -> None:
        self.worker = worker
        self.version = version
        self.known = tuple(known)
        there = ", ".join(map(str, self.known)) or "none"
        super().__init__(
            f'worker "{worker}" has no program of version {version!r:.40} (kept are: {there}); see programs(); '
            f"optimize() makes one"
        )


class ProgramMismatchError(WorkerError):
    """A program was made for a worker that asked something else than its code does now."""

    def __init__(self, worker: str, version: int, differences: Iterable[str]) -> None:
        self.worker = worker
        self.version = version
        self.differences = tuple(differences)
        super().__init__(
            f'program {version} of worker "{worker}" does not fit what its code is now: {"; ".join(self.differences)}; '
            f"optimize the worker as it is, or deploy the code that the program was made for"
        )


class TerminalError(WorkerError):
    """Raise it from a worker to say: this failed, and trying again will not help.

    Args:
        args: what happened, in words.
        details: the same as data, for programs: anything that can be written as JSON, at most 16 KiB. It is in the
            history, in ``describe()`` and in ``current_step().error`` of the undos.

    >>> TerminalError("declined", details={"code": "insufficient_funds"}).details
    {'code': 'insufficient_funds'}
    """

    #: also of one whose author forgot to call this class
    details: Any = None

    def __init__(self, *args: Any, details: Any = None) -> None:
        self.details = details
        super().__init__(*args)


class NeedsAttentionError(TerminalError):
    """Raise it from a worker to say: this failed, and a person has to look before anything follows from it.

    The run is ``paused``, and nothing is undone, until somebody retries, skips or supplies the step, or cancels the
    run. An undo that raises it is parked, as one that failed for good.
    """


class ResolutionError(TerminalError):
    """A probe answered something that is no `Resolution`; asking it again would not help.

    Attributes:
        probe: the worker that was asked.
        step: the step it was asked about.
    """

    def __init__(self, probe: str, step: str, found: str) -> None:
        self.probe = probe
        self.step = step
        super().__init__(
            f'probe "{probe}" of step "{step}" answered with {found}; expected {{"outcome": "succeeded", "result": '
            f'...}}, {{"outcome": "failed"}} or {{"outcome": "unknown"}}, each with a "reason" in words if it likes'
        )


class OutcomeUnknownError(WorkerError):
    """Raise it from a worker to say: this may have taken effect (rule S1b)."""


class LMNotConfiguredError(TerminalError):
    """There is no language model to ask, or no key for it; nothing was asked, and nothing paid."""


class LMUnavailableError(TerminalError):
    """The provider of a language model was asked as often as ``lm_retry`` says, and does not answer."""


class ContextOverflowError(TerminalError):
    """What a language model is to read is longer than it can read."""


class BudgetExceededError(TerminalError):
    """The next call of a language model would cost more than its budget has left; it was not made."""


class LMAnswerError(WorkerError):
    """A language model has answered, and the answer cannot be used: the attempt has failed, and it is asked again."""


class LMTruncatedError(LMAnswerError):
    """The answer was cut off at the most tokens that the model may write."""


class NoAnswerError(LMAnswerError):
    """The answer lacks a field that the signature asks for."""


class MCPUnavailableError(WorkerError):
    """A server of tools (MCP) does not start, does not answer, or is gone: the attempt has failed.

    Attributes:
        called: whether a tool was called, which may have taken effect.
    """

    called = True


class EventBusError(MultiAgentsError):
    """The event bus cannot be reached, or refuses an event."""


class StateStoreError(MultiAgentsError):
    """The state store does not answer, or refuses a call; nothing acknowledged is lost."""


class StateRefusedError(StateStoreError):
    """The state store answers, and refuses this very call over what it is about; others may be done."""


class PayloadStoreError(StateStoreError):
    """The store for large payloads, or the archive, does not answer or refuses; nothing acknowledged is lost."""


class DecodeError(MultiAgentsError):
    """Stored or received data cannot be read."""
