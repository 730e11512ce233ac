"""What calls of models cost, and at most, without asking anybody."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

LIST = {"gemini/*": {"input": 1.0, "output": 10.0}}


@pytest.fixture(autouse=True)
def _local(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dspy")
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


def route(model: str, provider: str | None) -> Any:
    from multiagents.agents.dspy.route import Route

    return Route(model, None, "chat", provider, None, None)


def answered(**usage: Any) -> Any:
    from dspy import lm15

    message = lm15.Message(role="assistant", parts=(lm15.TextPart(text="So."),))
    return lm15.Response(
        id="1", model="gemini-3.8-flash", message=message, finish_reason="stop", usage=lm15.Usage(**usage)
    )


def asked(model: str) -> Any:
    from dspy import lm15

    return lm15.Request(model=model, messages=(lm15.Message(role="user", parts=(lm15.TextPart(text="Why?"),)),))


def used(model: str, provider: str | None, prices: Any, **usage: Any) -> Any:
    from multiagents.agents.dspy.costs import usage_of

    return usage_of(route(model, provider), asked(model), answered(**usage), prices)


def test_the_prices_of_the_settings_go_before_those_of_the_list() -> None:
    tokens = {"input_tokens": 1_000, "output_tokens": 100}

    own = used("gemini/gemini-3.8-flash", "gemini", LIST, **tokens)
    listed = used("gemini/gemini-3.8-flash", "gemini", {}, **tokens)

    assert (own.micro_usd, own.usd) == (2_000, 0.002)
    assert listed.micro_usd == 1_125  # 0.75 and 3.75 dollars for a million, in DSPy's list


def test_what_a_model_has_thought_is_paid_as_an_answer_where_it_is_told_apart() -> None:
    own = used("gemini/gemini-3.8-flash", "gemini", LIST, input_tokens=10, output_tokens=5, reasoning_tokens=20)

    assert (own.input_tokens, own.output_tokens, own.micro_usd) == (10, 25, 260)


def test_little_is_not_nothing_and_an_unknown_price_costs_nothing_that_is_known() -> None:
    prices = {"*": {"input": 0.01, "output": 0.01}}

    assert used("openai/x", "openai-chat", prices, input_tokens=1, output_tokens=1).micro_usd == 1
    assert used("openai/x", None, {}, input_tokens=1, output_tokens=1).micro_usd == 0


def test_what_a_token_costs_at_most_is_told_by_the_dearest_way_that_it_can_be_paid() -> None:
    from multiagents.agents.dspy.costs import bound_of, most_of

    claude = route("anthropic/claude-sonnet-4-5", "anthropic")

    assert most_of(route("gemini/x", "gemini"), LIST, 10) == (1.0, 10.0)
    assert most_of(claude, {}, 1_000) == (pytest.approx(6.0), pytest.approx(15.0))  # written into a cache, for an hour
    assert most_of(claude, {}, 300_000) == (pytest.approx(12.0), pytest.approx(22.5))  # that long a request costs more
    assert most_of(route("openai/nobody-knows", "openai-chat"), {}, 10) is None
    assert most_of(route("vertex_ai/x", None), {}, 10) is None
    assert bound_of(most_of(route("gemini/x", "gemini"), LIST, 10), 1_000, 100) == 2_000


def test_declaring_an_agent_keeps_dspy_from_asking_the_network_for_prices() -> None:
    program = (
        "import urllib.request\n"
        "urllib.request.urlopen = None\n"
        "from multiagents import dspy_worker\n"
        "@dspy_worker('a', signature='q -> a')\ndef a(context): ...\n"
        "from dspy.clients import model_metadata\n"
        "print(model_metadata.source_info()['is_env_forced'])"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LITELLM_")}

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environ)

    assert shown.stdout == "True\n"
