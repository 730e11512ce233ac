"""What `WorkflowBuilder.build` refuses, and the sentences in which it does.

Every message names the workflow and the step, then says what was found, what was expected and what to write instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import iscoroutinefunction
from math import isfinite
from typing import TYPE_CHECKING, Any

from multiagents.exceptions import DefinitionError, did_you_mean
from multiagents.names import STEP_NAME, WORKFLOW_NAME
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder.elements import Approval, Node, Savepoint, Sleep, Wait
from multiagents.workflow.definition.rate_limit import Limit
from multiagents.workflow.definition.step import ON_UNKNOWN, StepDefinition

if TYPE_CHECKING:
    from multiagents.workflow.builder.elements import Choice, Loop, Step
    from multiagents.workflow.definition.definition import Definition

#: How many rounds a loop may have; each is laid out as steps of its own.
MAX_ITERATIONS = 100
#: What a failing branch of a parallel block may do to its siblings (rule S7).
ON_FAILURE = ("wait", "cancel")

_CHARACTERS = "1 to 128 of A-Z a-z 0-9 _ . : @ -, the first a letter, a digit or _"


def workflow_name(name: Any, version: Any) -> None:
    """Refuse a workflow's name or version that cannot be a part of a key."""
    if not isinstance(name, str) or not WORKFLOW_NAME.fullmatch(name):
        raise DefinitionError(f"workflow name {name!r} cannot be used; expected {_CHARACTERS}")
    if not isinstance(version, str) or not WORKFLOW_NAME.fullmatch(version):
        raise DefinitionError(
            f'workflow "{name}" has version {version!r}; expected a string, {_CHARACTERS}, such as version="2"'
        )


def name_of_step(workflow: str, name: Any, kind: str = "step") -> None:
    """Refuse the name of a step or a block that cannot be a part of a correlation id."""
    if not isinstance(name, str) or not STEP_NAME.fullmatch(name):
        raise DefinitionError(
            f'workflow "{workflow}": {kind} name {name!r} cannot be used; expected {_CHARACTERS} '
            f"(brackets and # are kept for the items of a map and the rounds of a loop)"
        )


def is_listing(value: Any) -> bool:
    """Whether a value is meant as a list: it can be walked through, and is not a text or a mapping."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def branches(workflow: str, block: str, given: Any) -> None:
    """Refuse a block whose branches are not a list, or an empty one."""
    if not is_listing(given) or not given:
        raise DefinitionError(
            f'workflow "{workflow}" block "{block}" has branches {given!r}; expected a list with at least one branch, '
            f"each a Step, a worker, or a list of these"
        )


def on_failure(workflow: str, block: str, given: Any) -> None:
    """Refuse an unknown ``on_failure``."""
    if given not in ON_FAILURE:
        raise DefinitionError(
            f'workflow "{workflow}" block "{block}" has on_failure={given!r}; expected "wait" or "cancel"'
            f"{did_you_mean(str(given), ON_FAILURE)}"
        )


def after(workflow: str, step: str, given: Any) -> list[str]:
    """The names in an ``after``, which is one name or a list of names."""
    names: list[Any] = [given] if isinstance(given, str) else list(given) if is_listing(given) else [None]
    if not all(isinstance(name, str) for name in names):
        raise refusal(workflow, step, "after", given, 'the name of a step or a block, or a list such as ["reserve"]')
    return names


def worker_name(worker: Any) -> str | None:
    """The name of a worker given by name, as a decorated function or as a Celery task; None when it has none."""
    if isinstance(worker, str):
        return worker.strip() or None
    for attribute in ("multiagents_name", "name"):
        name = getattr(worker, attribute, None)
        if isinstance(name, str) and name:
            return name
    return None


def step_options(workflow: str, step: Step) -> None:
    """Refuse a step whose options are not what they must be, or do not fit together."""
    for name in ("worker", "compensation", "resolve_with"):
        worker(workflow, f'step "{step.name}"', name, getattr(step, name))
    for name in ("retry", "undo_retry"):
        retry(workflow, step.name, name, getattr(step, name))
    for name in ("timeout", "schedule_to_start", "schedule_to_close", "heartbeat_timeout"):
        value = getattr(step, name)
        if not is_seconds(value, zero=name == "timeout"):
            expected = "0 or more seconds (0 is no limit)" if name == "timeout" else "more than 0 seconds"
            raise refusal(workflow, step.name, name, value, f"a number, {expected}, or None for the default")
    for name in ("cancel_safe", "external", "pivot", "compensate_on_failure", "local"):
        if not isinstance(getattr(step, name), bool):
            raise refusal(workflow, step.name, name, getattr(step, name), "True or False")
    for name in ("queue", "no_compensation", "summary"):
        value = getattr(step, name)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            expected = "the reason, in words" if name == "no_compensation" else "a string that is not empty"
            raise refusal(workflow, step.name, name, value, expected)
    if step.local and (step.external or step.heartbeat_timeout is not None):
        other = "external=True" if step.external else f"heartbeat_timeout={step.heartbeat_timeout!r}"
        raise DefinitionError(
            f'workflow "{workflow}" step "{step.name}" has local=True and {other}; a local step is done on the '
            f"spot, in milliseconds: remove one of the two"
        )
    if step.limit is not None and not isinstance(step.limit, Limit):
        raise refusal(workflow, step.name, "limit", step.limit, 'a Limit, such as Limit("bank", concurrency=10)')
    code(workflow, step)
    _choices(workflow, step)
    _compensation(workflow, step)


def choice(workflow: str, written: Choice) -> None:
    """Refuse a choice whose chooser, branches or default do not fit."""
    plain_function(workflow, written.name, "chooser", written.chooser)
    if not callable(written.chooser):
        expected = 'a function of the context that answers a label, such as lambda ctx: ctx["kind"]'
        raise refusal(workflow, written.name, "chooser", written.chooser, expected)
    given = written.branches
    if not isinstance(given, Mapping) or not given or not all(isinstance(label, str) and label for label in given):
        expected = 'a mapping of labels to steps, such as {"invoice": "check_sums", "other": []}'
        raise refusal(workflow, written.name, "branches", given, expected)
    if written.default is not None and written.default not in given:
        expected = f"one of its labels{did_you_mean(str(written.default), given)} ({', '.join(given)}), or None"
        raise refusal(workflow, written.name, "default", written.default, expected)


def loop(workflow: str, written: Loop, name: Any) -> None:
    """Refuse a loop whose bound or condition does not fit."""
    name_of_step(workflow, name, kind="loop")
    plain_function(workflow, name, "until", written.until)
    if not callable(written.until):
        expected = 'a function of the context that says whether it is done, such as lambda ctx: ctx["approved"]'
        raise refusal(workflow, name, "until", written.until, expected)
    rounds: Any = written.max_iterations
    if isinstance(rounds, bool) or not isinstance(rounds, int) or not 1 <= rounds <= MAX_ITERATIONS:
        expected = f"a whole number from 1 to {MAX_ITERATIONS}: every loop is bounded"
        raise refusal(workflow, name, "max_iterations", rounds, expected)
    if written.on_exhausted not in ("continue", "fail"):
        raise refusal(workflow, name, "on_exhausted", written.on_exhausted, "'continue' or 'fail'")


def node(workflow: str, written: Node) -> None:
    """Refuse a wait, an approval or a sleep whose options do not fit."""
    if isinstance(written, Savepoint):
        retries: Any = written.retries
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 1:
            raise refusal(workflow, written.name, "retries", retries, "a whole number, at least 1")
        return
    plain_function(workflow, written.name, "when", written.when)
    if written.when is not None and not callable(written.when):
        expected = 'a function of the context, such as lambda ctx: ctx["total"] > 0'
        raise refusal(workflow, written.name, "when", written.when, expected)
    if isinstance(written, Sleep):
        plain_function(workflow, written.name, "seconds", written.seconds)
        if not callable(written.seconds) and (written.seconds is None or not is_seconds(written.seconds, zero=True)):
            expected = "a number, 0 or more seconds, or a function of the context that answers one"
            raise refusal(workflow, written.name, "seconds", written.seconds, expected)
    elif isinstance(written, Wait | Approval):
        if not is_seconds(written.timeout, zero=False):
            expected = "a number, more than 0 seconds, or None to wait as long as it takes"
            raise refusal(workflow, written.name, "timeout", written.timeout, expected)
        options = ("fail", "continue") if isinstance(written, Wait) else ("reject", "continue")
        if written.on_timeout not in options:
            expected = (
                f"{' or '.join(repr(option) for option in options)}{did_you_mean(str(written.on_timeout), options)}"
            )
            raise refusal(workflow, written.name, "on_timeout", written.on_timeout, expected)
        if written.signal is not None and (not isinstance(written.signal, str) or not written.signal.strip()):
            raise refusal(workflow, written.name, "signal", written.signal, "a name, or None for the step's own")


def plain_function(workflow: str, step: str, option: str, value: Any) -> None:
    """Refuse an async function."""
    if iscoroutinefunction(value):
        raise DefinitionError(
            f'workflow "{workflow}" step "{step}" has an async function as its {option}; expected a plain one: it only '
            f"looks at the context, and anything that waits belongs in a step of its own"
        )


def workflow_options(
    workflow: str,
    steps: Mapping[str, StepDefinition],
    deadline: Any,
    retention: Any,
    strict: Any,
    compensate_in: Any,
    on_end: Any,
) -> dict[str, Any]:
    """The options of a workflow as its definition takes them, or an error that says which one does not fit."""
    for name, value in (("deadline", deadline), ("retention", retention)):
        if not is_seconds(value, zero=False):
            raise DefinitionError(
                f'workflow "{workflow}" has {name}={value!r}; expected a number, more than 0 seconds, or None'
            )
    if not isinstance(strict, bool):
        raise DefinitionError(f'workflow "{workflow}" has strict={strict!r}; expected True or False')
    worker(workflow, "itself", "on_end", on_end)
    return {
        "deadline": deadline,
        "retention": retention,
        "strict": strict,
        "compensate_in": _compensate_in(workflow, steps, compensate_in),
        "on_end": worker_name(on_end),
    }


def _is_undoable(step: StepDefinition) -> bool:
    return step.is_undoable or (step.item is not None and step.item.is_undoable)


def _is_silent(step: StepDefinition) -> bool:
    return (step.is_work or step.item is not None) and not step.says_how_undone


def pivots(definition: Definition) -> None:
    """Refuse a definition whose steps do not fit its pivots (rules S12, S14)."""
    workflow, steps = definition.name, definition.steps
    for pivot in definition.pivots:
        if steps[pivot].compensation is not None:
            raise DefinitionError(
                f'workflow "{workflow}" step "{pivot}" is a pivot and has a compensation; behind a pivot there is no '
                f"way back, so it would never run: remove one of the two"
            )
        before = definition.ancestors(pivot)
        if other := [name for name in before if steps[name].pivot]:
            raise DefinitionError(
                f'workflow "{workflow}" has two pivots on one path, "{other[0]}" and "{pivot}"; behind the first there '
                f"is no way back already: keep one of them"
            )
        if silent := [steps[name] for name in before if _is_silent(steps[name])]:
            raise DefinitionError(
                f'workflow "{workflow}" has a pivot, "{pivot}", and {_quoted(step.name for step in silent)} before it '
                f'does not say how to undo what was done; give each a compensation="worker" or a '
                f'no_compensation="reason" (rule S14)'
            )
        for name, step in steps.items():
            endless = step.retry is not None and step.retry.max_attempts == 0
            undone = step.compensation or (step.item and step.item.compensation)
            if undone and definition.graph.is_before(pivot, name) and not endless:
                raise DefinitionError(
                    f'workflow "{workflow}" step "{name}" has a compensation and comes behind the pivot "{pivot}", '
                    f"where nothing is undone any more; have it tried again without limit "
                    f"(retry=RetryPolicy(max_attempts=0)), or remove the compensation (rule S12)"
                )


def strictness(definition: Definition) -> None:
    """Refuse a strict definition that leaves open how a step is undone (rule S14).

    A pivot has said it by being one, and so has what comes behind it.
    """
    pivots = set(definition.pivots)
    silent = [name for name, step in definition.steps.items() if definition.strict and _is_silent(step)]
    before = definition.graph.is_before
    silent = [name for name in silent if name not in pivots and not any(before(pivot, name) for pivot in pivots)]
    if silent:
        raise DefinitionError(
            f'workflow "{definition.name}" is strict, and {_quoted(silent)} of it '
            f"{'does' if len(silent) == 1 else 'do'} not say how to undo what was done; give each a "
            f'compensation="worker" or a no_compensation="reason" (rule S14)'
        )


def is_seconds(value: Any, *, zero: bool) -> bool:
    """Whether a value is None or a number of seconds: above 0, or with ``zero`` at least that."""
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return False
    return value > 0 or (zero and value == 0)


def refusal(workflow: str, step: str, option: str, value: Any, expected: str) -> DefinitionError:
    """What is said of an option that does not fit."""
    return DefinitionError(f'workflow "{workflow}" step "{step}" has {option}={value!r}; expected {expected}')


def _quoted(names: Iterable[str]) -> str:
    names = list(names)
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"steps {quoted}" if len(names) > 1 else f"step {quoted}"


def worker(workflow: str, owner: str, option: str, value: Any) -> None:
    """Refuse what is no worker."""
    if value is None or worker_name(value) is not None:
        return
    where = f'workflow "{workflow}" {owner}'
    if callable(value):
        name = getattr(value, "__name__", "worker")
        raise DefinitionError(
            f"{where} has the function {name} as its {option}, which is not a worker; decorate it with "
            f'@worker("{name}"), or give the name of one'
        )
    raise DefinitionError(
        f"{where} has {option}={value!r}; expected the name of a worker, a function decorated with @worker or a Celery "
        f"task"
    )


def retry(workflow: str, step: str, option: str, value: Any) -> None:
    """Refuse what is no policy."""
    if value is None or isinstance(value, RetryPolicy):
        return
    attempts = value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 3
    raise refusal(workflow, step, option, value, f"a RetryPolicy; write {option}=RetryPolicy(max_attempts={attempts})")


def code(workflow: str, step: Any) -> None:
    """Refuse a ``when`` or ``inputs`` that cannot be asked."""
    for name in ("when", "inputs", "over"):
        plain_function(workflow, step.name, name, getattr(step, name, None))
    if step.when is not None and not callable(step.when):
        raise refusal(
            workflow, step.name, "when", step.when, 'a function of the context, such as lambda ctx: ctx["total"] > 0'
        )
    inputs: Any = getattr(step, "inputs", None)
    if inputs is None or callable(inputs):
        return
    if not isinstance(inputs, Mapping) or not all(
        isinstance(text, str) and text for pair in inputs.items() for text in pair
    ):
        raise refusal(
            workflow,
            step.name,
            "inputs",
            inputs,
            'a mapping of argument to dotted path, such as {"amount": "order.total"}, or a function of the context',
        )


def _choices(workflow: str, step: Step) -> None:
    if step.on_unknown not in ON_UNKNOWN:
        raise DefinitionError(
            f'workflow "{workflow}" step "{step.name}" has on_unknown={step.on_unknown!r}; expected "compensate", '
            f'"resolve" or "park"{did_you_mean(str(step.on_unknown), ON_UNKNOWN)}'
        )
    priority: Any = step.priority
    if priority is not None and (isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 9):
        raise refusal(workflow, step.name, "priority", priority, "a whole number from 0 to 9")


def _compensation(workflow: str, step: Step) -> None:
    if step.compensation is not None:
        if step.no_compensation is not None:
            raise DefinitionError(
                f'workflow "{workflow}" step "{step.name}" has compensation="{worker_name(step.compensation)}" and '
                f"no_compensation={step.no_compensation!r}; expected one of them: remove the other"
            )
        return
    for name in ("undo_retry", "compensate_on_failure"):
        if getattr(step, name):
            raise DefinitionError(
                f'workflow "{workflow}" step "{step.name}" has {name} but nothing that undoes it; add '
                f'compensation="worker", or remove {name}'
            )


def _compensate_in(workflow: str, steps: Mapping[str, StepDefinition], given: Any) -> tuple[str, ...] | None:
    if given is None:
        return None
    what = f'workflow "{workflow}": compensate_in'
    names = tuple(given) if is_listing(given) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise DefinitionError(f"{what} is {given!r}; expected a list of step names, the one to be undone first first")
    compensable = [step.name for step in steps.values() if _is_undoable(step)]
    for name in names:
        if name not in steps:
            raise DefinitionError(
                f'{what} names step "{name}", which is not defined{did_you_mean(name, compensable)} (steps with a '
                f"compensation: {', '.join(compensable) or 'none'})"
            )
        if name not in compensable:
            raise DefinitionError(
                f'{what} names step "{name}", which has no compensation; give it one, or leave it out of the order'
            )
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DefinitionError(f"{what} names {_quoted(twice)} more than once; a step is undone once: name it once")
    if missing := [name for name in compensable if name not in names]:
        raise DefinitionError(
            f"{what} leaves out {_quoted(missing)}, which must be undone too; name every step that has a compensation"
        )
    return names
