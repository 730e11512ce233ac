"""What `dspy_worker` and `tool` make of what they are told, without DSPy."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from typing import Any

import pytest

from multiagents import Budget, current_tool, dspy_worker, mcp_tools, tool
from multiagents.agents.agent import Agent
from multiagents.agents.tools import RESERVED, options_of
from multiagents.exceptions import ConfigurationError, WorkerError


def answer(context: dict[str, Any]) -> None:
    """Answer."""


def test_declaring_an_agent_loads_neither_dspy_nor_what_it_brings_nor_the_sdk_of_mcp() -> None:
    program = (
        "import sys; from multiagents import dspy_worker, mcp_tools, tool\n"
        "@tool('look_up')\ndef look_up(word: str) -> str: return word\n"
        "tools = [look_up, mcp_tools(command=['a'])]\n"
        "@dspy_worker('a', signature='q -> a', tools=tools, reasoning='react')\nasync def a(context): ...\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'dspy', 'litellm', 'mcp', 'openai'}))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_an_agent_is_a_worker_like_any_other() -> None:
    made = dspy_worker("declared", signature="q -> a", timeout=7, queue="lm")(answer)

    assert (made.name, made.step_timeout, made.worker.queue) == ("declared", 7, "lm")
    assert made.__doc__ == "Answer."


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"reasoning": "recat"}, 'did you mean "react"'),
        ({"tools": [answer]}, 'reasoning="predict" calls none; use reasoning="react" or reasoning="codeact"'),
        ({"reasoning": "chain_of_thought", "tools": [answer]}, "calls none"),
        ({"signature": "question, answer"}, "must look like"),
        ({"signature": "question ->"}, "must look like"),
        ({"signature": "text, wish -> text"}, "has field text twice"),
        ({"signature": 7}, "must be a string or a dspy.Signature class"),
        ({"signature": "trajectory: str -> a"}, "input field trajectory has a name that DSPy takes"),
        ({"signature": "x: dict[str, int], lm -> a"}, "input field lm"),
        ({"signature": None, "reasoning": "react"}, "are about a question"),
        ({"module": object, "signature": "q -> a"}, "was given together with"),
        ({"reasoning": "react", "tools": "look_up"}, "tools must be a list"),
        ({"reasoning": "react", "tools": [7]}, "tools must be functions"),
        ({"budget": 5, "max_tokens": 9}, "budget must be a Budget, or a list of them, got 5"),
        ({"budget": [Budget("all", usd=1), "all"], "max_tokens": 9}, "got 'all'"),
        ({"budget": Budget("all", usd=1)}, "budget= needs max_tokens="),
        ({"budget": Budget("all", tokens=1), "model": "openai/x"}, "budget= needs max_tokens="),
        ({"budget": Budget("all", usd=1), "model": [{"model": "x", "max_tokens": 9}, "y"]}, "needs max_tokens="),
        ({"reasoning": "react", "tools": [answer, answer]}, 'two tools are called "answer"'),
        ({"reasoning": "react", "tools": [lambda x: x]}, "tool name '<lambda>'"),
        ({"instructions": ""}, "instructions must be a text"),
        ({"instructions": "Be brief.", "signature": None}, "instructions= are for a signature that is a string"),
        ({"max_iters": 0}, "max_iters must be a whole number of at least 1"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"lm_retry": 3}, "lm_retry must be a RetryPolicy"),
        ({"on_divergence": "stop"}, 'on_divergence must be "continue" or "park"'),
    ],
)
def test_what_an_agent_cannot_be_is_said_when_it_is_declared(told: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        dspy_worker("wrong", **{"signature": "question -> answer", **told})(answer)


def test_a_decorator_without_a_call_is_an_error_that_shows_how() -> None:
    with pytest.raises(ConfigurationError, match='write @dspy_worker\\("summarizer"'):
        dspy_worker(answer)  # type: ignore[arg-type]


def test_the_input_fields_of_a_signature_are_read_with_their_types() -> None:
    agent = Agent(name="a", function=answer, signature="rows: dict[str, list[int]], question, n: Literal['x, y'] -> a")
    assert list(agent._inputs()) == ["rows", "question", "n"]


# --- tools ------------------------------------------------------------------------------------------------------------


def test_a_tool_stays_the_function_that_it_is() -> None:
    async def search(query: str, limit: int = 3) -> list[str]:
        """Search the web."""
        return [query] * limit

    made = tool("web_search", idempotent=True, timeout=5, max_calls=2)(search)

    assert made is search
    assert inspect.iscoroutinefunction(made)
    assert str(inspect.signature(made)) == "(query: 'str', limit: 'int' = 3) -> 'list[str]'"
    assert asyncio.run(made("a")) == ["a"] * 3
    options = options_of(made)
    assert (options.name, options.idempotent, options.timeout, options.max_calls) == ("web_search", True, 5, 2)


def test_a_plain_function_is_a_tool_of_its_own_name() -> None:
    assert options_of(answer).name == "answer"
    assert options_of(tool(answer)).name == "answer"


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_name_that_dspy_has_taken_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is taken by DSPy itself"):
        tool(name)(answer)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"name": "web search"}, "expected a Python identifier"),
        ({"name": "class"}, "expected a Python identifier"),
        ({"timeout": 0}, "timeout of a tool must be a number of seconds above 0"),
        ({"max_calls": -1}, "max_calls of a tool must be a whole number"),
        ({"idempotent": "yes"}, "idempotent of a tool must be True, False or None"),
    ],
)
def test_what_a_tool_cannot_be_is_said_when_it_is_declared(told: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        tool(**told)(lambda word: word)


# --- servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({}, "takes either"),
        ({"command": ["a"], "url": "http://a/mcp"}, "takes either"),
        ({"command": "npx a"}, "must be a list of strings"),
        ({"command": ["a", 1]}, "must be a list of strings"),
        ({"url": "a/mcp"}, "must begin with http"),
        ({"url": "http:///mcp"}, "name a host"),
        ({"url": "http://a/mcp", "env": {"A": "b"}}, "env of mcp_tools is for command="),
        ({"command": ["a"], "headers": {"A": "b"}}, "headers of mcp_tools is for url="),
        ({"command": ["a"], "env": {"A": 1}}, "env of mcp_tools must be a dict of strings"),
        ({"command": ["a"], "only": "add"}, "only of mcp_tools must be a list"),
        ({"command": ["a"], "prefix": "a-"}, "prefix of mcp_tools"),
        ({"command": ["a"], "start_timeout": 0}, "start_timeout of mcp_tools"),
        ({"command": ["a"], "max_calls": -1}, "max_calls of a tool"),
        ({"command": ["a"], "timeout": "soon"}, "timeout of a tool"),
    ],
)
def test_what_a_server_of_tools_cannot_be_is_said_when_it_is_named(told: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        mcp_tools(**told)


def test_a_tool_of_a_server_has_a_name_that_python_can_call_and_the_options_of_all_of_them() -> None:
    tools = mcp_tools(url="http://a/mcp", prefix="shop_", idempotent=True, timeout=3)

    options = tools.options_of("get-price.v2")

    assert (options.name, options.idempotent, options.timeout) == ("shop_get_price_v2", True, 3)


@pytest.mark.parametrize("name", ["finish", "2nd", ""])
def test_a_name_of_a_servers_tool_that_cannot_be_used_is_an_error_that_says_what_to_do(name: str) -> None:
    with pytest.raises(ConfigurationError, match='prefix="shop_"'):
        mcp_tools(url="http://a/mcp").options_of(name)


def test_a_server_is_called_by_its_address_without_what_may_be_secret() -> None:
    assert mcp_tools(url="https://ann:pw@a.example:81/mcp?key=s").server.name == "https://a.example:81/mcp"


def test_outside_a_tool_there_is_no_current_one() -> None:
    with pytest.raises(WorkerError, match="there is no current tool"):
        current_tool()
