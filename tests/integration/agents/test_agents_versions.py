"""An agent whose attempts are made with different releases of DSPy: its questions may differ, and so cost anew."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from multiagents import Orchestrator, RetryPolicy, WorkflowBuilder, dspy_worker, init_app
from multiagents.testing.lm_stub import LMStub, fields

dspy = pytest.importorskip("dspy")

RETRY = RetryPolicy(max_attempts=2, initial_interval=0)


@pytest.fixture
def orchestrator(lm_stub: LMStub, monkeypatch: pytest.MonkeyPatch) -> Orchestrator:
    """Runs everything in this process; between the first attempt and the second, another DSPy is installed."""
    monkeypatch.setattr(dspy, "__version__", "3.4.0")
    lm_stub.answer_with(lambda _: fields(answer="So."))
    app = Celery("versions", set_as_current=False)
    app.conf.task_always_eager = True
    app.conf.multiagents_lm = {"model": "openai/gpt-x", "api_base": lm_stub.openai_base, "api_key": "x"}
    return init_app(app)


def upgraded(context: dict[str, Any]) -> None:
    """Fail once, as a worker that is stopped for an upgrade does."""
    if dspy.__version__ == "3.4.0":
        dspy.__version__ = "3.4.1"
        raise RuntimeError("stopped")


GOES_ON = dspy_worker("goes_on_upgraded", signature="question -> answer", retry=RETRY)(upgraded)
PARKS = dspy_worker("parks_upgraded", signature="question -> answer", retry=RETRY, on_divergence="park")(upgraded)


def test_an_attempt_with_another_dspy_goes_on_and_says_so(
    orchestrator: Orchestrator, lm_stub: LMStub, caplog: pytest.LogCaptureFixture
) -> None:
    run = orchestrator.start(WorkflowBuilder("goes-on-upgraded").add_step("ask", GOES_ON).build(), {"question": "?"})

    assert run.result()["answer"] == "So."
    assert "dspy was 3.4.0, and is 3.4.1 here" in caplog.text
    assert lm_stub.count == 1


def test_it_waits_for_a_person_where_the_worker_says_so(orchestrator: Orchestrator, lm_stub: LMStub) -> None:
    run = orchestrator.start(WorkflowBuilder("parks-upgraded").add_step("ask", PARKS).build(), {"question": "?"})

    assert run.status == "paused"
    error = run.describe().steps["ask"].error
    assert error is not None
    assert "dspy was 3.4.0, and is 3.4.1 here" in error.message
    assert lm_stub.count == 1
    run.retry("ask", fresh=True)
    assert run.status == "completed"
    assert lm_stub.count == 2
