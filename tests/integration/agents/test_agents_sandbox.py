"""Code of a model's that does not end, or takes too much: the model is told, and told the same in a replay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from multiagents import Orchestrator, RetryPolicy, WorkflowBuilder, dspy_worker
from multiagents.testing.lm_stub import LMStub, Reply, fields
from tests.support.one_process import one_process

AGAIN = RetryPolicy(max_attempts=2, initial_interval=0.01, jitter=False)


@pytest.fixture
def orchestrator(lm_stub: LMStub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchestrator]:
    pytest.importorskip("dspy")
    from multiagents.agents.dspy import sandbox

    monkeypatch.setattr(sandbox, "LONGEST", 0.25)
    with one_process(multiagents_lm={"model": "openai/stub", "api_base": lm_stub.openai_base, "api_key": "x"}) as made:
        yield made


def code(text: str) -> Reply:
    return fields(reasoning="Compute.", code=f"```python\n{text}\n```")


@pytest.mark.parametrize("mode", ["program_of_thought", "codeact"])
@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("while True:\n    pass", "time limit exceeded; the sandbox was reset"),
        ("x = 'a' * 1_000_000_000", "memory limit exceeded"),
        ("def down(n):\n    return down(n + 1)\ndown(0)", "maximum recursion depth exceeded"),
    ],
    ids=["for ever", "too much", "ever deeper"],
)
def test_S35_code_without_end_is_an_error_that_the_model_is_told_and_that_a_replay_is_told_as_well(
    orchestrator: Orchestrator, lm_stub: LMStub, mode: str, written: str, told: str
) -> None:
    crashed: list[str] = []

    @dspy_worker("coder", signature="question -> answer: int", reasoning=mode, retry=AGAIN)
    def coder(context: dict[str, Any]) -> None:
        if not crashed:
            crashed.append("once")
            raise RuntimeError("after the answer")

    lm_stub.reply(code(written), code("SUBMIT(answer=2)"))
    workflow = WorkflowBuilder("code").add_step("it", coder).build(register=False)

    run = orchestrator.start(workflow, {"question": "How many?"})

    assert run.result()["answer"] == 2
    assert told in lm_stub.requests[1].text
    assert (lm_stub.count, run.describe().steps["it"].attempts) == (2, 2)
