"""What the stub can answer: texts, calls of tools, and everything that goes wrong with a real model.

A reply is the same for every wire; the wires say how it is written there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from multiagents.testing.lm_stub.request import LMRequest

__all__ = [
    "Problem",
    "ProblemKind",
    "Reply",
    "Scripted",
    "ToolCall",
    "content_filter",
    "context_overflow",
    "cut",
    "empty",
    "fields",
    "garbage",
    "hang",
    "rate_limited",
    "react",
    "react_agent",
    "react_finish",
    "server_error",
    "slow",
    "stream",
    "text",
    "tool_call",
    "truncated",
    "unauthorized",
]


class ProblemKind(StrEnum):
    """Why a provider answers with an error."""

    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    UNAUTHORIZED = "unauthorized"
    CONTEXT_OVERFLOW = "context_overflow"
    #: the stub's own: there is no reply
    UNSCRIPTED = "unscripted"


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer that is an HTTP error; each wire has its own codes and words for it.

    Attributes:
        status: of HTTP.
        message: instead of the words of the wire.
        retry_after: seconds, for the header ``Retry-After``.
        about: what was asked, after the message.
    """

    kind: ProblemKind
    status: int
    message: str | None = None
    retry_after: float | None = None
    about: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model asks for."""

    name: str
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer of the model. The functions of this module make the usual ones; this is for the others.

    Attributes:
        chunks: the text, in the pieces in which it is streamed. A single one is streamed word by word.
        tool_calls: native calls of tools, after the text.
        finish: why the model stopped writing.
        problem: an HTTP error instead of an answer.
        fault: what goes wrong on the way: no answer at all, half of it, or one that is no JSON.
        delay: seconds before anything is sent; None, of a hang: until the stub is released or stopped.
        pause: seconds between two pieces of a stream; an answer that is not streamed waits for all of them.
        input_tokens: what the usage says; None counts four bytes as a token.
        output_tokens: likewise.
    """

    chunks: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Literal["stop", "length", "content_filter"] = "stop"
    problem: Problem | None = None
    fault: Literal["hang", "cut", "garbage"] | None = None
    delay: float | None = 0.0
    pause: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.chunks)

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text as it is streamed."""
        return self.chunks if len(self.chunks) > 1 else tuple(re.findall(r"\s*\S+\s*|\s+$", self.text))

    def with_usage(self, *, input_tokens: int, output_tokens: int) -> Reply:
        """The same answer, with other numbers of tokens.

        >>> text("Paris").with_usage(input_tokens=900, output_tokens=100).output_tokens
        100
        """
        return replace(self, input_tokens=input_tokens, output_tokens=output_tokens)

    def usage_for(self, request: LMRequest) -> tuple[int, int]:
        """How many tokens went in and came out."""
        written = self.text + "".join(json.dumps([call.name, dict(call.args)]) for call in self.tool_calls)
        counted = (self.input_tokens, self.output_tokens)
        return (
            _tokens(request.text) if counted[0] is None else counted[0],
            _tokens(written) if counted[1] is None else counted[1],
        )


#: What a script consists of: texts, replies, and functions that make one of the request.
Scripted: TypeAlias = str | Reply | Callable[[LMRequest], "str | Reply | None"]


def _tokens(written: str) -> int:
    return -(-len(written.encode()) // 4)


# --- answers


def text(content: str) -> Reply:
    """Say this. The same as the string alone; for `Reply.with_usage`.

    >>> text("Paris").text
    'Paris'
    """
    return Reply(chunks=(content,))


def fields(**values: Any) -> Reply:
    """Say the values of a signature's output fields, as DSPy's ``ChatAdapter`` reads them.

    Strings are written as they are, all else as JSON; a Pydantic model may be given.

    >>> print(fields(answer="42", confidence=0.9).text)
    [[ ## answer ## ]]
    42
    <BLANKLINE>
    [[ ## confidence ## ]]
    0.9
    <BLANKLINE>
    [[ ## completed ## ]]
    """
    parts = [f"[[ ## {name} ## ]]\n{_written(value)}" for name, value in values.items()]
    return text("\n\n".join([*parts, "[[ ## completed ## ]]"]))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"a field of a reply must be JSON or a Pydantic model, got {value!r}")
    return dump(mode="json")


def react(thought: str, tool: str, args: Mapping[str, Any] | None = None) -> Reply:
    """Take a turn of DSPy's ``ReAct``: think this, and call that tool.

    >>> print(react("I add them.", "add", {"a": 1}).text.splitlines()[-3])
    {"a": 1}
    """
    return fields(next_thought=thought, next_tool_name=tool, next_tool_args=dict(args or {}))


def react_finish(thought: str = "I have all that I need.") -> Reply:
    """End the turns of DSPy's ``ReAct``; its next request asks for the output fields, and for ``reasoning``.

    >>> "finish" in react_finish().text
    True
    """
    return react(thought, "finish")


def react_agent(*calls: tuple[str, Mapping[str, Any]], **answer: Any) -> Callable[[LMRequest], Reply]:
    """Be the model of a whole ReAct agent: these calls of tools, one after the other, then this answer.

    Which turn it is, is read from the request, so one that comes again is answered as before: for agents that are
    killed and go on, and for several at once. Beside the calls, a run takes a request to finish and one to answer.

    Args:
        calls: the tool's name and its arguments, for each turn.
        answer: the values of the output fields.

    >>> stub.when("1 + 2").reply(react_agent(("add", {"a": 1, "b": 2}), answer="3"))
    >>> agent = dspy.ReAct("question -> answer", tools=[dspy.Tool(lambda a, b: a + b, name="add")])
    >>> with dspy.context(lm=lm):
    ...     agent(question="What is 1 + 2?").answer
    '3'
    >>> stub.count
    3
    """

    def reply(request: LMRequest) -> Reply:
        if "next_tool_name" not in request.text:
            return fields(reasoning="The observations say so.", **answer)
        turns = [int(number) for number in re.findall(r"\[\[ ## observation_(\d+) ## ]]", request.text)]
        turn = max(turns, default=-1) + 1
        return react(f"Turn {turn + 1}.", *calls[turn]) if turn < len(calls) else react_finish()

    return reply


def tool_call(name: str, args: Mapping[str, Any] | None = None) -> Reply:
    """Call a tool in the wire's own way: OpenAI's ``tool_calls``, Gemini's ``functionCall``.

    >>> tool_call("add", {"a": 1, "b": 2}).tool_calls[0].name
    'add'
    """
    return Reply(tool_calls=(ToolCall(name, dict(args or {})),))


def stream(chunks: Sequence[str], delay: float = 0.0) -> Reply:
    """Say it in these pieces, with ``delay`` seconds between two of them.

    >>> stream(["Pa", "ris"], delay=0.1).text
    'Paris'
    """
    return Reply(chunks=tuple(chunks), pause=delay)


def slow(content: str | Reply, seconds: float) -> Reply:
    """Answer after so many seconds.

    >>> slow("Paris", 2).delay
    2
    """
    return replace(text(content) if isinstance(content, str) else content, delay=seconds)


# --- answers that are none


def truncated(content: str) -> Reply:
    """Stop at ``max_tokens``: ``finish_reason`` is ``length``, or Gemini's ``MAX_TOKENS``.

    >>> truncated("The answer is f").finish
    'length'
    """
    return Reply(chunks=(content,), finish="length")


def empty() -> Reply:
    """Answer well, with nothing.

    >>> empty().text
    ''
    """
    return Reply()


def content_filter() -> Reply:
    """Refuse to answer: ``finish_reason`` is ``content_filter``, or Gemini's ``SAFETY``.

    >>> content_filter().finish
    'content_filter'
    """
    return Reply(finish="content_filter")


def rate_limited(retry_after: float | None = 1) -> Reply:
    """Answer 429, with ``Retry-After`` in seconds (None: without).

    >>> rate_limited(retry_after=3).problem.status
    429
    """
    return Reply(problem=Problem(ProblemKind.RATE_LIMITED, 429, retry_after=retry_after))


def server_error(status: int = 500, retry_after: float | None = None) -> Reply:
    """Answer with an error of the server: 500, 503, 504, ...

    >>> server_error(503).problem.status
    503
    """
    return Reply(problem=Problem(ProblemKind.SERVER_ERROR, status, retry_after=retry_after))


def unauthorized() -> Reply:
    """Answer 401: the key is wrong.

    >>> unauthorized().problem.status
    401
    """
    return Reply(problem=Problem(ProblemKind.UNAUTHORIZED, 401))


def context_overflow() -> Reply:
    """Answer 400: the request does not fit into the model's context.

    >>> context_overflow().problem.status
    400
    """
    return Reply(problem=Problem(ProblemKind.CONTEXT_OVERFLOW, 400))


# --- what goes wrong on the way


def hang(seconds: float | None = None) -> Reply:
    """Never answer: after so many seconds, or when the stub is released or stopped, the connection is closed.

    >>> hang().fault
    'hang'
    """
    return Reply(fault="hang", delay=seconds)


def cut(content: str = "This answer is cut off in its middle.") -> Reply:
    """Close the connection in the middle of the answer.

    >>> cut().fault
    'cut'
    """
    return Reply(chunks=(content,), fault="cut")


def garbage() -> Reply:
    """Answer 200 with what is no JSON.

    >>> garbage().fault
    'garbage'
    """
    return Reply(fault="garbage")
