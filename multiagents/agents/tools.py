"""Tools: functions that a language model may call, and what is to be known of each."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from multiagents.clock import LONGEST_IN_WORDS, Duration, in_seconds, is_duration
from multiagents.exceptions import ConfigurationError, WorkerError
from multiagents.workflow.builder.workers import worker_name
from multiagents.workflow.definition import Limit

_F = TypeVar("_F", bound=Callable[..., Any])

#: Names that DSPy has for tools of its own, in one mode or another.
RESERVED = frozenset({"finish", "submit", "SUBMIT", "print", "llm_query", "llm_query_batched", "FINAL", "dspy"})
#: Where a function keeps what is known of it as a tool.
_ATTRIBUTE = "multiagents_tool"


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """What is known of a tool.

    Attributes:
        name: what the model calls it.
        idempotent: what becomes of a call that was begun and of which nobody knows whether it was finished: None makes
            it again, with its key, and counts it as made twice, perhaps; True makes it again and is sure; False never
            makes it again, and leaves it to the step's ``on_unknown``.
        timeout: seconds that a call may take; None is without a limit of its own.
        max_calls: how often it may be called in a step, over all attempts; 0 is without limit.
        approval: whether a person has to approve each call, or a function of its arguments that says so.
        approval_timeout: seconds after which a call that nobody has decided upon is rejected; None waits for ever.
        limit: how many calls are made at once, or in a time, over all workers.
        compensation: name of the worker that undoes a call.
    """

    name: str
    idempotent: bool | None = None
    timeout: float | None = None
    max_calls: int = 0
    approval: bool | Callable[..., bool] = False
    approval_timeout: float | None = None
    limit: Limit | None = None
    compensation: str | None = None

    def asks(self, arguments: Mapping[str, Any]) -> bool:
        """Whether a person has to approve a call with these arguments."""
        if not callable(self.approval):
            return self.approval
        wanted = list(inspect.signature(self.approval).parameters)
        if len(wanted) == 1 and wanted[0] not in arguments:
            return bool(self.approval(arguments))
        return bool(self.approval(**{name: arguments[name] for name in wanted if name in arguments}))


@overload
def tool(name: _F) -> _F: ...
@overload
def tool(
    name: str | None = None,
    *,
    idempotent: bool | None = None,
    compensation: Any = None,
    timeout: Duration | None = None,
    max_calls: int = 0,
    approval: bool | Callable[..., bool] = False,
    approval_timeout: Duration | None = None,
    on_timeout: str = "reject",
    limit: Limit | None = None,
) -> Callable[[_F], _F]: ...
def tool(
    name: str | Callable[..., Any] | None = None,
    *,
    idempotent: bool | None = None,
    compensation: Any = None,
    timeout: Duration | None = None,
    max_calls: int = 0,
    approval: bool | Callable[..., bool] = False,
    approval_timeout: Duration | None = None,
    on_timeout: str = "reject",
    limit: Limit | None = None,
) -> Any:
    """Make a function a tool of agents.

    The function stays what it is, with its name, docstring, signature and annotations; what the model is told of it
    comes from these. It may be ``def`` or ``async def``. What it returns is shown to the model as text, and given to
    code that the model writes as plain JSON. What it raises is told to the model, too: type and message.

    Args:
        name: what the model calls it: a Python identifier; the function's own name if left out.
        idempotent: what becomes of a call of which nobody knows whether it was finished, as its worker died in it.
            None: it is made again, with the same `current_tool().idempotency_key`, and counted as made twice, perhaps.
            True: the same, and it is known that this does no harm. False: it is never made again; the step's outcome
            is unknown, and goes the way that the step's ``on_unknown`` says.
        compensation: the worker that undoes a call, or its name. A call is then a step of the run,
            ``<step>.<tool>[n]``, from before it is made, and is undone as steps are: newest first, before the step
            whose agent made it. The worker gets the arguments of the call as its context, and in `current_step()` its
            result, its outcome (``unknown``, where the worker died in it), its key and the run's error. What the tool
            raised is a definite failure, and not undone.
        timeout: seconds that a call may take, where the pool can stop it, or a timedelta; the model is told of it.
        max_calls: how often the model may call it in a step, over all attempts; 0 is without limit.
        approval: True has a person approve each call before it is made (``run.approve``, ``run.reject``); a function
            of the arguments, by their names or all of them as a dict, says which. No worker waits meanwhile.
        approval_timeout: seconds after which a call that nobody has decided upon is rejected; None waits for ever.
        on_timeout: what is decided then: ``reject``.
        limit: how many of its calls are made at once, or begin in a time, over all workers; the fields of its key are
            taken from the arguments, and else from the agent's context. Who waits for long occupies no worker.

    Raises:
        ConfigurationError: when an argument is not what it must be.

    >>> @tool("web_search", idempotent=True)
    ... def search_web(query: str) -> list[str]:
    ...     "Search the web."
    ...     return [f"about {query}"]
    >>> search_web("Celery")
    ['about Celery']
    >>> options_of(search_web).name
    'web_search'
    """
    if name is not None and not isinstance(name, str):
        return tool()(name)
    seconds = in_seconds(timeout)
    if seconds is not None and not is_duration(seconds):
        raise ConfigurationError(
            f"timeout of a tool must be a number of seconds above 0, got {timeout!r:.80}; or a timedelta, and "
            f"{LONGEST_IN_WORDS}"
        )
    if idempotent not in (None, True, False):
        raise ConfigurationError(f"idempotent of a tool must be True, False or None, got {idempotent!r:.80}")
    if isinstance(max_calls, bool) or not isinstance(max_calls, int) or max_calls < 0:
        raise ConfigurationError(f"max_calls of a tool must be a whole number of at least 0, got {max_calls!r:.80}")

    if not (isinstance(approval, bool) or callable(approval)):
        raise ConfigurationError(
            f"approval of a tool must be True, False or a function of its arguments, got {approval!r:.80}"
        )
    waits = in_seconds(approval_timeout)
    if waits is not None and not is_duration(waits):
        raise ConfigurationError(
            f"approval_timeout of a tool must be a number of seconds above 0, got {approval_timeout!r:.80}; or a "
            f"timedelta, and {LONGEST_IN_WORDS}"
        )
    if on_timeout != "reject":
        raise ConfigurationError(f'on_timeout of a tool must be "reject", got {on_timeout!r:.80}')

    if not isinstance(limit, Limit | None):
        raise ConfigurationError(f'limit of a tool must be a Limit, got {limit!r:.80}; write Limit("bank", rate=5)')
    undo = None if compensation is None else worker_name(compensation)
    if compensation is not None and undo is None:
        raise ConfigurationError(
            f"compensation of a tool must be a worker or the name of one, got {compensation!r:.120}; decorate the "
            f'function that undoes a call: @worker("cancel_flight")'
        )

    def decorate(function: _F) -> _F:
        if not callable(function):
            raise ConfigurationError(f"@tool goes on a function, got {function!r:.120}")
        called = checked_name(name or str(getattr(function, "__name__", "")), function)
        options = ToolOptions(called, idempotent, seconds, max_calls, approval, waits, limit, undo)
        return give_options(function, options)

    return decorate


def give_options(function: _F, options: ToolOptions) -> _F:
    """Have a function say of itself what is known of it as a tool."""
    setattr(function, _ATTRIBUTE, options)
    return function


def options_of(function: Any) -> ToolOptions:
    """What is known of a function as a tool: what `tool` was told, else what goes without saying."""
    known = getattr(function, _ATTRIBUTE, None)
    if isinstance(known, ToolOptions):
        return known
    # A `dspy.Tool` has a name; what it calls may be one of ours.
    inner = getattr(function, "func", None)
    name = getattr(function, "name", None) or getattr(function, "__name__", type(function).__name__)
    told = getattr(inner, _ATTRIBUTE, None)
    if isinstance(told, ToolOptions):
        return told
    return ToolOptions(checked_name(str(name), function))


def checked_name(name: str, what: Any) -> str:
    """A name that a tool may have.

    Raises:
        ConfigurationError: when it may not.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigurationError(
            f"tool name {name!r} of {what!r:.120} cannot be used: expected a Python identifier, as models call it by "
            f'that; give it one: @tool("web_search")'
        )
    if name in RESERVED:
        raise ConfigurationError(f"tool name {name!r} is taken by DSPy itself; give the tool another one")
    return name


class ToolCall:
    """The call of a tool that is running. Tools get it from `current_tool`."""

    __slots__ = ("_key", "_name", "_possibly_twice")

    def __init__(self, name: str, key: str, *, possibly_twice: bool) -> None:
        self._name = name
        self._key = key
        self._possibly_twice = possibly_twice

    @property
    def name(self) -> str:
        """The tool's name."""
        return self._name

    @property
    def idempotency_key(self) -> str:
        """The call's key: the same whenever this very call is made again, and no other's."""
        return self._key

    @property
    def possibly_twice(self) -> bool:
        """Whether it was begun before, by a worker that died, so that it may have taken effect already."""
        return self._possibly_twice

    def __repr__(self) -> str:
        return f"<ToolCall {self._key}>"


#: The call that runs in this context.
calling: ContextVar[ToolCall | None] = ContextVar("multiagents_tool", default=None)


def current_tool() -> ToolCall:
    """The call that the calling tool is made for.

    Raises:
        WorkerError: outside a tool that an agent of a run has called.

    >>> current_tool()
    Traceback (most recent call last):
    multiagents.exceptions.WorkerError: there is no current tool: current_tool() was called outside a tool...
    """
    call = calling.get()
    if call is None:
        raise WorkerError(
            "there is no current tool: current_tool() was called outside a tool of an agent that runs as a step (in a "
            "plain call of the function, or in a thread that was started without contextvars.copy_context())"
        )
    return call
