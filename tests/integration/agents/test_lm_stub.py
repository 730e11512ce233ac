"""The stub of a language model under real DSPy: what becomes of each of its replies there.

The table of failures is what the journal and the retries of an agent go by.
"""

from __future__ import annotations

import asyncio
import doctest
import logging
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from multiagents.testing import lm_stub as package
from multiagents.testing.lm_stub import (
    LMStub,
    Scripted,
    content_filter,
    context_overflow,
    cut,
    empty,
    fields,
    garbage,
    hang,
    rate_limited,
    react,
    react_agent,
    react_finish,
    server_error,
    slow,
    stream,
    text,
    tool_call,
    truncated,
    unauthorized,
)

OPENAI, GEMINI = "openai", "gemini"
WIRES = pytest.mark.parametrize("wire", [OPENAI, GEMINI])
ANSWER = fields(answer="Paris")

#: What DSPy raises for a reply, on each wire; where it differs, streamed and not. A string is an answer.
FAILURES: dict[str, tuple[Scripted, str, str]] = {
    "rate_limited": (rate_limited(), "LMRateLimitError", "LMRateLimitError"),
    "server_error 500": (server_error(500), "LMServerError", "LMServerError"),
    "server_error 503": (server_error(503), "LMServerError", "LMServerError"),
    "unauthorized": (unauthorized(), "LMAuthError", "LMAuthError"),
    "context_overflow": (context_overflow(), "ContextWindowExceededError", "ContextWindowExceededError"),
    "hang": (hang(), "LMTransportError", "LMTransportError"),
    "cut": (cut(), "LMTransportError", "LMTransportError"),
    "garbage": (garbage(), "LMProviderError", "LMProviderError"),
    "empty": (empty(), "AdapterParseError", "AdapterParseError"),
    "malformed": ("no fields", "AdapterParseError", "AdapterParseError"),
    "truncated in its first field": (truncated("[[ ## answ"), "AdapterParseError", "AdapterParseError"),
    "content_filter": (content_filter(), "AdapterParseError", "LMInvalidRequestError"),
    "a tool that was not asked for": (tool_call("add"), "AdapterParseError", "AdapterParseError"),
    "nothing scripted": (lambda _: None, "LMInvalidRequestError", "LMInvalidRequestError"),
}
#: A stream that is no stream is found out elsewhere.
STREAMED = {"garbage": "LMStreamAssemblyError"}

#: Those that DSPy tries again by itself: with `num_retries=3`, its default, after 1, 2 and 4 seconds.
RETRIED = {"rate_limited", "server_error 500", "server_error 503", "hang", "cut"}


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """DSPy takes seconds to import: not in every process that collects these tests."""
    global dspy
    dspy = pytest.importorskip("dspy")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """DSPy looks up prices in what came with it, not on GitHub."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    caplog.set_level(logging.CRITICAL, logger="dspy")


@pytest.fixture
def ask(lm_stub: LMStub, wire: str) -> Iterator[Callable[..., Any]]:
    """A function that runs a module, or what is made of one, with a model of this wire."""

    def run(module: Any, *, lm: dict[str, Any] | None = None, **inputs: Any) -> Any:
        adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
        with dspy.context(lm=model(lm_stub, wire, **{"num_retries": 0, "timeout": 10, **(lm or {})}), adapter=adapter):
            return module(**inputs)

    return run


def model(stub: LMStub, wire: str, **options: Any) -> Any:
    name, base = ("openai/gpt-x", stub.openai_base) if wire == OPENAI else ("gemini/gemini-3.8-flash", stub.gemini_base)
    return dspy.LM(name, api_base=base, api_key="x", cache=False, **options)


def streamed(program: Any, field: str = "answer") -> Callable[..., list[Any]]:
    """What a program's stream consists of: the pieces of a field, then the prediction."""

    async def collect(**inputs: Any) -> list[Any]:
        streaming = dspy.streamify(
            program, stream_listeners=[dspy.streaming.StreamListener(signature_field_name=field)]
        )
        return [getattr(one, "chunk", one) async for one in streaming(**inputs)]

    return lambda **inputs: asyncio.run(collect(**inputs))


def raised(error: BaseException) -> str:
    """The name of an error; of those that came in a group, of the one."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return type(error).__name__


# --- answers


class Person(BaseModel):
    name: str
    age: int


@WIRES
def test_output_fields_arrive_in_their_types(lm_stub: LMStub, ask: Callable[..., Any]):
    class Facts(dspy.Signature):
        question: str = dspy.InputField()
        cities: list[str] = dspy.OutputField()
        mood: Literal["good", "bad"] = dspy.OutputField()
        confidence: float = dspy.OutputField()
        sure: bool = dspy.OutputField()
        counts: dict[str, int] = dspy.OutputField()
        person: Person = dspy.OutputField()

    values = {"cities": ["Paris", "Zürich"], "mood": "good", "confidence": 0.5, "sure": True, "counts": {"a": 1}}
    lm_stub.reply(fields(**values, person=Person(name="Ann", age=3)))

    found = ask(dspy.Predict(Facts), question="Who is where?")

    assert dict(found.items()) == values | {"person": Person(name="Ann", age=3)}


@WIRES
def test_a_chain_of_thought_is_one_request_and_its_usage_is_what_the_stub_says(
    lm_stub: LMStub, ask: Callable[..., Any]
):
    lm_stub.reply(fields(reasoning="It is known.", answer="Paris").with_usage(input_tokens=90, output_tokens=10))

    with dspy.track_usage() as usage:
        found = ask(dspy.ChainOfThought("question -> answer"), question="Capital of France?")

    assert (found.reasoning, found.answer, lm_stub.count) == ("It is known.", "Paris", 1)
    (counted,) = usage.get_total_tokens().values()
    assert (counted["prompt_tokens"], counted["completion_tokens"], counted["total_tokens"]) == (90, 10, 100)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    await asyncio.sleep(0)
    return a * b


@WIRES
def test_a_react_agent_takes_its_calls_one_to_finish_and_one_to_answer(lm_stub: LMStub, ask: Callable[..., Any]):
    lm_stub.reply(
        react("I add.", "add", {"a": 1, "b": 2}), react_finish(), fields(reasoning="It was added.", answer="3")
    )

    found = ask(dspy.ReAct("question -> answer", tools=[add]), question="1 + 2?")

    assert (found.answer, lm_stub.count) == ("3", 3)
    assert found.trajectory["observation_0"] == 3


@WIRES
def test_async_react_agents_side_by_side_are_each_answered_by_what_they_ask(lm_stub: LMStub, ask: Callable[..., Any]):
    calls = [("add", {"a": 1, "b": 2}), ("multiply", {"a": 3, "b": 4}), ("add", {"a": 12, "b": 0})]
    lm_stub.when("Ann").reply(react_agent(*calls, answer="of Ann"))
    lm_stub.when("Bob").reply(react_agent(*calls[:1], answer="of Bob"))

    async def both() -> list[Any]:
        agent = dspy.ReAct("name -> answer", tools=[add, multiply])
        return list(await asyncio.gather(agent.acall(name="Ann"), agent.acall(name="Bob")))

    of_ann, of_bob = ask(lambda: asyncio.run(both()))

    assert (of_ann.answer, of_bob.answer) == ("of Ann", "of Bob")
    assert [of_ann.trajectory[f"observation_{turn}"] for turn in range(3)] == [3, 12, 12]
    assert lm_stub.count == 5 + 3


@WIRES
def test_a_native_call_of_a_tool_is_one_of_dspy(lm_stub: LMStub, wire: str):
    class Act(dspy.Signature):
        question: str = dspy.InputField()
        tools: list[dspy.Tool] = dspy.InputField()
        calls: dspy.ToolCalls = dspy.OutputField()

    lm_stub.reply(tool_call("add", {"a": 1, "b": 2}))
    # DSPy sends tools to the models that it knows to take them.
    lm = (
        model(lm_stub, GEMINI)
        if wire == GEMINI
        else dspy.LM("openai/gpt-4o", api_base=lm_stub.openai_base, api_key="x")
    )

    with dspy.context(lm=lm.copy(cache=False), adapter=dspy.ChatAdapter(use_native_function_calling=True)):
        (call,) = dspy.Predict(Act)(question="1 + 2?", tools=[dspy.Tool(add)]).calls.tool_calls

    assert (call.name, call.args) == ("add", {"a": 1, "b": 2})
    assert lm_stub.requests[0].tools == ("add",)


@WIRES
def test_a_stream_comes_in_the_pieces_that_were_scripted(lm_stub: LMStub, ask: Callable[..., Any]):
    lm_stub.reply(stream(["[[ ## answer ## ]]\n", "It is ", "Paris", " of course", "\n\n[[ ## completed ## ]]"]))

    *pieces, found = ask(streamed(dspy.Predict("question -> answer")), question="Capital of France?")

    assert len(pieces) > 1
    assert "".join(filter(None, pieces)) == found.answer == "It is Paris of course"
    assert [request.stream for request in lm_stub.requests] == [True]


@WIRES
def test_a_streamed_answer_has_its_usage(lm_stub: LMStub, ask: Callable[..., Any]):
    lm_stub.reply(ANSWER.with_usage(input_tokens=90, output_tokens=10))

    with dspy.track_usage() as usage:
        ask(streamed(dspy.Predict("question -> answer")), question="Capital of France?")

    (counted,) = usage.get_total_tokens().values()
    assert (counted["prompt_tokens"], counted["completion_tokens"]) == (90, 10)


@WIRES
def test_of_a_streamed_react_agent_dspy_streams_the_answer_alone(lm_stub: LMStub, ask: Callable[..., Any]):
    lm_stub.when("1 + 2").reply(react_agent(("add", {"a": 1, "b": 2}), answer="It is 3"))

    *pieces, found = ask(streamed(dspy.ReAct("question -> answer", tools=[add])), question="1 + 2?")

    assert "".join(filter(None, (piece for piece in pieces if isinstance(piece, str)))) == found.answer == "It is 3"
    assert [request.stream for request in lm_stub.requests] == [False, False, True]


@WIRES
def test_an_answer_may_be_slow(lm_stub: LMStub, ask: Callable[..., Any]):
    lm_stub.reply(slow(ANSWER, 0.2), slow(ANSWER, 60))

    found = ask(dspy.Predict("question -> answer"), question="Capital of France?")
    with pytest.raises(dspy.LMTransportError, match="timed out"):
        ask(dspy.Predict("question -> answer"), lm={"timeout": 0.2}, question="Capital of France?")

    assert found.answer == "Paris"


@WIRES
def test_dspy_takes_an_answer_that_was_truncated_in_its_last_field_for_whole(lm_stub: LMStub, ask: Callable[..., Any]):
    lm_stub.reply(truncated("[[ ## answer ## ]]\nThe capital of Fr"))

    found = ask(dspy.Predict("question -> answer"), question="Capital of France?")

    assert (found.answer, lm_stub.count) == ("The capital of Fr", 1)


@pytest.mark.parametrize("module", [package.replies, package.stub])
def test_the_examples_in_the_docstrings_run(module: Any):
    globs = {name: getattr(package, name) for name in package.__all__} | {"dspy": dspy, "Thread": Thread}
    for example in doctest.DocTestFinder().find(module, extraglobs=globs):
        with LMStub() as stub:
            example.globs |= {"stub": stub, "lm": model(stub, OPENAI)}
            assert doctest.DocTestRunner().run(example).failed == 0


# --- failures


@WIRES
@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("how", ["sync", "async", "streamed"])
def test_each_failure_is_one_request_and_the_error_of_the_table(
    lm_stub: LMStub, ask: Callable[..., Any], wire: str, kind: str, how: str
):
    reply, openai, gemini = FAILURES[kind]
    lm_stub.when().reply(reply)
    predict = dspy.Predict("question -> answer")
    program = {
        "sync": predict,
        "async": lambda **inputs: asyncio.run(predict.acall(**inputs)),
        "streamed": streamed(predict),
    }[how]

    timeout = 0.3 if kind == "hang" else 10
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the table says which
        ask(program, lm={"timeout": timeout}, question="Capital of France?")

    expected = openai if wire == OPENAI else gemini
    assert raised(caught.value) == (STREAMED.get(kind, expected) if how == "streamed" else expected)
    assert lm_stub.count == 1


@WIRES
@pytest.mark.parametrize("kind", FAILURES)
def test_by_default_dspy_tries_again_what_may_pass_and_nothing_else(
    lm_stub: LMStub, ask: Callable[..., Any], kind: str
):
    lm_stub.reply(FAILURES[kind][0], ANSWER)
    timeout = 0.3 if kind == "hang" else 10

    def tried() -> str:
        try:
            return str(
                ask(dspy.Predict("question -> answer"), lm={"num_retries": 3, "timeout": timeout}, question="?").answer
            )
        except Exception as error:
            return raised(error)

    answer = tried()

    assert (answer == "Paris", lm_stub.count) == ((True, 2) if kind in RETRIED else (False, 1))


@WIRES
def test_retry_after_is_waited_for(lm_stub: LMStub, ask: Callable[..., Any]):
    lm_stub.reply(rate_limited(retry_after=1.5), ANSWER)

    ask(dspy.Predict("question -> answer"), lm={"num_retries": 3}, question="Capital of France?")

    first, second = lm_stub.requests
    assert second.at - first.at >= 1.5


@WIRES
def test_a_malformed_answer_costs_a_second_request_with_dspys_own_adapter(lm_stub: LMStub, wire: str):
    lm_stub.answer_with(lambda _: "no fields")

    with dspy.context(lm=model(lm_stub, wire)), pytest.raises(dspy.utils.exceptions.AdapterParseError):
        dspy.Predict("question -> answer")(question="Capital of France?")

    assert lm_stub.count == 2


@WIRES
def test_a_react_agent_whose_first_request_overflows_goes_straight_to_its_answer(
    lm_stub: LMStub, ask: Callable[..., Any]
):
    lm_stub.reply(context_overflow(), fields(reasoning="It is known.", answer="3"))

    found = ask(dspy.ReAct("question -> answer", tools=[add]), question="1 + 2?")

    assert (found.answer, lm_stub.count, found.trajectory) == ("3", 2, {})


@WIRES
def test_a_react_agent_fails_with_the_failures_of_its_model(lm_stub: LMStub, ask: Callable[..., Any]):
    lm_stub.reply(react("I add.", "add", {"a": 1, "b": 2}), text("no fields"))

    with pytest.raises(dspy.utils.exceptions.AdapterParseError):
        ask(dspy.ReAct("question -> answer", tools=[add]), question="1 + 2?")

    assert lm_stub.count == 2


@WIRES
def test_a_missing_reply_fails_in_words(lm_stub: LMStub, ask: Callable[..., Any]):
    with pytest.raises(dspy.LMError, match=r"LMStub has no reply: nothing is scripted\. Script one with stub\.reply"):
        ask(dspy.Predict("question -> answer"), question="Capital of France?")


@WIRES
def test_held_requests_of_an_agent_are_answered_when_they_are_released(lm_stub: LMStub, ask: Callable[..., Any]):
    lm_stub.when("1 + 2").reply(react_agent(("add", {"a": 1, "b": 2}), answer="3"))
    lm_stub.hold(after=1)

    async def agent_and_test() -> Any:
        running = asyncio.create_task(dspy.ReAct("question -> answer", tools=[add]).acall(question="1 + 2?"))
        await asyncio.to_thread(lm_stub.wait_for, 2)
        counted = lm_stub.count, running.done()
        lm_stub.release()
        return counted, (await running).answer

    assert ask(lambda: asyncio.run(agent_and_test())) == ((2, False), "3")
    assert lm_stub.count == 3
