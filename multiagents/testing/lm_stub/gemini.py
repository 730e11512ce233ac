"""Gemini: ``POST /v1beta/models/<model>:generateContent`` and ``:streamGenerateContent?alt=sse``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from multiagents.testing.lm_stub.replies import Problem, ProblemKind, Reply
from multiagents.testing.lm_stub.request import LMRequest
from multiagents.testing.lm_stub.wire import Asked

__all__ = ["Gemini"]

_PATH = re.compile(r"/models/(?P<model>[^/]+):(?P<verb>generateContent|streamGenerateContent)$")
_ROLES = {"model": "assistant"}
_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}

#: ``status`` and ``message`` of an error.
_PROBLEMS = {
    ProblemKind.RATE_LIMITED: ("RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan."),
    ProblemKind.SERVER_ERROR: ("INTERNAL", "An internal error has occurred. Please retry."),
    ProblemKind.UNAUTHORIZED: ("UNAUTHENTICATED", "API key not valid. Please pass a valid API key."),
    ProblemKind.CONTEXT_OVERFLOW: (
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    ProblemKind.UNSCRIPTED: ("INVALID_ARGUMENT", ""),
}
#: Errors of the server that have a name of their own.
_STATUSES = {503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
#: Gemini has no code for it, so clients take an error with such words for an overflow of the context.
_OVERFLOW = re.compile(r"token|too long|context length", re.IGNORECASE)


class Gemini:
    """Speak as Gemini does."""

    name = "gemini"

    def read(self, path: str, body: Mapping[str, Any]) -> Asked | None:
        """Read a request."""
        found = _PATH.search(path)
        if found is None:
            return None
        system = body.get("systemInstruction") or body.get("system_instruction")
        declared = [one for tool in body.get("tools") or [] for one in tool.get("functionDeclarations", [])]
        contents = [_message(content) for content in body.get("contents", [])]
        return Asked(
            model=unquote(found["model"]),
            messages=tuple([_message({**system, "role": "system"}), *contents] if system else contents),
            tools=tuple(one["name"] for one in declared),
            stream=found["verb"] == "streamGenerateContent",
        )

    def answer(self, reply: Reply, request: LMRequest) -> Mapping[str, Any]:
        """Write an answer as one JSON object."""
        parts = [{"text": reply.text}] if reply.text else []
        return _response(parts + _calls(reply), request, reply)

    def events(self, reply: Reply, request: LMRequest) -> Sequence[str]:
        """Write an answer as events; the last one has the reason to finish and the usage."""
        texts = [[{"text": piece}] for piece in reply.pieces]
        calls = [[part] for part in _calls(reply)]
        *before, last = [*texts, *calls] or [[]]
        events = [_response(parts, request) for parts in before]
        return [json.dumps(event) for event in [*events, _response(last, request, reply)]]

    def error(self, problem: Problem) -> Mapping[str, Any]:
        """Write an error; with ``RetryInfo`` where there is a time to wait."""
        status, words = _PROBLEMS[problem.kind]
        if problem.kind is ProblemKind.SERVER_ERROR:
            status = _STATUSES.get(problem.status, status)
        message = problem.message or words
        if problem.about and not _OVERFLOW.search(problem.about):
            message = f"{message} {problem.about}"
        error: dict[str, Any] = {"code": problem.status, "message": message, "status": status}
        if problem.retry_after is not None:
            info = "type.googleapis.com/google.rpc.RetryInfo"
            error["details"] = [{"@type": info, "retryDelay": f"{problem.retry_after:g}s"}]
        return {"error": error}


def _message(content: Mapping[str, Any]) -> Mapping[str, Any]:
    parts = content.get("parts", [])
    texts = [str(part["text"]) for part in parts if "text" in part]
    answers = [part["functionResponse"] for part in parts if "functionResponse" in part]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    texts += [_said(answer.get("response") or {}) for answer in answers]
    role = "tool" if answers else content.get("role", "user")
    found: dict[str, Any] = {"role": _ROLES.get(role, role), "content": "\n".join(texts)}
    if calls:
        found["tool_calls"] = [{"name": call["name"], "args": call.get("args", {})} for call in calls]
    return found


def _said(response: Mapping[str, Any]) -> str:
    """Read what a tool gave: the text where it is one, as on other wires."""
    return response["result"] if isinstance(response.get("result"), str) else json.dumps(response, ensure_ascii=False)


def _calls(reply: Reply) -> list[dict[str, Any]]:
    return [{"functionCall": {"name": call.name, "args": dict(call.args)}} for call in reply.tool_calls]


def _response(parts: list[dict[str, Any]], request: LMRequest, whole: Reply | None = None) -> dict[str, Any]:
    """Write a part of an answer; with ``whole``, its last."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    found: dict[str, Any] = {"modelVersion": request.model, "responseId": f"stub-{request.number}"}
    if whole is not None:
        asked, written = whole.usage_for(request)
        candidate["finishReason"] = _FINISH[whole.finish]
        counts = {"promptTokenCount": asked, "candidatesTokenCount": written, "totalTokenCount": asked + written}
        found["usageMetadata"] = counts
    return {"candidates": [candidate]} | found
