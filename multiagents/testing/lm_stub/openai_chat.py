"""OpenAI's chat completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from multiagents.testing.lm_stub.replies import Problem, ProblemKind, Reply
from multiagents.testing.lm_stub.request import LMRequest
from multiagents.testing.lm_stub.wire import Asked

__all__ = ["OpenAIChat"]

#: ``type``, ``code`` and ``message`` of an error.
_PROBLEMS = {
    ProblemKind.RATE_LIMITED: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    ProblemKind.SERVER_ERROR: ("server_error", None, "The server had an error while processing your request."),
    ProblemKind.UNAUTHORIZED: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    ProblemKind.CONTEXT_OVERFLOW: (
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. Please reduce the length of the messages.",
    ),
    ProblemKind.UNSCRIPTED: ("invalid_request_error", "unscripted", ""),
}


class OpenAIChat:
    """Speak as OpenAI's chat completions do."""

    name = "openai"

    def read(self, path: str, body: Mapping[str, Any]) -> Asked | None:
        """Read a request."""
        if not path.endswith("/chat/completions"):
            return None
        return Asked(
            model=str(body.get("model", "")),
            messages=tuple(_message(message) for message in body.get("messages", [])),
            tools=tuple(tool["function"]["name"] for tool in body.get("tools") or [] if "function" in tool),
            stream=bool(body.get("stream")),
        )

    def answer(self, reply: Reply, request: LMRequest) -> Mapping[str, Any]:
        """Write an answer as one JSON object."""
        message: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if reply.tool_calls:
            message |= {"content": reply.text or None, "tool_calls": _tool_calls(reply, request)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply)}
        return _head(request, "chat.completion") | {"choices": [choice], "usage": _usage(reply, request)}

    def events(self, reply: Reply, request: LMRequest) -> Sequence[str]:
        """Write an answer as events; the usage comes where the request has ``stream_options.include_usage``."""
        head = _head(request, "chat.completion.chunk")
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in _deltas(reply, request)
        ]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": _finish(reply)}]})
        if (request.body.get("stream_options") or {}).get("include_usage"):
            chunks.append({"choices": [], "usage": _usage(reply, request)})
        return [*(json.dumps(head | chunk) for chunk in chunks), "[DONE]"]

    def error(self, problem: Problem) -> Mapping[str, Any]:
        """Write an error."""
        kind, code, words = _PROBLEMS[problem.kind]
        message = " ".join(filter(None, (problem.message or words, problem.about)))
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in content)
    found: dict[str, Any] = {"role": message.get("role", ""), "content": content}
    if calls := message.get("tool_calls"):
        functions = [call["function"] for call in calls]
        found["tool_calls"] = [{"name": one["name"], "args": json.loads(one["arguments"] or "{}")} for one in functions]
    return found


def _head(request: LMRequest, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{request.number}", "object": kind, "created": int(request.at), "model": request.model}


def _deltas(reply: Reply, request: LMRequest) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    for piece in reply.pieces:
        yield {"content": piece}
    for index, call in enumerate(_tool_calls(reply, request)):
        # As OpenAI does: the name first, then the arguments in pieces.
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        yield {"tool_calls": [{"index": index} | call | {"function": call["function"] | {"arguments": ""}}]}
        for piece in (arguments[:half], arguments[half:]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _tool_calls(reply: Reply, request: LMRequest) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{request.number}_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.args))},
        }
        for index, call in enumerate(reply.tool_calls)
    ]


def _finish(reply: Reply) -> str:
    return "tool_calls" if reply.tool_calls and reply.finish == "stop" else reply.finish


def _usage(reply: Reply, request: LMRequest) -> dict[str, int]:
    asked, written = reply.usage_for(request)
    return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}
