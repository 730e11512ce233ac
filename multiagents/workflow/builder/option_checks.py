"""What is refused of the options of a workflow and of one element, and the sentences in which it is.

Every message names the workflow and the step, then says what was found, what was expected and what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import iscoroutinefunction
from typing import Any

from multiagents.clock import LONGEST_IN_WORDS, is_duration
from multiagents.exceptions import DefinitionError, did_you_mean
from multiagents.names import STEP_NAME, WORKFLOW_NAME
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder.elements import (
    Approval,
    Child,
    Choice,
    Element,
    Lock,
    Loop,
    Map,
    Parallel,
    Savepoint,
    Sleep,
    Step,
    Wait,
)
from multiagents.workflow.builder.workers import is_listing, taken_for_worker, worker_name
from multiagents.workflow.definition import ON_UNKNOWN, Definition, Limit, template_fields

__all__ = ["check_element", "check_workflow", "names_after"]

#: The largest whole number that an option takes.
MOST = 1_000_000
#: How many rounds a loop may have; each becomes steps of its own.
MAX_ITERATIONS = 100

_CHARACTERS = "1 to 128 of A-Z a-z 0-9 _ . : @ -, the first a letter, a digit or _"
#: Options that may be functions of the context.
_CODE = ("when", "inputs", "over", "key", "seconds", "chooser", "until")
#: What an item of a map cannot say of itself: its map does.
_OF_THE_MAP = ("after", "when", "pivot")


def check_workflow(
    name: Any, version: Any, *, deadline: Any, retention: Any, strict: Any, on_end: Any, model: Any = None
) -> None:
    """Refuse a name or version that cannot be a part of a key, and what else is said of a workflow as a whole."""
    if not isinstance(name, str) or not WORKFLOW_NAME.fullmatch(name):
        raise DefinitionError(f"workflow name {name!r} cannot be used; expected {_CHARACTERS}")
    if not isinstance(version, str) or not WORKFLOW_NAME.fullmatch(version):
        raise DefinitionError(
            f'workflow "{name}" has version {version!r}; expected a string, {_CHARACTERS}, such as version="2"'
        )
    for option, value in (("deadline", deadline), ("retention", retention)):
        if not _is_seconds(value):
            raise DefinitionError(
                f'workflow "{name}" has {option}={value!r:.80}; expected a number, more than 0 seconds, a timedelta, '
                f"or None; {LONGEST_IN_WORDS}"
            )
    if not isinstance(strict, bool):
        raise DefinitionError(f'workflow "{name}" has strict={strict!r}; expected True or False')
    _check_worker(f'workflow "{name}" itself', "on_end", on_end)
    if model is not None:
        _check_model(name, model)


def _check_model(workflow: str, model: Any) -> None:
    """Refuse a model that cannot be stored with the workflow, and what must not be."""
    for one in model if isinstance(model, list | tuple) and model else [model]:
        named = one.get("model") if isinstance(one, Mapping) else one
        if not isinstance(named, str) or not named.strip():
            raise DefinitionError(
                f'workflow "{workflow}" has model={type(one).__name__}; it is stored with the workflow, so it must '
                f'be a name such as "gemini/gemini-3.8-flash", a dict with "model", or a list of these; an object, '
                f"such as a dspy.LM, may be the worker's model= or multiagents_lm"
            )
        if isinstance(one, Mapping) and "api_key" in one:
            raise DefinitionError(
                f'workflow "{workflow}" has a model with an api_key, which would be stored with it; leave it out, and '
                f"set it in the environment of the workers"
            )


def check_element(workflow: str, element: Element, name: Any) -> None:
    """Refuse an element with an option that cannot be used, or with two that do not fit together.

    Args:
        workflow: the workflow's name.
        element: what was written.
        name: what it was called, whatever round of a loop it stands in.
    """
    kind = "block" if isinstance(element, Parallel) else "loop" if isinstance(element, Loop) else "step"
    if not isinstance(name, str) or not STEP_NAME.fullmatch(name):
        raise DefinitionError(
            f'workflow "{workflow}": {kind} name {name!r} cannot be used; expected {_CHARACTERS} '
            f"(brackets and # are kept for the items of a map and the rounds of a loop)"
        )
    _check_options(_Options(workflow, element, f'{"block" if kind == "block" else "step"} "{name}"'), element)


def names_after(workflow: str, step: str, given: Any) -> list[str]:
    """The names in an ``after``, which is one name or a list of names."""
    names: list[Any] = [given] if isinstance(given, str) else list(given) if is_listing(given) else [None]
    if not all(isinstance(name, str) for name in names):
        raise _refusal(
            f'workflow "{workflow}" step "{step}"',
            "after",
            given,
            'the name of a step or a block, or a list such as ["reserve"]',
        )
    return names


def _check_options(options: _Options, element: Element) -> None:
    options.code()
    match element:
        case Step():
            _check_step(options, element)
        case Parallel():
            _check_parallel(options, element)
        case Choice():
            _check_choice(options, element)
        case Loop():
            options.function("until", 'says whether it is done, such as lambda ctx: ctx["approved"]')
            options.whole(
                "max_iterations", f"a whole number from 1 to {MAX_ITERATIONS}: every loop is bounded", 1, MAX_ITERATIONS
            )
            options.one_of("on_exhausted", "continue", "fail")
        case Map():
            _check_map(options, element)
        case Child():
            _check_child(options, element)
        case Wait() | Approval():
            options.seconds("timeout", "to wait as long as it takes")
            options.one_of("on_timeout", "fail" if isinstance(element, Wait) else "reject", "continue")
            options.text("signal", "a name, or None for the step's own")
            options.flags("merge")
        case Sleep(seconds=seconds):
            if not callable(seconds) and (seconds is None or not _is_seconds(seconds, zero=True)):
                expected = "a number, 0 or more seconds, a timedelta, or a function of the context that answers one"
                raise options.refused("seconds", f"{expected}; {LONGEST_IN_WORDS}")
        case Lock(key=key):
            if not callable(key):
                _check_template(options, key)
            options.seconds("lease", "to hold it until the run is over")
            options.seconds("timeout", "to wait as long as it takes")
            options.one_of("on_timeout", "fail", "continue")
        case Savepoint():
            options.whole("retries", f"a whole number, at least 1; at most {MOST:,}")


class _Options:
    """The options of one element, and what is said of one that cannot be used.

    Args:
        workflow: the workflow's name.
        element: whose options they are.
        called: what messages call the element.
    """

    def __init__(self, workflow: str, element: Element, called: str) -> None:
        self.workflow = workflow
        self.where = f'workflow "{workflow}" {called}'
        self._element = element

    def of(self, option: str) -> Any:
        """An option as it was given, whatever its type."""
        return getattr(self._element, option, None)

    def refused(self, option: str, expected: str) -> DefinitionError:
        return _refusal(self.where, option, self.of(option), expected)

    def one_of(self, option: str, *known: str) -> None:
        if (given := self.of(option)) not in known:
            *others, last = (f'"{name}"' for name in known)
            raise self.refused(option, f"{', '.join(others)} or {last}{did_you_mean(str(given), known)}")

    def flags(self, *options: str) -> None:
        for option in options:
            if not isinstance(self.of(option), bool):
                raise self.refused(option, "True or False")

    def text(self, option: str, expected: str) -> None:
        given = self.of(option)
        if given is not None and (not isinstance(given, str) or not given.strip()):
            raise self.refused(option, expected)

    def whole(self, option: str, expected: str, low: int = 1, high: int = MOST) -> None:
        given = self.of(option)
        if isinstance(given, bool) or not isinstance(given, int) or not low <= given <= high:
            raise self.refused(option, expected)

    def seconds(self, option: str, none: str, *, zero: bool = False) -> None:
        if not _is_seconds(self.of(option), zero=zero):
            least = "0 or more seconds (0 is no limit)" if zero else "more than 0 seconds"
            raise self.refused(option, f"a number, {least}, a timedelta, or None {none}; {LONGEST_IN_WORDS}")

    def function(self, option: str, answers: str) -> None:
        if not callable(self.of(option)):
            raise self.refused(option, f"a function of the context that {answers}")

    def workers(self, *options: str) -> None:
        for option in options:
            _check_worker(self.where, option, self.of(option))

    def policies(self, *options: str) -> None:
        for option in options:
            given = self.of(option)
            if given is not None and not isinstance(given, RetryPolicy):
                attempts = given if isinstance(given, int) and not isinstance(given, bool) and given >= 0 else 3
                raise self.refused(option, f"a RetryPolicy; write {option}=RetryPolicy(max_attempts={attempts})")

    def code(self) -> None:
        """Refuse async functions, and a ``when`` or ``inputs`` that cannot be asked."""
        for option in _CODE:
            if iscoroutinefunction(self.of(option)):
                raise DefinitionError(
                    f"{self.where} has an async function as its {option}; expected a plain one: it only looks at the "
                    f"context, and anything that waits belongs in a step of its own"
                )
        if (when := self.of("when")) is not None and not callable(when):
            raise self.refused("when", 'a function of the context, such as lambda ctx: ctx["total"] > 0')
        inputs = self.of("inputs")
        if inputs is None or callable(inputs):
            return
        texts = [text for pair in inputs.items() for text in pair] if isinstance(inputs, Mapping) else [None]
        if not all(isinstance(text, str) and text for text in texts):
            expected = 'a mapping of argument to dotted path, such as {"amount": "order.total"}, or a function of the'
            raise self.refused("inputs", f"{expected} context")


def _check_step(options: _Options, step: Step) -> None:
    options.workers("worker", "compensation", "resolve_with", "reread")
    options.policies("retry", "undo_retry")
    options.seconds("timeout", "for the default", zero=True)
    for option in ("schedule_to_start", "schedule_to_close", "heartbeat_timeout"):
        options.seconds(option, "for the default")
    options.flags("cancel_safe", "external", "pivot", "compensate_on_failure", "local")
    options.text("queue", "a string that is not empty")
    options.text("no_compensation", "the reason, in words")
    options.text("summary", "a string that is not empty")
    options.one_of("on_unknown", *ON_UNKNOWN)
    options.one_of("on_failure", "fail", "park")
    if step.priority is not None:
        options.whole("priority", "a whole number from 0 to 9", 0, 9)
    if step.limit is not None and not isinstance(step.limit, Limit):
        raise options.refused("limit", 'a Limit, such as Limit("bank", concurrency=10)')
    if step.local and (step.external or step.heartbeat_timeout is not None):
        other = "external=True" if step.external else f"heartbeat_timeout={step.heartbeat_timeout!r}"
        raise DefinitionError(
            f"{options.where} has local=True and {other}; a local step is done on the spot, in milliseconds: remove "
            f"one of the two"
        )
    if step.reread is not None and not step.pivot:
        raise DefinitionError(
            f"{options.where} has reread={step.reread!r} and is no pivot; what is read again before the point of no "
            f"return belongs there: add pivot=True, or make it a step of its own"
        )
    _check_compensation(options, step)
    _check_probe(options, step)


def _check_compensation(options: _Options, step: Step) -> None:
    if step.compensation is not None:
        if step.no_compensation is not None:
            raise DefinitionError(
                f'{options.where} has compensation="{worker_name(step.compensation)}" and '
                f"no_compensation={step.no_compensation!r}; expected one of them: remove the other"
            )
        return
    for option in ("undo_retry", "compensate_on_failure"):
        if options.of(option):
            raise DefinitionError(
                f'{options.where} has {option} but nothing that undoes it; add compensation="worker", or remove '
                f"{option}"
            )


def _check_probe(options: _Options, step: Step) -> None:
    probe, where = worker_name(step.resolve_with), options.where
    if step.on_unknown == "resolve" and probe is None:
        raise DefinitionError(
            f'{where} has on_unknown="resolve" and no resolve_with; name the worker that finds out whether the step '
            f'took effect, or write on_unknown="park" to leave that to a person'
        )
    if probe is not None and step.on_unknown != "resolve":
        raise DefinitionError(
            f'{where} has resolve_with="{probe}" and on_unknown="{step.on_unknown}", so its probe would never be '
            f'asked; write on_unknown="resolve", or remove resolve_with'
        )
    if probe is not None and probe == (worker_name(step.worker) or step.name):
        raise DefinitionError(
            f'{where} has worker and resolve_with "{probe}"; a probe only looks whether the step took effect: expected '
            f"another worker"
        )


def _check_parallel(options: _Options, block: Parallel) -> None:
    options.one_of("on_failure", "wait", "cancel")
    if not is_listing(block.branches) or not block.branches:
        raise DefinitionError(
            f"{options.where} has branches {block.branches!r}; expected a list with at least one branch, each a Step, "
            f"a worker, or a list of these"
        )


def _check_choice(options: _Options, choice: Choice) -> None:
    options.function("chooser", 'answers a label, such as lambda ctx: ctx["kind"]')
    given: Any = choice.branches
    if not isinstance(given, Mapping) or not given or not all(isinstance(label, str) and label for label in given):
        raise options.refused(
            "branches", 'a mapping of labels to steps, such as {"invoice": "check_sums", "other": []}'
        )
    if choice.default is not None and choice.default not in given:
        labels = f"one of its labels{did_you_mean(str(choice.default), given)} ({', '.join(given)})"
        raise options.refused("default", f"{labels}, or None")


def _check_child(options: _Options, child: Child) -> None:
    if not isinstance(child.workflow, Definition | str):
        expected = "a definition, as build() returns it, or the name of a workflow that was built before"
        if callable(getattr(child.workflow, "build", None)):
            expected += ": end this builder with .build()"
        raise options.refused("workflow", expected)
    options.workers("compensation")
    options.policies("undo_retry")
    options.flags("detached")
    options.one_of("on_failure", "fail", "continue", "park")
    if child.detached and child.compensation is not None:
        raise DefinitionError(
            f"{options.where} is detached and has a compensation; a detached run is left alone, whatever becomes of "
            f"this one: remove one of the two"
        )
    if child.compensation is not None and child.no_compensation is not None:
        raise DefinitionError(f"{options.where} has compensation and no_compensation; expected one of them")


def _check_map(options: _Options, written: Map) -> None:
    over: Any = written.over
    if not callable(over) and (not isinstance(over, str) or not over):
        expected = 'a dotted path to a list in the context, such as "order.lines", or a function of the context'
        raise options.refused("over", expected)
    if written.max_concurrency is not None:
        options.whole("max_concurrency", f"a whole number from 1, or None for no limit; at most {MOST:,}")
    options.flags("compensate_each")
    options.workers("compensation")
    options.policies("undo_retry")
    where = f'workflow "{options.workflow}" map "{written.name}"'
    if written.compensation is None and not written.compensate_each:
        raise DefinitionError(
            f'{where} has compensate_each=False and no compensation; add compensation="worker", which undoes all items '
            f"in one go"
        )
    match item := written.worker_or_workflow:
        case Step() | Child():
            _check_options(_Options(options.workflow, item, f'step "{item.name}"'), item)
            _check_item(where, written, item)
        case Definition():
            pass
        case _:
            _check_worker(where, "worker", item)


def _check_item(where: str, written: Map, item: Step | Child) -> None:
    for option in _OF_THE_MAP:
        if given := getattr(item, option, None):
            raise DefinitionError(
                f"{where} has items with {option}={given!r}; all items run when the map does: give it to the map, or "
                f"leave it out"
            )
    if written.compensation is not None and item.no_compensation is not None:
        raise DefinitionError(f"{where} has a compensation, and its items a no_compensation; remove one of the two")
    if item.compensation is not None and written.compensation is not None:
        raise DefinitionError(f"{where} has a compensation, and so have its items; remove one of the two")


def _check_template(options: _Options, key: Any) -> None:
    why = "" if isinstance(key, str) and key.strip() else "it is no text"
    if not why:
        try:
            list(template_fields(key))
        except ValueError as error:
            why = str(error)
    if why:
        raise DefinitionError(
            f"{options.where} has key={key!r}, and {why}; expected what is meant, such as "
            f'"stock:{{sku}}", where {{sku}} is taken from the context'
        )


def _check_worker(where: str, option: str, given: Any) -> None:
    if given is None or worker_name(given) is not None:
        return
    if mistaken := taken_for_worker(given):
        found, instead = mistaken
        raise DefinitionError(f"{where} has {found} as its {option}, which is not a worker; {instead}")
    raise DefinitionError(
        f"{where} has {option}={given!r}; expected the name of a worker, a function decorated with @worker or a Celery "
        f"task"
    )


def _is_seconds(value: Any, *, zero: bool = False) -> bool:
    """Whether a value is None or a number of seconds: above 0, or with ``zero`` at least that."""
    return value is None or is_duration(value, zero=zero)


def _refusal(where: str, option: str, value: Any, expected: str) -> DefinitionError:
    return DefinitionError(f"{where} has {option}={value!r}; expected {expected}")
