"""One attempt of an agent: the question is put, and the user's function called with the answer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import dspy
from dspy.adapters.utils import annotation_allows_none
from dspy.utils.constants import IS_TYPE_UNDEFINED
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

from multiagents.agents.calls import Calls, Leave
from multiagents.agents.dspy.experience import Notes
from multiagents.agents.dspy.faults import in_our_words, without_words
from multiagents.agents.dspy.learned import learned
from multiagents.agents.dspy.models import choices_of, lm_of
from multiagents.agents.dspy.program import adapter_of, program_of, signature_of
from multiagents.agents.dspy.servers import tools_of_servers
from multiagents.agents.opentelemetry import agent_span
from multiagents.agents.programs import in_place
from multiagents.agents.spending import Spending
from multiagents.exceptions import NoAnswerError
from multiagents.plain_json import dumps, plain
from multiagents.state_store.records import BUILT_IN
from multiagents.worker_sdk.attempt import running
from multiagents.worker_sdk.execution import event_loop
from multiagents.worker_sdk.signature import ArgumentsError, ResultError
from multiagents.workflow.definition import map_of

if TYPE_CHECKING:
    from multiagents.agents.agent import Agent
    from multiagents.worker_sdk.attempt import StepContext


class Prepared(NamedTuple):
    """What all attempts of an agent in a process share."""

    program: Any
    #: the user's own signature; None where a module asks, or nobody does
    question: Any
    lm: Any
    adapter: Any


class _Answer(NamedTuple):
    """The model's answer: as the user's function gets it, and as it is kept."""

    typed: dict[str, Any]
    kept: dict[str, Any]


def perform(agent: Agent, context: Mapping[str, Any]) -> Any:
    """Ask, call the user's function, and return what both have to tell.

    Raises:
        MultiAgentsError: when the model cannot be asked, or its answer not be used.
        Exception: what the user's function raises.
    """
    outer: Calls | None = dspy.settings.get("multiagents_calls")
    if outer is not None:
        # It is called by another agent, or judges one: its calls are that attempt's, and so is what becomes of them.
        return _within(agent, context, outer)
    step = running.get()
    calls = None if step is None else Calls(step, agent)
    with agent_span(agent.name, calls):
        try:
            returned = _attempt(agent, context, step, calls)
        except Exception:
            if calls is not None:
                calls.tell_usage()
            raise
        if calls is not None:
            calls.tell_usage()
        return returned


def _within(agent: Agent, context: Mapping[str, Any], calls: Calls) -> Any:
    try:
        return _perform(agent, context, calls.step, calls, Notes(agent, None), within=True)
    except Exception as error:
        told = in_our_words(error, agent.name, calls)
        if told is error:
            raise
        raise told from without_words(error)


def _attempt(agent: Agent, context: Mapping[str, Any], step: StepContext | None, calls: Calls | None) -> Any:
    notes = Notes(agent, calls)
    try:
        returned = _perform(agent, context, step, calls, notes)
    except Leave as left:
        notes.leave(left.error)
        raise left.error from left.__cause__
    except Exception as error:
        told = _in_our_words(error, agent, calls)
        notes.leave(told)
        if told is error:
            raise
        raise told from without_words(error)
    if calls is not None and calls.left is not None:
        notes.leave(calls.left)
        raise calls.left  # Code that a model wrote has swallowed it.
    notes.leave()
    return returned


def _in_our_words(error: Exception, agent: Agent, calls: Calls | None) -> BaseException:
    try:
        return in_our_words(error, agent.name, calls)
    except Leave as left:
        return left.error


def _perform(
    agent: Agent,
    context: Mapping[str, Any],
    step: StepContext | None,
    calls: Calls | None,
    notes: Notes,
    *,
    within: bool = False,
) -> Any:
    prepared = prepared_for(agent, step)
    if calls is not None and not within:
        prepared = _begun(agent, prepared, calls)
    # An agent that is called by another one spends of the budgets of both.
    spending: Spending | None = dspy.settings.get("multiagents_spending") if within else None
    if agent.budgets and step is not None:
        fields = context if within else _fields(context, step)
        spending = Spending(step, agent.name, agent.budgets, fields, outer=spending)
    with asked_by(agent, prepared, calls, notes.trace, spending), tools_of_servers(agent, calls) as listed:
        if listed:
            prepared = prepared._replace(program=program_of(agent, listed))
        answer = _answer(agent, prepared, context if within else _fields(context, step), notes)
        if calls is not None and calls.left is not None:
            raise Leave(calls.left)
        given = {**context, **answer.typed}
        positional, keywords = agent.parameters.arguments(given)
        if calls is not None:
            calls.acted = True
        returned = agent.function(*positional, **keywords)
        if inspect.isawaitable(returned):
            returned = event_loop.run(returned, worker=agent.name)
    most = 0 if step is None else step.settings.max_payload_bytes
    told = agent.parameters.result(returned, most)
    result = _together(agent, answer.kept, told)
    if step is not None and agent.stream and not within:
        step.streaming.final(result)
    return result


def _together(agent: Agent, kept: dict[str, Any], told: Any) -> Any:
    """The step's result: the model's answer, with what the user's function returned on top."""
    if not kept:
        return told
    if told is None:
        return kept
    if not isinstance(told, Mapping):
        raise ResultError(
            f'worker "{agent.name}" ran, and returned a {type(told).__name__}; expected a dict, which is put on '
            f"top of the model's answer ({', '.join(kept)}), or None"
        )
    return {**kept, **told}


def _said_of_models(step: StepContext) -> tuple[Any, Any]:
    """Which model is meant where the worker does not say it: what the workflow says, and the setting."""
    return step.claim.definition.model, step.settings.lm


def _begun(agent: Agent, prepared: Prepared, calls: Calls) -> Prepared:
    """Open the journal, and take the program that the step's first attempt has drawn, or draws now."""
    store, chosen = calls.step.store_here(), BUILT_IN
    if prepared.program is not None and not agent.servers:  # what a server's tools are is not known before
        chosen = in_place(store, agent.name).chosen(calls.step.idempotency_key)
        if chosen != BUILT_IN and learned(agent, chosen, store, prepared.adapter) is None:
            chosen = BUILT_IN
    pinned = calls.open({"dspy": dspy.__version__, "adapter": type(prepared.adapter).__name__}, chosen)
    if pinned == BUILT_IN or prepared.program is None:
        return prepared
    program = learned(agent, pinned, store, prepared.adapter)
    if program is None:
        calls.check_same([f"its program was version {pinned}, which does not fit what worker {agent.name!r} is here"])
        return prepared
    calls.program = pinned
    return prepared._replace(program=program)


class _Hashless:
    """A setting as part of a key: by what it is, as it may be a list or a dict."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashless) and (self.value is other.value or self.value == other.value)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=256)
def _by_setting(agent: Agent, setting: _Hashless | None, _configured: int) -> Prepared:
    question = None if agent.signature is None else signature_of(agent)
    said = () if setting is None else setting.value
    lm = lm_of(agent, *said)
    adapter = adapter_of(agent, choices_of(agent, *said))
    return Prepared(program_of(agent), question, lm, adapter)


def prepared_for(agent: Agent, step: StepContext | None) -> Prepared:
    """What an agent asks with in a step, or in a plain call of its function."""
    # What `dspy.configure` was given may be another one after a reload.
    return _by_setting(agent, None if step is None else _Hashless(_said_of_models(step)), id(dspy.settings.lm))


@contextmanager
def asked_by(
    agent: Agent, prepared: Prepared, calls: Calls | None, trace: list[Any], spending: Spending | None = None
) -> Iterator[None]:
    """Have what DSPy does meanwhile be done for an agent, with its calls; what its predictors note is in the trace."""
    own: dict[str, Any] = {"lm": prepared.lm, "adapter": prepared.adapter, "disable_history": True}
    own["trace"] = trace
    if agent.reasoning.writes_code:
        from multiagents.agents.dspy.sandbox import sandbox_for

        own["interpreter_factory"] = sandbox_for(calls)
    # This reaches the threads that DSPy starts, where a context variable of ours does not.
    own |= {"multiagents_calls": calls, "multiagents_spending": spending}
    with dspy.context(**own, allow_tool_async_sync_conversion=True):
        yield


# --- the question ----------------------------------------------------------------------------------------------------


def _fields(context: Mapping[str, Any], step: StepContext | None) -> Mapping[str, Any]:
    """Where the input fields are: in a map, in the item."""
    if step is None or map_of(step.step) not in step.claim.definition.steps or "item" not in context:
        return context
    item = context["item"]
    return {**context, **item} if isinstance(item, Mapping) else context


def _answer(agent: Agent, prepared: Prepared, context: Mapping[str, Any], notes: Notes) -> _Answer:
    program, question = prepared.program, prepared.question
    if program is None:
        notes.asks(None, prepared.lm, {})
        return _Answer({}, {})
    inputs = inputs_of(agent, prepared, context)
    wanted = () if question is None else question.output_fields
    notes.asks(program, prepared.lm, {name: context[name] for name in inputs}, wanted)
    prediction = called(program, inputs, agent)
    if question is None:
        typed = {name: value for name, value in prediction.items() if name not in ("trajectory", "history")}
    else:
        typed = {name: getattr(prediction, name, None) for name in question.output_fields}
        _check_whole(agent, question, typed)
    kept = {name: plain(value, f"output field {name!r}") for name, value in typed.items()}
    notes.answered(kept)
    return _Answer(typed, kept)


def inputs_of(agent: Agent, prepared: Prepared, context: Mapping[str, Any]) -> dict[str, Any]:
    """What a program is asked, of a context.

    Raises:
        ArgumentsError: when the context does not fit the question.
    """
    if prepared.question is None:
        return _given(prepared.program, context)
    return _inputs(agent, prepared.question, context)


def called(program: Any, inputs: dict[str, Any], agent: Agent) -> Any:
    """What a program answers."""
    if not hasattr(type(program), "forward"):
        return event_loop.run(program.acall(**inputs), worker=agent.name)
    return program(**inputs)


def _given(program: Any, context: Mapping[str, Any]) -> dict[str, Any]:
    """What a module of the user's own takes of the context: what its parameters are called."""
    function = program.forward if hasattr(type(program), "forward") else program.aforward
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return dict(context)
    return {one.name: context[one.name] for one in parameters if one.name in context}


def _inputs(agent: Agent, question: Any, context: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    problems: list[str] = []
    for name, field in question.input_fields.items():
        if name not in context:
            if field.default is PydanticUndefined and not annotation_allows_none(field.annotation):
                problems.append(f"{name}: the context has no such key")
            continue
        value = context[name]
        if field.json_schema_extra.get(IS_TYPE_UNDEFINED):
            # What is of no type is shown to the model as text; DSPy's own way differs by type, and fails for some.
            found[name] = value if isinstance(value, str) or agent.reasoning.writes_code else _text(value)
            continue
        try:
            found[name] = TypeAdapter(field.annotation).validate_python(value)
        except ValidationError as error:
            problems.append(f"{name}: {error.errors(include_url=False, include_input=False)[0]['msg']}")
    if problems:
        raise ArgumentsError(
            f'worker "{agent.name}" asked nothing: the context does not fit its question: {"; ".join(problems)} (keys: '
            f"{', '.join(sorted(map(str, context))[:20]) or 'none'}); start the run with such a value, shape the "
            f"context with inputs=, or change the signature"
        )
    return found


def _text(value: Any) -> str:
    return dumps(plain(value, "an input field"))


def _check_whole(agent: Agent, signature: Any, typed: Mapping[str, Any]) -> None:
    missing = [
        name
        for name, field in signature.output_fields.items()
        if typed.get(name) is None and not annotation_allows_none(field.annotation)
    ]
    if missing:
        raise NoAnswerError(f'worker "{agent.name}": the model\'s answer lacks {", ".join(missing)}')
