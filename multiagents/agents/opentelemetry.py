"""Spans of what an agent does, by OpenTelemetry's conventions for generative AI; nothing where that is not installed.

`invoke_agent` is one attempt, beneath whatever span it runs in (Celery's of the task, say); `chat` is one request to a
model that was really made, and `execute_tool` one call of a tool. A call that is answered from the journal has no span,
as it took no time and cost nothing: an event of the agent's says so. No span has a prompt, an answer or an argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from multiagents.error_report import qualified_name
from multiagents.worker_sdk.attempt.asked import GivenBack

try:
    from opentelemetry import trace
except ModuleNotFoundError:  # an extra
    trace = None

if TYPE_CHECKING:
    from multiagents.agents.calls import Calls

#: What the conventions call a provider, where that is not what DSPy calls it.
_PROVIDERS = {
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}


class ChatSpan:
    """The span of one request to a model; of none, where nobody wants to know."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def answered(self, about: Mapping[str, Any]) -> None:
        """Say what came back: who has answered, why he ended, and what it took, by the names of the conventions."""
        if self._span is not None:
            self._span.set_attributes({f"gen_ai.{name}": value for name, value in about.items()})


@contextmanager
def agent_span(agent: str, calls: Calls | None) -> Iterator[None]:
    """The span of an attempt of an agent."""
    if trace is None:
        yield
        return
    about: dict[str, Any] = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": agent}
    if calls is not None:
        step = calls.step
        about |= {
            "multiagents.transaction_id": step.transaction_id,
            "multiagents.workflow": step.workflow,
            "multiagents.step": step.step,
            "multiagents.attempt": step.attempt,
        }
    with _started(f"invoke_agent {agent}", about) as span:
        if calls is not None:
            calls.span = span
        yield


@contextmanager
def chat_span(
    calls: Calls | None, model: str, provider: str | None, base_url: str | None, options: Mapping[str, Any]
) -> Iterator[ChatSpan]:
    """The span of one request to a model; it is nobody's current one, as those who ask may be coroutines.

    Args:
        calls: those of the attempt.
        model: who is asked, as DSPy spells it.
        provider: whose it is, where its name does not begin with that; None is unknown.
        base_url: where, if not where the provider says.
        options: of the request: ``temperature``, ``max_tokens`` and the like.
    """
    if trace is None:
        yield ChatSpan()
        return
    whose, slash, name = model.partition("/")
    if not slash:
        whose, name = provider or "unknown", model
    about: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _PROVIDERS.get(whose, whose),
        "gen_ai.request.model": name,
    }
    about |= {f"gen_ai.request.{key}": value for key, value in options.items() if value is not None}
    if base_url and (there := urlsplit(base_url)).hostname:
        about |= {"server.address": there.hostname, **({"server.port": there.port} if there.port else {})}
    span = _tracer().start_span(f"chat {name}", context=_parent(calls), kind=trace.SpanKind.CLIENT, attributes=about)
    try:
        yield ChatSpan(span)
    except Exception as error:
        _fail(span, error)
        raise
    finally:
        span.end()


@contextmanager
def tool_span(calls: Calls | None, tool: str, slot: str) -> Iterator[Any]:
    """The span of one call of a tool.

    Yields:
        what is to be called with the type of the error, if the call fails.
    """
    if trace is None:
        yield lambda _type: None
        return
    about = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool, "gen_ai.tool.type": "function"}
    if slot:
        about["gen_ai.tool.call.id"] = slot
    with _started(f"execute_tool {tool}", about, _parent(calls)) as span:
        yield lambda type_: _fail_with(span, type_)


def replayed(calls: Calls | None, kind: str, name: str, slot: str) -> None:
    """Say that a call was answered from the journal."""
    if calls is not None and calls.span is not None:
        calls.span.add_event("replayed", {"multiagents.call": slot, "multiagents.kind": kind, "multiagents.name": name})


@contextmanager
def _started(name: str, about: Mapping[str, Any], parent: Any = None) -> Iterator[Any]:
    # What an error says may be what a model has said: its type is told, and no more.
    with _tracer().start_as_current_span(
        name, context=parent, attributes=about, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except GivenBack:
            raise  # No error: it comes again.
        except Exception as error:
            _fail(span, error)
            raise


def _tracer() -> Any:
    return trace.get_tracer("multiagents.agents")


def _parent(calls: Calls | None) -> Any:
    """The context of a span: a thread that DSPy has started has none, and its calls are the agent's all the same."""
    if calls is None or calls.span is None or trace.get_current_span().get_span_context().is_valid:
        return None
    return trace.set_span_in_context(calls.span)


def _fail(span: Any, error: BaseException) -> None:
    _fail_with(span, qualified_name(type(error)))


def _fail_with(span: Any, type_: str) -> None:
    span.set_attribute("error.type", type_)
    span.set_status(trace.StatusCode.ERROR)
