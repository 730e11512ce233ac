"""Spans of agents, by OpenTelemetry's conventions: of what was really asked and called, and without what was said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from multiagents import Orchestrator, RetryPolicy, WorkflowBuilder, dspy_worker, tool
from multiagents.testing.lm_stub import LMStub, react_agent, server_error
from tests.support.one_process import one_process

AGAIN = RetryPolicy(max_attempts=2, initial_interval=0.01, jitter=False)


class Seen:
    """What was exported."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter

    @property
    def spans(self) -> list[Any]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    def named(self, name: str) -> Any:
        (span,) = [span for span in self.spans if span.name == name]
        return span


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # A process sets one once and for all, which would be this test's for all tests after it.
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return Seen(exporter)


@pytest.fixture
def orchestrator(lm_stub: LMStub) -> Iterator[Orchestrator]:
    lm = {"model": "openai/stub", "api_base": lm_stub.openai_base, "api_key": "x", "temperature": 0.5}
    with one_process(multiagents_lm=lm) as made:
        yield made


@tool("look_up")
def look_up(word: str) -> str:
    "Look a word up."
    if word == "secret-missing":
        raise LookupError(f"no {word}")
    return f"about {word}"


def research(orchestrator: Orchestrator, *, crashes: int = 0) -> Any:
    crashed: list[str] = []

    @dspy_worker("researcher", signature="question -> answer", reasoning="react", tools=[look_up], retry=AGAIN)
    def researcher(context: dict[str, Any]) -> None:
        if len(crashed) < crashes:
            crashed.append("once")
            raise RuntimeError("secret-crash")

    workflow = WorkflowBuilder("research").add_step("it", researcher).build(register=False)
    run = orchestrator.start(workflow, {"question": "secret-question"})
    assert run.result()["answer"] == "secret-answer"
    return run


def test_an_agent_its_requests_and_its_calls_of_tools_are_spans_by_the_conventions(
    orchestrator: Orchestrator, lm_stub: LMStub, seen: Seen
) -> None:
    from opentelemetry import trace

    lm_stub.when("secret-question").reply(react_agent(("look_up", {"word": "secret-word"}), answer="secret-answer"))

    with trace.get_tracer("celery").start_as_current_span("run/researcher"):
        run = research(orchestrator)

    assert [span.name for span in seen.spans] == [
        "run/researcher",
        "invoke_agent researcher",
        "chat stub",
        "execute_tool look_up",
        "chat stub",
        "chat stub",
    ]
    task, agent, *inner = seen.spans
    assert agent.parent.span_id == task.context.span_id
    assert {span.parent.span_id for span in inner} == {agent.context.span_id}
    assert dict(agent.attributes) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "researcher",
        "multiagents.transaction_id": run.transaction_id,
        "multiagents.workflow": "research",
        "multiagents.step": "it",
        "multiagents.attempt": 1,
    }
    chat = dict(inner[0].attributes)
    usage = run.calls("it")[0].usage
    assert chat.pop("server.port") > 0
    assert chat == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "stub",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "stub",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "server.address": "127.0.0.1",
    }
    assert inner[0].kind.name == "CLIENT"
    assert dict(inner[1].attributes) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "look_up",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": run.calls("it")[1].slot,
    }


def test_a_call_that_is_replayed_is_an_event_of_the_agent_and_no_span(
    orchestrator: Orchestrator, lm_stub: LMStub, seen: Seen
) -> None:
    lm_stub.when("secret-question").reply(react_agent(("look_up", {"word": "secret-word"}), answer="secret-answer"))

    research(orchestrator, crashes=1)

    first, second = [span for span in seen.spans if span.name == "invoke_agent researcher"]
    assert [span.name for span in seen.spans].count("chat stub") == 3
    assert [span.name for span in seen.spans].count("execute_tool look_up") == 1
    assert first.events == ()
    assert first.attributes["error.type"] == "RuntimeError"
    assert [(event.name, event.attributes["multiagents.kind"]) for event in second.events] == [
        ("replayed", "lm"),
        ("replayed", "tool"),
        ("replayed", "lm"),
        ("replayed", "lm"),
    ]
    assert second.status.status_code.name == "UNSET"


def test_what_fails_says_so_by_its_type_and_no_span_has_what_was_said(
    orchestrator: Orchestrator, lm_stub: LMStub, seen: Seen
) -> None:
    agent = react_agent(("look_up", {"word": "secret-missing"}), answer="secret-answer")
    lm_stub.answer_with(lambda request: server_error(500) if request.number == 1 else agent(request))

    research(orchestrator, crashes=1)

    failed = [(span.name, span.attributes["error.type"]) for span in seen.spans if "error.type" in span.attributes]
    assert failed == [
        ("invoke_agent researcher", "RuntimeError"),
        ("chat stub", "dspy._vendor.lm15.errors.ServerError"),
        ("execute_tool look_up", "LookupError"),
    ]
    assert "secret" not in "".join(span.to_json() for span in seen.spans)
