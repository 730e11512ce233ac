"""The stub of a language model as a process of its own, told what to answer by a file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from multiagents.exceptions import ConfigurationError
from multiagents.testing.lm_stub import LMRequest, LMStub, fields, rate_limited, react

SCRIPT = {
    "replies": ["Paris", {"react": ["I add.", "add", {"a": 1}]}, {"rate_limited": {"retry_after": 2}}, {"cut": "half"}],
    "when": [{"texts": ["weather"], "model": "gpt-x", "replies": [{"fields": {"answer": "sunny"}}, {"empty": []}]}],
    "answer_with": f"{__name__}:shout",
}


def shout(request: LMRequest) -> str:
    return request.prompt.upper()


def test_a_script_says_what_the_functions_say() -> None:
    stub = LMStub()
    stub.load(SCRIPT)

    assert list(stub._script.in_order)[:3] == ["Paris", react("I add.", "add", {"a": 1}), rate_limited(retry_after=2)]
    assert stub._script.matching[0].take() == fields(answer="sunny")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ({"reply": ["Paris"]}, 'a script has no "reply"; did you mean "replies"?'),
        ({"replies": [{"rate_limit": {}}]}, 'there is no reply "rate_limit"; did you mean "rate_limited"?'),
        ({"replies": [{"slow": {"second": 1}}]}, 'the reply "slow" of a script cannot be made of'),
        ({"replies": [3]}, "a reply of a script is a text, or one name with its arguments"),
        ({"when": [{"text": ["a"], "replies": ["b"]}]}, '"when" of a script has no "text"; did you mean "texts"?'),
        ({"answer_with": "nowhere:function"}, "a function that answers is given as module:function"),
        ({"answer_with": "json"}, "a function that answers is given as module:function"),
    ],
)
def test_what_has_no_meaning_in_a_script_is_refused_in_words(script: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LMStub().load(script)

    assert message in str(caught.value)


def test_as_a_process_it_prints_where_it_is_and_answers_until_it_is_ended(tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text('{"replies": ["Paris"]}')
    (tmp_path / "my_model.py").write_text("def answer(request):\n    return request.prompt.upper()\n")
    command = [sys.executable, "-m", "multiagents.testing.lm_stub", "--script", "script.json"]
    command += ["--answer-with", "my_model:answer"]

    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, openai, gemini = (process.stdout.readline().strip() for _ in range(3))
        said = []
        for prompt in ("Hi", "and now?"):
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}]}).encode()
            with urllib.request.urlopen(f"{url}/v1/chat/completions", body, timeout=10) as response:
                said.append(json.load(response)["choices"][0]["message"]["content"])
        process.send_signal(signal.SIGTERM)
        code = process.wait(10)

    assert (openai, gemini) == (f"openai: {url}/v1", f"gemini: {url}/v1beta")
    assert said == ["Paris", "AND NOW?"]
    assert code == 0


def test_processes_share_one_stub_and_one_that_is_killed_in_a_call_uses_up_no_reply() -> None:
    call = """
import json, sys, urllib.request
body = json.dumps({"model": "m", "messages": [{"role": "user", "content": sys.argv[2]}]}).encode()
print(json.load(urllib.request.urlopen(sys.argv[1], body))["choices"][0]["message"]["content"])
"""
    with LMStub() as stub:
        stub.reply("first", "second")
        command = [sys.executable, "-c", call, f"{stub.openai_base}/chat/completions"]
        first = subprocess.run([*command, "one"], capture_output=True, text=True, check=True).stdout
        stub.hold()
        killed = subprocess.Popen([*command, "two"])
        stub.wait_for(2)
        killed.kill()
        killed.wait(10)
        stub.release()
        second = subprocess.run([*command, "three"], capture_output=True, text=True, check=True).stdout

        assert (first, second) == ("first\n", "second\n")
        assert [request.prompt for request in stub.requests] == ["one", "two", "three"]


def test_as_a_process_with_a_script_that_has_no_meaning_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text('{"reply": []}')
    command = [sys.executable, "-m", "multiagents.testing.lm_stub", "--script", "script.json"]

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ended.returncode == 2
    assert 'a script has no "reply"; did you mean "replies"?' in ended.stderr
