"""The engine of DSPy's through which an agent asks its model, so that every call is in the journal.

An engine makes one attempt for one request: that is DSPy's contract. What is tried again, what is asked in a model's
place and what is not asked at all is decided here, once for both of its kinds, as a generator that says what it wants.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dspy
from dspy import lm15
from dspy._vendor.lm15.serde import request_to_dict, response_from_dict, response_to_dict

from multiagents.agents.calls import leaving
from multiagents.agents.dspy.admission import Admission
from multiagents.agents.dspy.faults import PASSING, not_configured, unavailable
from multiagents.agents.dspy.route import Route
from multiagents.agents.dspy.telling import Telling, answer_of, async_answer_of, telling_of
from multiagents.agents.opentelemetry import ChatSpan, chat_span, replayed
from multiagents.agents.turns import IN_PLACE
from multiagents.exceptions import LMTruncatedError
from multiagents.interruption import is_interrupted
from multiagents.plain_json import dumps
from multiagents.state_store.records import Begun, CallVerdict
from multiagents.worker_sdk.attempt.asked import GivenBack

if TYPE_CHECKING:
    from multiagents.agents.agent import Agent
    from multiagents.agents.calls import Calls


@dataclass(frozen=True, slots=True)
class _Ask:
    route: Route
    request: Any
    telling: Telling | None


@dataclass(frozen=True, slots=True)
class _Wait:
    seconds: float


_Talk = Generator[_Ask | _Wait, Any, Any]


class _Engine:
    """Asks a model, or those that stand in for it, and keeps what was asked and answered.

    Args:
        agent: whose it is.
        routes: the ways, the first one first.
        lms: the LMs that they were made of.
    """

    def __init__(self, agent: Agent, routes: list[Route], lms: Sequence[dspy.LM]) -> None:
        self.agent = agent
        self.routes = routes
        self._lms = lms

    # DSPy asks an engine that is not its own what its models can do. Here that is what all of them can.

    @cached_property
    def supports_function_calling(self) -> bool:
        """Whether they call functions."""
        return all(lm.supports_function_calling for lm in self._lms)

    @cached_property
    def supports_reasoning(self) -> bool:
        """Whether they tell what they think apart."""
        return all(lm.supports_reasoning for lm in self._lms)

    @cached_property
    def supports_response_schema(self) -> bool:
        """Whether they keep to a schema."""
        return all(lm.supports_response_schema for lm in self._lms)

    @cached_property
    def supported_params(self) -> frozenset[str]:
        """Which parameters they take."""
        return frozenset.intersection(*(frozenset(lm.supported_params) for lm in self._lms))

    def _talk(self, request: Any) -> _Talk:
        return _talk(self.agent, self.routes, request, dspy.settings.get("multiagents_calls"))


class JournaledEngine(_Engine):
    """For what is no coroutine."""

    def complete(self, request: Any) -> Any:
        """One answer to one request."""
        talk = self._talk(request)
        try:
            wanted = next(talk)
            while True:
                if isinstance(wanted, _Wait):
                    time.sleep(wanted.seconds)
                    wanted = next(talk)
                    continue
                try:
                    answer = answer_of(wanted.route.engine, wanted.request, wanted.telling)
                except lm15.LM15Error as error:
                    wanted = talk.throw(error)
                except Exception as error:
                    raise _out_of(error, dspy.settings.get("multiagents_calls")) from error
                else:
                    wanted = talk.send(answer)
        except StopIteration as end:
            return end.value

    def stream(self, request: Any) -> Iterator[Any]:
        """The answer as events; it comes whole."""
        yield from lm15.response_to_events(self.complete(request))

    def close(self) -> None:
        """Nothing: the engines of the routes are the process's."""


class AsyncJournaledEngine(_Engine):
    """For coroutines."""

    async def complete(self, request: Any) -> Any:
        """One answer to one request."""
        talk = self._talk(request)
        try:
            wanted = next(talk)
            while True:
                if isinstance(wanted, _Wait):
                    await asyncio.sleep(wanted.seconds)
                    wanted = next(talk)
                    continue
                try:
                    answer = await async_answer_of(wanted.route.async_engine, wanted.request, wanted.telling)
                except lm15.LM15Error as error:
                    wanted = talk.throw(error)
                except Exception as error:
                    raise _out_of(error, dspy.settings.get("multiagents_calls")) from error
                else:
                    wanted = talk.send(answer)
        except StopIteration as end:
            return end.value

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        """The answer as events; it comes whole."""
        for event in lm15.response_to_events(await self.complete(request)):
            yield event

    async def aclose(self) -> None:
        """Nothing: the engines of the routes are the process's."""


def _talk(agent: Agent, routes: list[Route], request: Any, calls: Calls | None) -> _Talk:
    """Ask one model after the other, each as often as ``lm_retry`` says."""
    for number, route in enumerate(routes):
        try:
            return (yield from _ask(agent, route, replace(request, model=route.model), calls))
        except _Unavailable as error:
            if number + 1 == len(routes):
                raise leaving(unavailable(error.cause, agent.name, route.model, error.tries), calls) from error.cause
    raise AssertionError("there is at least one route")


class _Unavailable(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, cause: Exception, tries: int) -> None:
        self.cause = cause
        self.tries = tries
        super().__init__(str(cause))


def _ask(agent: Agent, route: Route, request: Any, calls: Calls | None) -> _Talk:
    told, tries = _told(route, request_to_dict(request)), 0
    while True:
        begun = None if calls is None else calls.begin_lm(*told)
        if begun is not None and begun.verdict is CallVerdict.REPLAY:
            replayed(calls, "lm", route.model, begun.slot)
            return _replayed(begun, agent, calls)
        admission = None if calls is None or begun is None else Admission(calls, begun, route, request, told[1])
        while admission is not None and (wait := admission.take()):
            yield _Wait(wait)
        telling = telling_of(calls, begun)
        try:
            with _seen(calls, route, request) as span, nullcontext() if calls is None else calls.making():
                response = yield _Ask(route, request, telling)
                span.answered(_answered(response))
        except lm15.LM15Error as error:
            tries += 1
            if admission is not None:
                admission.failed(error)
            if telling is not None:
                telling.void()
            seconds = _failed(error, agent, route, calls, begun, tries)
            if seconds > IN_PLACE and calls is not None:
                raise calls.leave(GivenBack(f"model {route.model} does not answer", seconds=seconds)) from error
            yield _Wait(seconds)
            continue
        if calls is not None and begun is not None and admission is not None:
            calls.finish(begun, {"response": response_to_dict(response)}, admission.answered(response))
        return _checked(response, agent, calls, begun)


def _seen(calls: Calls | None, route: Route, request: Any) -> AbstractContextManager[ChatSpan]:
    config = request.config
    options = {"temperature": config.temperature, "max_tokens": config.max_tokens, "top_p": config.top_p}
    return chat_span(calls, route.model, route.provider, route.base_url, options)


def _answered(response: Any) -> dict[str, Any]:
    """What a span says of a response, by the names of the conventions."""
    used = response.usage
    told = {
        "response.model": response.model,
        "response.id": response.id,
        "response.finish_reasons": [response.finish_reason],
        "usage.input_tokens": used.input_tokens,
        "usage.output_tokens": used.output_tokens,
    }
    return {name: value for name, value in told.items() if value is not None}


def _told(route: Route, told: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
    key = {"at": route.base_url, "type": route.model_type, "request": told}
    # What grows comes first: it is kept as what it has more than the request before it, and what stands behind it (the
    # instructions, the tools) is another only in the last request of some programs, which repeats all that was said.
    kept = {"messages": told["messages"], **{name: told[name] for name in sorted(told) if name != "messages"}}
    return key, dumps(kept), route.model


def _replayed(begun: Begun, agent: Agent, calls: Calls | None) -> Any:
    answer = begun.answer
    if "error" in answer:
        raise lm15.ContextLengthError(answer["error"])
    response = response_from_dict(answer["response"])
    return _checked(replace(response, usage=lm15.Usage()), agent, calls, begun)


def _failed(
    error: Exception, agent: Agent, route: Route, calls: Calls | None, begun: Begun | None, tries: int
) -> float:
    """What a provider's error means: the seconds after which it is asked again, or the error that is raised."""
    if isinstance(error, lm15.ContextLengthError):
        # That is an answer: a ReAct loop shortens what it asks, and does so again when it is replayed.
        if calls is not None and begun is not None:
            calls.finish(begun, {"error": error.message}, failed=True)
        raise error
    if calls is not None and begun is not None:
        calls.refuse(begun, type(error).__name__)
    if isinstance(error, lm15.NotConfiguredError):
        raise leaving(not_configured(error, agent.name, route.model), calls) from error
    if not isinstance(error, PASSING):
        raise error
    tries = max(tries, 1 + (begun.unanswered if begun is not None else 0))
    delay = agent.lm_retry.delay(tries, seed=route.model)
    if delay is None:
        raise _Unavailable(error, tries)
    hint = getattr(error, "retry_after", None)
    return float(hint) if hint is not None and hint >= 0 else delay


def _checked(response: Any, agent: Agent, calls: Calls | None, begun: Begun | None) -> Any:
    said = "".join(part.text for part in response.message.parts if getattr(part, "type", "") == "text")
    if calls is not None and begun is not None:
        calls.heard(begun, said)
    if response.finish_reason == "length":
        if calls is not None and begun is not None:
            calls.refuse(begun, LMTruncatedError.__name__)
        raise leaving(
            LMTruncatedError(
                f'worker "{agent.name}": the answer of {response.model} was cut off at the most tokens it may have; '
                f"give it more with max_tokens="
            ),
            calls,
        )
    return response


def _out_of(error: Exception, calls: Calls | None) -> BaseException:
    """What an engine's error is raised as: DSPy would take a soft time limit, say, for one of the engine's own."""
    return leaving(error, calls) if is_interrupted(error) else error


__all__ = ["AsyncJournaledEngine", "JournaledEngine"]
