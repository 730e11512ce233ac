"""What is asked, answered and handed to tools is in the journal, which may be redacted; no log of a worker has it."""

from __future__ import annotations

import pytest

from multiagents.testing import wait_until
from multiagents.testing.lm_stub import Reply, context_overflow, empty, fields, garbage, react_agent, truncated
from tests.support.agents_kit import Agents
from tests.support.apps.agents import CLASSIFY, CODE, RESEARCH

SOON = 40.0
SECRET = "s3cr3t"


def quiet(agents: Agents, since: int) -> str:
    """What the worker has logged since."""
    return agents.workers[0].log[since:]


def test_no_log_has_what_an_agent_asks_is_answered_and_calls(agents: Agents) -> None:
    since = len(agents.workers[0].log)
    turns = [("look_up", {"word": SECRET}), ("fails", {"word": SECRET}), ("look_up", {"word": 7, "more": SECRET})]
    agents.stub.when(f"{SECRET} well").reply(react_agent(*turns, answer=SECRET, sources=[SECRET]))
    code = f"```python\nprint('{SECRET}')\nraise ValueError('{SECRET}')\n```"
    done = f"```python\nlook_up(word='{SECRET}')\nSUBMIT(answer=1)\n```"
    agents.stub.when(f"{SECRET} code").reply(fields(reasoning=SECRET, code=code), fields(reasoning=SECRET, code=done))

    runs = [
        agents.orchestrator.start(RESEARCH, {"question": f"{SECRET} well"}),
        agents.orchestrator.start(CODE, {"question": f"{SECRET} code"}),
    ]

    assert runs[0].result(timeout=SOON)["answer"] == SECRET
    assert runs[1].result(timeout=SOON)["doubled"] == 2
    assert SECRET in str(runs[0].calls("research"))
    assert SECRET not in quiet(agents, since)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (f"{SECRET} is no answer", "LMAnswerError"),
        (fields(mood=SECRET, confidence=0.5, person={"name": SECRET, "age": 7}), "LMAnswerError"),
        (truncated(SECRET), "LMTruncatedError"),
        (empty(), "NoAnswerError"),
        (garbage(), "LMUnavailableError"),
        (context_overflow(), "ContextOverflowError"),
    ],
    ids=["malformed", "not of its type", "truncated", "empty", "garbage", "too long"],
)
def test_no_log_and_no_error_has_an_answer_that_cannot_be_used(agents: Agents, reply: str | Reply, said: str) -> None:
    since = len(agents.workers[0].log)
    agents.stub.answer_with(lambda _: reply)

    run = agents.orchestrator.start(CLASSIFY, {"text": SECRET})
    wait_until(lambda: run.status in ("failed", "compensated"), SOON, "the end")

    error = run.describe().steps["classify"].error
    assert error is not None
    assert error.type.rpartition(".")[2] == said
    assert SECRET not in repr(error)
    wait_until(lambda: f"{said}" in quiet(agents, since), SOON, "the line in the log")
    assert SECRET not in quiet(agents, since)
