"""What tools return: as text, as an image, and too much of it; a replay shows the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from multiagents import Orchestrator, RetryPolicy, Run, WorkflowBuilder, dspy_worker
from multiagents.testing.lm_stub import LMStub, react_agent
from tests.support.one_process import one_process

AGAIN = RetryPolicy(max_attempts=2, initial_interval=0.01, jitter=False)
LONG = "long, " * 5_000 + "and over"
PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture
def orchestrator(lm_stub: LMStub) -> Iterator[Orchestrator]:
    lm = {"model": "openai/stub", "api_base": lm_stub.openai_base, "api_key": "x"}
    with one_process(
        multiagents_lm=lm, multiagents_claim_check_bytes=1_000, multiagents_max_payload_bytes=100_000
    ) as made:
        yield made


def called(orchestrator: Orchestrator, stub: LMStub, function: Any) -> Run:
    """An agent that calls this, whose function fails once, so that all is replayed."""
    failed: list[str] = []

    @dspy_worker("asked", signature="question -> answer", reasoning="react", tools=[function], retry=AGAIN)
    def asked(context: dict[str, Any]) -> None:
        if not failed:
            failed.append("once")
            raise RuntimeError("after the answer")

    stub.when("Why?").reply(react_agent((function.__name__, {}), answer="So."))
    workflow = WorkflowBuilder("ask").add_step("it", asked).build(register=False)
    run = orchestrator.start(workflow, {"question": "Why?"})
    assert run.result()["answer"] == "So."
    assert (stub.count, run.describe().steps["it"].attempts) == (3, 2)
    return run


def shown(stub: LMStub) -> Any:
    """What the model was shown after the call."""
    return stub.requests[1].body["messages"][-1]["content"]


def test_an_image_is_shown_as_an_image_wherever_it_is_in_a_result(orchestrator: Orchestrator, lm_stub: LMStub) -> None:
    dspy = pytest.importorskip("dspy")

    def draw() -> dict[str, Any]:
        return {"title": "a dot", "image": dspy.Image(PNG)}

    called(orchestrator, lm_stub, draw)

    texts, images = [[part for part in shown(lm_stub) if part["type"] == kind] for kind in ("text", "image_url")]
    assert [part["image_url"]["url"] for part in images] == [PNG]
    assert '{"title":"a dot","image":"' in texts[0]["text"]


def test_a_large_result_is_kept_apart_and_is_the_same_in_a_replay(orchestrator: Orchestrator, lm_stub: LMStub) -> None:
    def read() -> str:
        return LONG

    run = called(orchestrator, lm_stub, read)

    assert LONG in shown(lm_stub)
    (call,) = [call for call in run.calls("it") if call.kind == "tool"]
    assert call.answer == {"result": LONG}


def test_a_result_that_is_too_large_is_an_error_that_the_model_reads(
    orchestrator: Orchestrator, lm_stub: LMStub
) -> None:
    def read() -> str:
        return "long " * 100_000

    called(orchestrator, lm_stub, read)

    assert (
        "what tool read returned is 500,002 bytes of JSON, more than the 100,000 of multiagents_max_payload_bytes"
        in (shown(lm_stub))
    )
