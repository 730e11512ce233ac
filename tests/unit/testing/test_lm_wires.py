"""The stub of a language model, as any HTTP client sees it."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from multiagents.testing import wait_until
from multiagents.testing.lm_stub import (
    LMRequest,
    LMStub,
    Reply,
    ToolCall,
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


@pytest.fixture
def stub() -> Iterator[LMStub]:
    with LMStub() as running:
        yield running


def post(url: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Authorization": "Bearer secret"} | (headers or {})
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read(), {name.lower(): value for name, value in response.headers.items()}
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), {name.lower(): value for name, value in error.headers.items()}


def ask(stub: LMStub, wire: str, prompt: str = "Hi", *, stream: bool = False, **more: Any) -> tuple[int, Any, Any]:
    if wire == OPENAI:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        body = {"model": "gpt-x", "messages": messages} | options | more
        return post(f"{stub.openai_base}/chat/completions", body)
    body = {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": prompt}]}],
    }
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return post(f"{stub.gemini_base}/models/gemini-3.8-flash:{verb}", body | more)


def data(content: bytes) -> list[Any]:
    """The events of a stream; OpenAI's last one is no JSON."""
    lines = [line.removeprefix("data: ") for line in content.decode().split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


# --- both wires


def test_an_answer_of_openai_has_its_text_its_reason_to_stop_and_its_usage(stub: LMStub) -> None:
    stub.reply(text("Paris").with_usage(input_tokens=9, output_tokens=2))

    status, content, _ = ask(stub, OPENAI)

    answer = json.loads(content)
    assert (status, answer["model"], answer["object"]) == (200, "gpt-x", "chat.completion")
    message = {"role": "assistant", "content": "Paris"}
    assert answer["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert answer["usage"] == {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


def test_an_answer_of_gemini_has_its_text_its_reason_to_stop_and_its_usage(stub: LMStub) -> None:
    stub.reply(text("Paris").with_usage(input_tokens=9, output_tokens=2))

    status, content, _ = ask(stub, GEMINI)

    answer = json.loads(content)
    assert (status, answer["modelVersion"]) == (200, "gemini-3.8-flash")
    said = {"role": "model", "parts": [{"text": "Paris"}]}
    assert answer["candidates"] == [{"content": said, "index": 0, "finishReason": "STOP"}]
    assert answer["usageMetadata"] == {"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 11}


def test_a_stream_of_openai_comes_word_by_word_and_ends_with_reason_usage_and_done(stub: LMStub) -> None:
    stub.reply("It is Paris.")

    _, content, headers = ask(stub, OPENAI, stream=True)

    *events, done = data(content)
    assert headers["content-type"] == "text/event-stream"
    assert [one["choices"][0]["delta"] for one in events[:-1]] == [
        {"role": "assistant", "content": ""},
        {"content": "It "},
        {"content": "is "},
        {"content": "Paris."},
        {},
    ]
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 3
    assert done == "[DONE]"


def test_a_stream_of_openai_has_no_usage_unless_it_is_asked_for(stub: LMStub) -> None:
    stub.reply("Paris")

    _, content, _ = ask(stub, OPENAI, stream=True, stream_options={})

    assert [one for one in data(content)[:-1] if "usage" in one] == []


def test_a_stream_of_gemini_comes_in_the_pieces_asked_for_and_its_last_has_reason_and_usage(stub: LMStub) -> None:
    stub.reply(stream(["Pa", "ris"]))

    _, content, _ = ask(stub, GEMINI, stream=True)

    first, last = data(content)
    assert first["candidates"][0]["content"]["parts"] == [{"text": "Pa"}]
    assert "usageMetadata" not in first
    assert last["candidates"][0] == {
        "content": {"role": "model", "parts": [{"text": "ris"}]},
        "index": 0,
        "finishReason": "STOP",
    }
    assert last["usageMetadata"]["candidatesTokenCount"] == 2


def test_tools_are_called_in_the_way_of_each_wire_whole_and_streamed(stub: LMStub) -> None:
    stub.when("add").reply(tool_call("add", {"a": 1, "b": 2}))

    choice = json.loads(ask(stub, OPENAI, "add")[1])["choices"][0]
    deltas = [one["choices"][0]["delta"] for one in data(ask(stub, OPENAI, "add", stream=True)[1])[:-2]]
    parts = json.loads(ask(stub, GEMINI, "add")[1])["candidates"][0]["content"]["parts"]
    streamed = data(ask(stub, GEMINI, "add", stream=True)[1])[0]["candidates"][0]["content"]["parts"]

    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("add", {"a": 1, "b": 2})
    pieces = [one["tool_calls"][0]["function"]["arguments"] for one in deltas if "tool_calls" in one]
    assert json.loads("".join(pieces)) == {"a": 1, "b": 2}
    assert parts == streamed == [{"functionCall": {"name": "add", "args": {"a": 1, "b": 2}}}]


@pytest.mark.parametrize(
    ("reply", "openai", "gemini"),
    [
        (truncated("Par"), "length", "MAX_TOKENS"),
        (content_filter(), "content_filter", "SAFETY"),
        (empty(), "stop", "STOP"),
    ],
)
def test_the_reason_to_stop_is_told_whole_and_streamed(stub: LMStub, reply: Reply, openai: str, gemini: str) -> None:
    stub.answer_with(lambda _: reply)

    assert json.loads(ask(stub, OPENAI)[1])["choices"][0]["finish_reason"] == openai
    assert data(ask(stub, OPENAI, stream=True)[1])[-3]["choices"][0]["finish_reason"] == openai
    assert json.loads(ask(stub, GEMINI)[1])["candidates"][0]["finishReason"] == gemini
    assert data(ask(stub, GEMINI, stream=True)[1])[-1]["candidates"][0]["finishReason"] == gemini


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reply", "status", "openai", "gemini"),
    [
        (rate_limited(retry_after=2), 429, "rate_limit_exceeded", "RESOURCE_EXHAUSTED"),
        (server_error(), 500, None, "INTERNAL"),
        (server_error(503), 503, None, "UNAVAILABLE"),
        (unauthorized(), 401, "invalid_api_key", "UNAUTHENTICATED"),
        (context_overflow(), 400, "context_length_exceeded", "INVALID_ARGUMENT"),
    ],
)
def test_an_error_has_the_status_and_the_code_of_its_wire(
    stub: LMStub, reply: Reply, status: int, openai: str | None, gemini: str, stream: bool
) -> None:
    stub.answer_with(lambda _: reply)

    of_openai, of_gemini = ask(stub, OPENAI, stream=stream), ask(stub, GEMINI, stream=stream)

    assert (of_openai[0], json.loads(of_openai[1])["error"]["code"]) == (status, openai)
    assert (of_gemini[0], json.loads(of_gemini[1])["error"]["status"]) == (status, gemini)
    waits = [of_openai[2].get("retry-after"), of_gemini[2].get("retry-after")]
    assert waits == (["2", "2"] if status == 429 else [None, None])


@pytest.mark.parametrize("wire", [OPENAI, GEMINI])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_cut_ends_in_its_middle(stub: LMStub, wire: str, stream: bool) -> None:
    stub.reply(cut("a text of a few words"))

    with pytest.raises(http.client.IncompleteRead):
        ask(stub, wire, stream=stream)


@pytest.mark.parametrize("wire", [OPENAI, GEMINI])
@pytest.mark.parametrize("stream", [False, True])
def test_garbage_is_200_and_no_json(stub: LMStub, wire: str, stream: bool) -> None:
    stub.reply(garbage())

    status, content, _ = ask(stub, wire, stream=stream)

    assert status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(content)


@pytest.mark.parametrize("wire", [OPENAI, GEMINI])
def test_what_hangs_is_closed_without_an_answer_when_it_is_released(stub: LMStub, wire: str) -> None:
    stub.reply(hang())
    failures: list[BaseException] = []
    asking = threading.Thread(target=lambda: failures.append(error_of(lambda: ask(stub, wire))))
    asking.start()
    stub.wait_for(1)

    stub.release()
    asking.join(10)

    assert [type(one) for one in failures] == [http.client.RemoteDisconnected]


def error_of(action: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the caller looks at it
        action()
    return caught.value


# --- what is answered


def test_matching_replies_come_first_then_those_in_order_then_the_function(stub: LMStub) -> None:
    stub.answer_with(lambda request: f"otherwise: {request.prompt}")
    stub.reply("first", lambda request: f"second: {request.prompt}")
    stub.when("weather", "Paris").reply("cloudy", "sunny")
    stub.when(lambda request: request.wire == GEMINI, model="gemini-3.8-flash").reply("of Gemini")

    prompts = ["weather in Paris", "a", "weather in Rome", "b", "weather in Paris", "and Paris' weather"]
    said = [json.loads(ask(stub, OPENAI, prompt)[1])["choices"][0]["message"]["content"] for prompt in prompts]
    of_gemini = json.loads(ask(stub, GEMINI, "c")[1])["candidates"][0]["content"]["parts"][0]["text"]

    assert said == ["cloudy", "first", "second: weather in Rome", "otherwise: b", "sunny", "sunny"]
    assert of_gemini == "of Gemini"


@pytest.mark.parametrize("wire", [OPENAI, GEMINI])
def test_a_request_without_a_reply_is_told_so_with_what_it_was_and_how_to_script_it(stub: LMStub, wire: str) -> None:
    stub.reply("Paris")
    ask(stub, wire)

    status, content, _ = ask(stub, wire, "And of Spain?")

    message = json.loads(content)["error"]["message"]
    assert status == 400
    assert "all replies that were scripted in order (1) have been used" in message
    assert "stub.reply(...)" in message
    assert "And of Spain?" in message
    assert [request.number for request in stub.unscripted] == [2]


def test_clients_of_gemini_do_not_take_a_missing_reply_for_an_overflow_because_of_what_was_asked(stub: LMStub) -> None:
    _, content, _ = ask(stub, GEMINI, "Which limit do these tokens exceed?")

    assert "token" not in json.loads(content)["error"]["message"]


def test_a_function_that_fails_or_answers_with_something_else_is_told_so(stub: LMStub) -> None:
    stub.reply(lambda _: {}["missing"], lambda _: 3)  # type: ignore[arg-type, return-value]

    messages = [json.loads(ask(stub, OPENAI)[1])["error"]["message"] for _ in range(2)]

    assert "the function that answers raised KeyError('missing')" in messages[0]
    assert "a reply is a text or a Reply, got 3" in messages[1]


def test_a_react_agent_is_answered_by_what_its_request_shows() -> None:
    model = react_agent(("add", {"a": 1}), ("mul", {"b": 2}), answer="3")

    def asked(text: str) -> Reply:
        return model(LMRequest(number=1, at=0, wire=OPENAI, model="x", messages=({"role": "user", "content": text},)))

    assert asked("next_tool_name") == react("Turn 1.", "add", {"a": 1})
    assert asked("next_tool_name [[ ## observation_0 ## ]]") == react("Turn 2.", "mul", {"b": 2})
    assert asked("next_tool_name [[ ## observation_1 ## ]]") == react_finish()
    assert "[[ ## answer ## ]]\n3" in asked("observation_1").text


def test_unusual_replies_are_made_by_hand(stub: LMStub) -> None:
    stub.reply(Reply(chunks=("I add twice.",), tool_calls=(ToolCall("add", {"a": 1}), ToolCall("add", {"a": 2}))))

    parts = json.loads(ask(stub, GEMINI)[1])["candidates"][0]["content"]["parts"]

    assert parts == [
        {"text": "I add twice."},
        {"functionCall": {"name": "add", "args": {"a": 1}}},
        {"functionCall": {"name": "add", "args": {"a": 2}}},
    ]


# --- what is remembered


@pytest.mark.parametrize("wire", [OPENAI, GEMINI])
def test_a_request_is_remembered_in_the_same_form_whichever_wire_it_came_on(stub: LMStub, wire: str) -> None:
    stub.reply("Hello")
    before = time.time()

    ask(stub, wire, "Hi", stream=True)

    (request,) = stub.requests
    assert (request.number, request.wire, request.stream) == (1, wire, True)
    assert request.model == {"openai": "gpt-x", "gemini": "gemini-3.8-flash"}[wire]
    assert before <= request.at <= time.time()
    assert request.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    )
    assert (request.prompt, request.text) == ("Hi", "Be brief.\n\nHi")


@pytest.mark.parametrize("header", ["Authorization", "x-goog-api-key"])
def test_of_the_key_is_remembered_only_that_there_was_one(stub: LMStub, header: str) -> None:
    stub.reply("Hello", "Hello")
    url = f"{stub.openai_base}/chat/completions"

    post(url, {"model": "gpt-x", "messages": []}, {header: "s3cret"})
    http_request = urllib.request.Request(url, b'{"model": "gpt-x", "messages": []}')
    urllib.request.urlopen(http_request, timeout=10).close()

    assert [request.has_key for request in stub.requests] == [True, False]
    assert "s3cret" not in repr(stub.requests)


def test_tools_and_what_they_gave_are_remembered_alike(stub: LMStub) -> None:
    stub.answer_with(lambda _: "3")
    function = {"name": "add", "arguments": '{"a": 1}'}
    post(
        f"{stub.openai_base}/chat/completions",
        {
            "model": "m",
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": function}]},
                {"role": "tool", "tool_call_id": "1", "content": "3"},
            ],
            "tools": [{"type": "function", "function": {"name": "add"}}],
        },
    )
    post(
        f"{stub.gemini_base}/models/m:generateContent",
        {
            "contents": [
                {"role": "model", "parts": [{"functionCall": {"name": "add", "args": {"a": 1}}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "add", "response": {"result": "3"}}}]},
            ],
            "tools": [{"functionDeclarations": [{"name": "add"}]}],
        },
    )

    first, second = stub.requests

    assert first.messages == second.messages
    assert first.messages == (
        {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "args": {"a": 1}}]},
        {"role": "tool", "content": "3"},
    )
    assert first.tools == second.tools == ("add",)


def test_waiting_for_requests_that_do_not_come_says_which_came(stub: LMStub) -> None:
    stub.reply("Hello")
    ask(stub, OPENAI, "Who are you?")

    with pytest.raises(TimeoutError, match=r"for 2 requests, got 1\nrequest 1 to gpt-x \(openai\): Who are you\?"):
        stub.wait_for(2, timeout=0.01)


def test_many_at_once_are_all_counted_and_each_answered_once(stub: LMStub) -> None:
    stub.reply(*(f"answer {number}" for number in range(40)))
    said: list[str] = []

    def several() -> None:
        said.extend(json.loads(ask(stub, OPENAI)[1])["choices"][0]["message"]["content"] for _ in range(5))

    threads = [threading.Thread(target=several) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(said) == sorted(f"answer {number}" for number in range(40))
    assert [request.number for request in stub.requests] == list(range(1, 41))
    assert stub.peak <= 8


def test_one_after_the_other_is_one_at_once(stub: LMStub) -> None:
    stub.answer_with(lambda _: "Hello")

    for _ in range(30):
        ask(stub, OPENAI)
        ask(stub, GEMINI, stream=True)

    assert (stub.peak, stub.under_way) == (1, 0)


# --- holding, stopping


def test_held_requests_are_received_and_answered_when_they_are_released(stub: LMStub) -> None:
    stub.reply("first", "second")
    stub.hold(after=1)
    said: list[str] = []

    def two() -> None:
        said.extend(json.loads(ask(stub, OPENAI)[1])["choices"][0]["message"]["content"] for _ in range(2))

    asking = threading.Thread(target=two)
    asking.start()
    stub.wait_for(2)
    before = list(said)
    stub.release()
    asking.join(10)

    assert (before, said) == (["first"], ["first", "second"])


def test_a_client_that_goes_away_while_it_is_held_uses_up_no_reply(stub: LMStub) -> None:
    stub.reply("for whoever is there")
    stub.hold()
    connection = http.client.HTTPConnection(stub.url.removeprefix("http://"))
    connection.request("POST", "/v1/chat/completions", '{"model": "gpt-x", "messages": []}')
    stub.wait_for(1)

    connection.close()
    stub.release()
    wait_until(lambda: stub.under_way == 0)
    _, content, _ = ask(stub, OPENAI)

    assert json.loads(content)["choices"][0]["message"]["content"] == "for whoever is there"
    assert stub.count == 2


def test_a_stopped_stub_refuses_connections_and_started_again_is_where_it_was(stub: LMStub) -> None:
    stub.answer_with(lambda _: "Hello")
    url = stub.url
    ask(stub, OPENAI)

    stub.stop()
    with pytest.raises(urllib.error.URLError, match="refused"):
        ask(stub, OPENAI)
    stub.start()

    assert stub.url == url
    assert ask(stub, OPENAI)[0] == 200
    assert stub.count == 2


def test_stopping_ends_what_waits(stub: LMStub) -> None:
    stub.reply(slow("late", 60), hang())
    stub.hold(after=2)
    failures: list[BaseException] = []
    threads = [threading.Thread(target=lambda: failures.append(error_of(lambda: ask(stub, OPENAI)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    stub.wait_for(3)

    stub.stop()
    for thread in threads:
        thread.join(10)

    assert len(failures) == 3
    wait_until(lambda: stub.under_way == 0)


def test_a_reset_stub_is_as_new_at_the_same_address(stub: LMStub) -> None:
    stub.answer_with(lambda _: "Hello")
    ask(stub, OPENAI)

    stub.reset()

    assert stub.requests == []
    assert ask(stub, OPENAI)[0] == 400


def test_a_connection_is_kept_for_many_requests_and_costs_no_delayed_acknowledgement(stub: LMStub) -> None:
    stub.answer_with(lambda _: fields(answer="Paris"))
    connection = http.client.HTTPConnection(stub.url.removeprefix("http://"))
    took = []

    for _ in range(20):
        began = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", '{"model": "gpt-x", "messages": []}')
        connection.getresponse().read()
        took.append(time.perf_counter() - began)
    connection.close()

    assert min(took) < 0.03


@pytest.mark.parametrize("body", ["{not", "[]", '{"model": "m", "messages": [3]}'])
def test_a_body_that_is_no_request_is_refused_in_words(stub: LMStub, body: str) -> None:
    request = urllib.request.Request(f"{stub.openai_base}/chat/completions", body.encode())

    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        urllib.request.urlopen(request, timeout=10)

    with caught.value as error:
        assert f"got b'{body}'" in json.load(error)["error"]["message"]
    assert stub.count == 0


def test_another_path_is_refused_in_words(stub: LMStub) -> None:
    status, content, _ = post(f"{stub.openai_base}/responses", {})

    assert status == 404
    assert "got /v1/responses" in json.loads(content)["error"]["message"]
