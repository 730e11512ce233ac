"""Which model an agent asks: the first that is said, by the worker, the workflow, the setting, or the user's module."""

from __future__ import annotations

import json
from typing import Any

import pytest

from multiagents import Orchestrator, WorkflowBuilder, dspy_worker
from multiagents.testing.lm_stub import LMStub, fields
from tests.support.one_process import one_process


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "no-secret")


def named(stub: LMStub, name: str, **more: Any) -> dict[str, Any]:
    return {"model": f"openai/{name}", "api_base": stub.openai_base, **more}


def asked(orchestrator: Orchestrator, *, workflow: Any = None, **worker: Any) -> dict[str, Any]:
    @dspy_worker("asked", signature="question -> answer: str", **worker)
    def function(context: dict[str, Any]) -> None:
        pass

    definition = WorkflowBuilder("ask", model=workflow).add_step("it", function).build(register=False)
    run = orchestrator.start(definition, {"question": "Why?"})
    assert run.result()["answer"] == "So."
    (call,) = run.calls("it")
    return {"model": call.name.removeprefix("openai/"), **call.request.get("config", {})}


def test_the_nearest_that_is_said_is_asked(lm_stub: LMStub) -> None:
    import dspy

    lm_stub.answer_with(lambda _: fields(answer="So."))
    own, flow, setting, configured = (named(lm_stub, name) for name in ("own", "flow", "setting", "configured"))

    with one_process(multiagents_lm=setting) as orchestrator:
        said = [
            asked(orchestrator, workflow=flow, model=own)["model"],
            asked(orchestrator, workflow=flow)["model"],
            asked(orchestrator)["model"],
        ]
    with one_process() as orchestrator, dspy.context(lm=dspy.LM(**configured)):
        said.append(asked(orchestrator)["model"])

    assert said == ["own", "flow", "setting", "configured"]


def test_what_is_said_beside_the_model_is_heard(lm_stub: LMStub) -> None:
    lm_stub.when("with a JSON object").reply(json.dumps({"answer": "So."}))
    lm_stub.when("with the field").reply(fields(answer="So."))
    flow = named(lm_stub, "flow", temperature=0.25, max_tokens=77, adapter="json")

    with one_process() as orchestrator:
        of_the_workflow = asked(orchestrator, workflow=flow)
        of_the_worker = asked(orchestrator, workflow=flow, temperature=0.5, max_tokens=99, adapter="chat")

    assert (of_the_workflow["temperature"], of_the_workflow["max_tokens"]) == (0.25, 77)
    assert (of_the_worker["temperature"], of_the_worker["max_tokens"]) == (0.5, 99)
    assert ["with a JSON object" in request.text for request in lm_stub.requests] == [True, False]


def test_the_mere_name_of_a_model_of_which_more_is_said_elsewhere_means_that_one(lm_stub: LMStub) -> None:
    lm_stub.answer_with(lambda _: fields(answer="So."))
    settings = [named(lm_stub, "flow", temperature=0.25), named(lm_stub, "own", temperature=0.5)]

    with one_process(multiagents_lm=settings) as orchestrator:
        of_the_worker = asked(orchestrator, workflow="openai/flow", model="openai/own")
        of_the_workflow = asked(orchestrator, workflow="openai/flow")

    assert (of_the_worker["model"], of_the_worker["temperature"]) == ("own", 0.5)
    assert (of_the_workflow["model"], of_the_workflow["temperature"]) == ("flow", 0.25)


def test_a_model_that_keeps_to_a_schema_is_given_one_and_so_are_those_that_stand_in_for_it(lm_stub: LMStub) -> None:
    lm_stub.answer_with(lambda _: json.dumps({"answer": "So."}))
    known, unknown = (named(lm_stub, name, adapter="json") for name in ("gpt-4o-mini", "who-knows"))

    with one_process() as orchestrator:
        asked(orchestrator, model=known)
        asked(orchestrator, model=[known, unknown])

    formats = [request.body.get("response_format", {}).get("type") for request in lm_stub.requests]
    assert formats[0] == "json_schema"
    assert formats[1] != "json_schema"


def test_a_model_of_a_workflow_is_stood_in_for_by_the_next_of_it(lm_stub: LMStub) -> None:
    from multiagents import RetryPolicy
    from multiagents.testing.lm_stub import server_error

    lm_stub.when("Why?", model="first").reply(server_error(500))
    lm_stub.when("Why?", model="second").reply(fields(answer="So."))

    with one_process() as orchestrator:

        @dspy_worker("asked", signature="question -> answer: str", lm_retry=RetryPolicy(max_attempts=1))
        def function(context: dict[str, Any]) -> None:
            pass

        flow = [named(lm_stub, "first"), named(lm_stub, "second")]
        definition = WorkflowBuilder("ask", model=flow).add_step("it", function).build(register=False)
        run = orchestrator.start(definition, {"question": "Why?"})

        assert run.result()["answer"] == "So."
    assert [request.model for request in lm_stub.requests] == ["first", "second"]
