"""Where user code answers: ``when``, ``inputs``, the chooser of a choice, the list of a map, how long to sleep, what to
lock.

The core never calls it. It hands out questions (`multiagents.workflow.decider.questions`); here they are answered, and
what was answered is recorded in the event that commits, so that a replay reads the answer and does not ask again. A
callable that raises is a definite failure of its step that names it. What a question lacks of the run's data (of a
signal, of a map's items) is put in here, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

from pydantic_core import from_json

from multiagents.clock import LONGEST_IN_WORDS, in_seconds, is_duration, to_ms
from multiagents.error_report import report
from multiagents.events import CommandEvent, ErrorEvent, ErrorInfo, Event, StatusEvent
from multiagents.exceptions import WorkflowError
from multiagents.interruption import is_interrupted
from multiagents.orchestrator.engine.version_check import code_is_elsewhere
from multiagents.orchestrator.engine.view import RunView
from multiagents.plain_json import dumps, plain
from multiagents.settings import Settings
from multiagents.state_store.records import Snapshot
from multiagents.workflow.decider import Fact, Question, as_given, has_result, rejected, result_of, signal_id
from multiagents.workflow.definition import (
    ITEM_KEYS,
    Definition,
    StepDefinition,
    StepKind,
    checked_key,
    filled_template,
    item_name,
)

#: How many items a map may have. They are known to the store as steps, all of them from one commit on.
MAX_ITEMS = 100_000
#: Characters that an error shows of what was answered.
MAX_SHOWN = 80
#: Of how many steps a process remembers that it has left them to others.
MAX_LEFT = 10_000
#: Of how many definitions it is remembered that their code is elsewhere.
MAX_LACKING = 50


class Answers:
    """Answers the questions of one decision.

    Args:
        view: the run that is decided upon.
        event: what it is decided upon, if it is an event.
        max_bytes: how large what user code answers may be, as JSON.
        waits_too_long: whether a step whose code is not here is to be given up (rule S27).
        redact: what may be shown of data; None is all.
    """

    def __init__(
        self,
        view: RunView,
        event: Event | None,
        max_bytes: int,
        waits_too_long: Callable[[str], bool] = lambda _step: False,
        redact: Callable[[Any], Any] | None = None,
    ) -> None:
        self._redact = redact
        self._view = view
        self._event = event
        self._max_bytes = max_bytes
        self._waits_too_long = waits_too_long

    def __call__(self, question: Question) -> Event | None:
        """The event that is recorded; None when it takes what is not here."""
        step, event = question.step, question.event
        if isinstance(event, StatusEvent):
            return self._received(step, event) if event.status == Fact.RECEIVED else self._gathered(question, event)
        assert isinstance(event, CommandEvent)
        if step.kind is StepKind.MAP and not self._view.expands:
            return None
        if step.lacks_code:
            return _nobody_has_it(question.definition, step, event) if self._waits_too_long(step.name) else None
        evaluation = _Evaluation(step, self._max_bytes)
        try:
            context = self._view.context(question.definition, step.name, self._fresh(question))
            return evaluation.of(context, event, question.definition)
        except BaseException as error:
            if is_interrupted(error):
                raise
            return _raised(evaluation, event, error)

    def _fresh(self, question: Question) -> dict[str, Any]:
        """Results that no store has yet: of the event that has come, and of what this decision has said so far."""
        return dict(self._told(question))

    def _told(self, question: Question) -> Iterator[tuple[str, Any]]:
        """The same, in the order in which they came."""
        events = question.before if self._event is None else (self._event, *question.before)
        return ((event.step, result_of(event)) for event in events if event.step and has_result(event))

    def _received(self, step: StepDefinition, event: StatusEvent) -> Event:
        """A step takes a signal, which has just come or is kept: its data is put in."""
        taken, come = signal_id(step.signal or "", event.payload["key"]), self._event
        if isinstance(come, StatusEvent) and come.status == Fact.SIGNALLED and _id_of(come) == taken:
            data, actor, reason = come.payload["data"], come.actor, come.reason
        else:
            data = self._view.payloads().signals.get(taken)
            kept = (signal for signal in self._view.state.signals if signal_id(signal.name, signal.key) == taken)
            actor, reason = next(((signal.actor, signal.reason) for signal in kept), (None, None))
        told: dict[str, Any] = {"payload": {**event.payload, "data": data}}
        if event.error is not None:
            shown = None if self._redact is None else self._redact(data)
            told["error"] = rejected(step.name, data, actor=actor, reason=reason, shown=shown)
        return event.model_copy(update=told)

    def _gathered(self, question: Question, event: StatusEvent) -> Event | None:
        """The items of a map are done: the list of their results is put in."""
        if not self._view.whole:
            return None
        known = {**self._view.results(), **dict(self._told(question))}
        items = [item_name(question.step.name, index) for index in range(event.payload["count"])]
        gathered = [known.get(item) for item in items]
        return event.model_copy(update={"payload": {**event.payload, "results": gathered}})


def _id_of(come: StatusEvent) -> str:
    return signal_id(come.payload["signal"], come.payload["key"])


class CodeElsewhere:
    """Remembers since when this process has seen steps wait for code that it lacks, and how long that may go on (S27).

    Since when they have been due does not count: while a run was paused, or no worker was there, nobody could begin
    them.

    Args:
        settings: the deployment's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: (run, step) -> when it was seen first, in ms of the store's clock
        self._since: dict[tuple[str, str], int] = {}
        #: content hash -> in words what this process has in its place, of definitions whose code it lacks
        self.lacks: dict[str, str] = {}
        #: what is to be said of these and has not been; in a pool process it stays so, and its parent says it
        self.unsaid: list[str] = []

    def tell(self, definition: Definition, transaction_id: str, step: str) -> None:
        """Note, once for each content, that a run waits for a process that has the code of a step."""
        if definition.content_hash in self.lacks:
            return
        found = self.lacks[definition.content_hash] = code_is_elsewhere(definition)
        if len(self.lacks) > MAX_LACKING:
            del self.lacks[next(iter(self.lacks))]
        said = (
            f'run {transaction_id} waits for a worker that has this content of workflow "{definition.name}" version '
            f'"{definition.version}", for the code of its step "{step}": {found}; deploy that content to the workers'
        )
        self.unsaid = [*self.unsaid[-MAX_LACKING:], said]

    def too_long(self, snapshot: Snapshot, step: str) -> bool:
        """Whether a step has waited for its ``schedule_to_start``, and a lease at least, since it was seen first."""
        if step not in snapshot.definition.steps:
            return False  # It is one of a pass, or of a map, that this very decision begins.
        now = to_ms(snapshot.now)
        since = self._since.setdefault((snapshot.state.identity, step), now)
        if len(self._since) > MAX_LEFT:
            del self._since[next(iter(self._since))]
        limit = snapshot.definition.steps[step].schedule_to_start or self._settings.schedule_to_start
        return now - since >= max(limit, self._settings.lease) * 1000


class _Evaluation:
    """One step's code, evaluated in turn.

    Attributes:
        step: whose code it is.
        name: the parameter that is evaluated now: an error names it.
        answered: it has answered, and that is being looked at.
    """

    def __init__(self, step: StepDefinition, max_bytes: int) -> None:
        self.step = step
        self.name = next(name for name in _EXPECTED if getattr(step, name, None) is not None)
        self.answered = False
        self._max_bytes = max_bytes

    @property
    def place(self) -> str:
        """Where it is written."""
        return f"{self.name}= of step {self.step.name!r}"

    def of(self, context: dict[str, Any], command: CommandEvent, definition: Definition) -> Event:
        step = self.step
        if step.when is not None and not self._asked("when", step.when, context, bool):
            return settled(step.name, command, Fact.SKIPPED, reason="its when was false")
        if step.chooser is not None:
            label = self._label(self._asked(getattr(step.chooser, "parameter", "chooser"), step.chooser, context))
            return settled(step.name, command, Fact.CHOSEN, payload={"label": label})
        if step.item is not None:
            return settled(step.name, command, Fact.EXPANDED, payload=self._expanded(step.item, context, definition))
        if callable(step.seconds):
            seconds = self._seconds(self._asked("seconds", step.seconds, context))
            return command.model_copy(update={"payload": {"seconds": seconds}})
        if step.key is not None:
            return command.model_copy(update={"payload": {"key": self._key(step.key, context)}})
        if step.inputs is None:
            return command
        if callable(step.inputs):
            given = self._plain(self._asked("inputs", step.inputs, context))
        else:
            self.name, self.answered = "inputs", False
            given = definition.input_of(step.name, context)
            self.answered = True
            given = plain(given, f"{self.place}: what it takes")
        if step.kind is StepKind.CHILD and not isinstance(given, dict):
            raise self._refused(f"is {type(given).__name__}, and the input of a run is a dict")
        return command.model_copy(update={"payload": given})

    def _asked(
        self,
        name: str,
        code: Callable[[dict[str, Any]], Any],
        context: Mapping[str, Any],
        read: Callable[[Any], Any] | None = None,
    ) -> Any:
        """What code answers; it gets a copy of its own, for what it changes there is not the run's data."""
        self.name, self.answered = name, False
        answer = code(from_json(dumps(context)))
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            self.answered = True
            raise self._refused("is a coroutine: expected an ordinary function")
        if read is not None:
            answer = read(answer)
        self.answered = True
        return answer

    def _refused(self, why: str) -> WorkflowError:
        return WorkflowError(f"{self.place}: its answer {why}")

    def _plain(self, answer: Any, what: str = "answer") -> Any:
        return plain(answer, f"{self.place}: its {what}", max_bytes=self._max_bytes)

    def _label(self, answer: Any) -> str:
        branches = self.step.branches
        if isinstance(answer, str) and answer in branches:
            return str.__str__(answer)
        if self.step.default is None:
            shown = repr(answer[:MAX_SHOWN]) if isinstance(answer, str) else type(answer).__name__
            raise self._refused(f"is {shown}, and there is no branch of that name ({', '.join(branches)})")
        return self.step.default

    def _seconds(self, answer: Any) -> float:
        seconds = in_seconds(answer)
        if isinstance(seconds, Decimal | Real) and not isinstance(seconds, bool):
            try:
                seconds = float(seconds)
            except (OverflowError, ValueError):
                seconds = float("inf")
        if not is_duration(seconds, zero=True):
            shown = repr(seconds) if isinstance(seconds, float) else type(answer).__name__
            expected = f"expected a number, 0 or more seconds, or a timedelta; {LONGEST_IN_WORDS}"
            raise self._refused(f"is no time to sleep: it is {shown}; {expected}")
        return float(seconds)

    def _key(self, key: str | Callable[[dict[str, Any]], str], context: dict[str, Any]) -> str:
        if not callable(key):
            self.name, self.answered = "key", False
            return filled_template(key, context)
        answer = self._asked("key", key, context)
        try:
            return checked_key(answer)
        except WorkflowError as error:
            raise self._refused(f"is no key: {error}") from None

    def _expanded(self, item: StepDefinition, context: dict[str, Any], definition: Definition) -> dict[str, Any]:
        """The items of a map, the context that they share, which is without their list, and what each is given."""
        step, over = self.step, self.step.over
        if callable(over):
            items, shared = self._asked("over", over, context), context
        else:
            self.name, self.answered, path = "over", False, str(over)
            items = definition.narrowed(step.name, {"over": path}, context)["over"]
            self.answered, shared = True, without(context, path)
        if not isinstance(items, list | tuple):
            raise self._refused(f"is {type(items).__name__}, and a map runs over a list")
        if len(items) > MAX_ITEMS:
            raise self._refused(
                f"is a list of {len(items):,}, and a map takes {MAX_ITEMS:,} at most: give it slices as its items"
            )
        items, shared = self._plain(items), plain(shared, f"{self.place}: what the items share")
        given: Sequence[Any] = ()
        if item.inputs is not None:
            shared, given = self._narrowed(item.inputs, context, items, definition)
        return {"count": len(items), "items": items, "shared": shared, "given": given}

    def _narrowed(
        self, inputs: Any, context: Mapping[str, Any], items: Sequence[Any], definition: Definition
    ) -> tuple[Any, list[Any]]:
        """What ``inputs`` answer for all items of a map, and for each; they see ``item`` and ``index``."""
        name = self.step.name
        each = [{**context, "item": item, "index": index} for index, item in enumerate(items)]
        if callable(inputs):
            answers = self._plain([self._asked("inputs", inputs, seen) for seen in each], "answers")
            return {}, [as_given(name, answer) for answer in answers]
        self.name, self.answered = "inputs", False
        own = {
            argument: path for argument, path in inputs.items() if {argument, path.partition(".")[0]} & set(ITEM_KEYS)
        }
        common = {argument: path for argument, path in inputs.items() if argument not in own}
        shared = definition.narrowed(name, common, context)
        return shared, [definition.narrowed(name, own, seen) for seen in each] if own else []


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
    "until": "a truth value",
    "over": "a list of what can be written as JSON",
    "seconds": "a number of seconds",
    "key": "the key to lock",
    "inputs": "what can be written as JSON",
}


def _nobody_has_it(definition: Definition, step: StepDefinition, command: CommandEvent) -> ErrorEvent:
    name = next(name for name in _EXPECTED if getattr(step, name, None) is not None)
    message = (
        f"{name}= of step {step.name!r} is code of workflow {definition.name!r} version {definition.version!r}, and no "
        f"worker process that has it came within the step's schedule_to_start ({code_is_elsewhere(definition)}); have "
        f"the workers import the module that builds this version until its last run is over"
    )
    return _failed(step, command, ErrorInfo(type="multiagents.exceptions.WorkerNotFoundError", message=message))


def _raised(evaluation: _Evaluation, command: CommandEvent, error: BaseException) -> ErrorEvent:
    told = report(error, attempt=command.attempt)
    if not evaluation.answered:
        message = (
            f"{evaluation.place} raised {told.type}: {told.message}; it gets the context and has to return "
            f"{_EXPECTED[evaluation.name]}"
        )
        told = told.model_copy(update={"message": message})
    return _failed(evaluation.step, command, told)


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
