"""Tools as DSPy calls them: through the journal, with results and errors that read the same whenever they are told.

What a model is shown of a call is part of its next request, and so of what that is known by in the journal. Therefore
results are made text (or plain JSON, for code) before they are first shown, and errors are told by type and message:
DSPy would show the frames of whatever was around the call.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import dspy

from multiagents.agents.call_steps import key_of
from multiagents.agents.calls import Leave, leaving
from multiagents.agents.opentelemetry import replayed, tool_span
from multiagents.agents.tools import ToolCall, ToolOptions, calling, options_of
from multiagents.agents.turns import Share, Turn, share_of
from multiagents.exceptions import MCPUnavailableError, MultiAgentsError, OutcomeUnknownError, TerminalError
from multiagents.interruption import is_interrupted
from multiagents.plain_json import dumps, plain
from multiagents.state_store.records import Begun, CallVerdict
from multiagents.worker_sdk.execution import event_loop, timeouts

if TYPE_CHECKING:
    from multiagents.agents.calls import Calls

#: Bytes of what a tool returns, as JSON, where no setting says how many.
MAX_RESULT = 10 * 1024 * 1024


class ToolError(Exception):
    """What code that a model has written sees of a tool that failed."""


class JournaledTool(dspy.Tool):  # type: ignore[misc]  # DSPy is not read by the type checker
    """A tool whose calls are in the journal."""

    _options: ToolOptions
    _as_data: bool
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any], *, as_data: bool) -> None:
        if isinstance(function, dspy.Tool):
            super().__init__(
                function.func, function.name, function.desc, function.args, function.arg_types, function.arg_desc
            )
        else:
            super().__init__(function, name=options_of(function).name)
        self._options = options_of(function)
        self._as_data = as_data
        self._function = self.func  # type: ignore[has-type]
        if _is_async(self._function):
            # RLM would run a loop for it, and there may be one in this thread: of another greenlet, say.
            self.func = _never_called(self._function)

    def __call__(self, **kwargs: Any) -> Any:
        """Call it, or say again what it has said; an async tool runs in the event loop of the process."""
        return self._kept(kwargs)

    async def acall(self, **kwargs: Any) -> Any:
        """The same, from a coroutine: there, a function that is none would hold up the loop."""
        import asyncio

        return await asyncio.to_thread(self._kept, kwargs)

    def _kept(self, kwargs: dict[str, Any]) -> Any:
        """Call it, and keep what was put in from outside: a sandbox swallows whatever is raised in it."""
        calls: Calls | None = dspy.settings.get("multiagents_calls")
        try:
            return self._call(kwargs, calls)
        except (Exception, Leave):
            raise
        except BaseException as error:
            if calls is None:
                raise
            raise calls.leave(error) from error

    def _call(self, kwargs: dict[str, Any], calls: Calls | None) -> Any:
        try:
            shown = plain(kwargs, f"the arguments of tool {self.name}")
            parsed = self._validate_and_parse_args(**kwargs)
        except (ValueError, MultiAgentsError) as error:
            return self._told_error(error)  # The model's fault, and the same whenever it is asked.
        begun = None
        changed = ""
        if calls is not None and self._options.asks(parsed):
            decision = calls.decision(self._options, shown)
            if not decision["approved"]:
                return self._told_error(_refusal(decision))
            if decision["arguments"] is not None:
                shown = decision["arguments"]
                try:
                    parsed = self._validate_and_parse_args(**shown)
                except ValueError as error:
                    return self._told_error(f"a person has approved it with arguments that do not fit: {error}")
                changed = f"Called with {dumps(shown)}, as {decision['actor'] or 'a person'} wants it: "
        shares: list[Share] = []
        if calls is not None:
            shares = self._shares(calls, shown)
            begun = calls.begin_tool(self._options, shown)
            if begun.verdict is CallVerdict.FULL:
                return self._told_error(RuntimeError(f"it was called {begun.bound} times, and may not be again"))
            if begun.verdict is CallVerdict.REPLAY:
                replayed(calls, "tool", self._options.name, begun.slot)
                return self._said(begun.answer, changed)
        span = tool_span(calls, self._options.name, "" if begun is None else begun.slot)
        with _turn(calls, begun, shares), span as failed:
            if calls is not None and begun is not None:
                calls.tell(begun, {"tool": self.name, "state": "started", "arguments": shown})
            answer, in_doubt = self._outcome(parsed, calls, begun)
            if "error" in answer:
                failed(answer["error"].partition(":")[0])
        if calls is not None and begun is not None:
            calls.finish_tool(self._options, begun, answer, in_doubt=in_doubt)
            calls.tell(begun, {"tool": self.name, "state": "failed" if "error" in answer else "answered"})
        return self._said(answer, changed)

    def _shares(self, calls: Calls, arguments: Mapping[str, Any]) -> list[Share]:
        """What a call takes of the tool's limit; its key is filled by arguments, and else by the step's context."""
        limit, context = self._options.limit, calls.step.claim.context
        if limit is None:
            return []
        try:
            return [share_of(limit, {**(context if isinstance(context, Mapping) else {}), **arguments})]
        except TerminalError as error:
            raise calls.leave(error) from error

    def _outcome(
        self, parsed: dict[str, Any], calls: Calls | None, begun: Begun | None
    ) -> tuple[Mapping[str, Any], bool]:
        """What it has come to, and whether it may have taken effect though it is an error."""
        token = calling.set(None if calls is None or begun is None else _call_of(self._options, calls, begun))
        returned = False
        try:
            result = self._run(parsed)
            returned = True
            most = MAX_RESULT if calls is None else calls.step.settings.max_payload_bytes
            return {"result": plain(result, f"what tool {self.name} returned", max_bytes=most)}, False
        except timeouts.StepTimeoutError as error:
            if error.worker != self._limited_as:
                raise leaving(error, calls) from error
            return {"error": f"TimeoutError: it took longer than {error.seconds:g} s"}, True
        except MCPUnavailableError as error:
            raise self._left_by(error, calls, begun) from error
        except Exception as error:
            if is_interrupted(error):
                # A soft time limit, a worker that shuts down: no word of the tool's.
                raise leaving(error, calls) from error
            in_doubt = returned or isinstance(error, OutcomeUnknownError)
            return {"error": f"{type(error).__name__}: {error}"}, in_doubt
        finally:
            calling.reset(token)

    def _left_by(self, error: MCPUnavailableError, calls: Calls | None, begun: Begun | None) -> Leave:
        """What a server that is away ends the attempt with: that is no word of the tool's, and no model is told."""
        if not error.called and calls is not None and begun is not None and begun.verdict is CallVerdict.LIVE:
            calls.refuse(begun, type(error).__name__)
        elif error.called and self._options.idempotent is False:
            told = f"{error}; tool {self.name!r} was called, is not idempotent, and nobody knows what became of it"
            return leaving(OutcomeUnknownError(told), calls)
        return leaving(error, calls)

    @property
    def _limited_as(self) -> str:
        return f"tool {self.name}"

    def _run(self, parsed: dict[str, Any]) -> Any:
        seconds = self._options.timeout or 0.0
        if _is_async(self._function):
            return event_loop.run(self._function(**parsed), seconds=seconds, worker=self._limited_as)
        function = partial(self._function, **parsed)
        pool = timeouts.pool_of_caller()
        returned = timeouts.call(function, worker=self._limited_as, seconds=seconds, pool=pool)
        if inspect.isawaitable(returned):
            return event_loop.run(returned, seconds=seconds, worker=self._limited_as)
        return returned

    def _said(self, answer: Mapping[str, Any], before: str = "") -> Any:
        """What the model, or its code, is given of an outcome; text before it is for a model that reads it."""
        if "error" in answer:
            return self._told_error(answer["error"])
        result = answer["result"]
        if self._as_data:
            return result
        return before + (result if isinstance(result, str) else dumps(result))

    def _told_error(self, error: Exception | str) -> str:
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        if self._as_data:
            raise ToolError(text)
        return f"Execution error in {self.name}: {text}"


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _never_called(function: Callable[..., Any]) -> Callable[..., Any]:
    """What tells DSPy of a coroutine function all but that it is one: it is called through the tool alone."""

    @wraps(function)
    def call(**_arguments: Any) -> Any:
        raise AssertionError("a tool of an agent is called past its journal")

    return call


def _refusal(decision: Mapping[str, Any]) -> str:
    by = f"refused by {decision['actor']}" if decision["actor"] else "refused"
    return f"{by}: {decision['reason']}" if decision["reason"] else by


def _call_of(options: ToolOptions, calls: Calls, begun: Begun) -> ToolCall:
    return ToolCall(options.name, key_of(calls.step, options, begun), possibly_twice=begun.verdict is CallVerdict.AGAIN)


@contextmanager
def _turn(calls: Calls | None, begun: Begun | None, shares: list[Share]) -> Iterator[None]:
    """Wait in place until it is a call's turn; for long, nobody does."""
    if calls is None or begun is None or not shares:
        yield
        return
    turn = Turn(calls, begun, shares)
    while wait := turn.take():
        try:
            time.sleep(wait)
        except Exception as error:  # A time limit, say: no word of the tool's.
            raise calls.leave(error) from error
    try:
        yield
    finally:
        turn.end()
