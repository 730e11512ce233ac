"""What agents have done is kept to be learned from, with how their sagas ended, and what people say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from multiagents import WorkflowFailedError, WorkflowNotFoundError
from multiagents.exceptions import WorkflowError
from multiagents.testing import wait_until
from multiagents.testing.lm_stub import fields, react_agent
from tests.support.agents_kit import Agents
from tests.support.apps.agents import DOUBT, RESEARCH, RESEARCH_BRIEFLY, RESEARCH_THEN_FAIL, doubter, researcher

SOON = 40.0


def data(agents: Agents, **asked: Any) -> dict[str, Any]:
    return researcher.get_optimization_data(app=agents.app, **asked)


def of(run: Any, told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in told if each["transaction_id"] == run.transaction_id]


def answers(agents: Agents, question: str) -> None:
    agents.stub.when(question).reply(
        react_agent(("look_up", {"word": "a"}), answer="Because.", sources=["a"]),
    )


def test_a_run_leaves_an_example_of_what_its_agent_was_asked_and_has_answered(agents: Agents) -> None:
    answers(agents, "Why?")

    run = agents.orchestrator.start(RESEARCH, {"question": "Why?", "more": "not asked"})
    run.result(timeout=SOON)

    told = data(agents)
    [example] = of(run, told["training_examples"])
    assert example["inputs"] == {"question": "Why?"}
    assert example["outputs"] == {"answer": "Because.", "sources": ["a"]}
    assert [each["predictor"] for each in example["trace"]] == ["react", "react", "extract.predict"]
    assert (example["outcome"], example["step"], example["attempt"]) == ("completed", "research", 1)
    assert example["models"] == ["openai/gpt-stub"]
    assert "look_up" in told["available_tools"]


def test_an_example_says_how_its_saga_ended_whatever_the_agent_has_answered(agents: Agents) -> None:
    for question in ("Why?", "How?"):
        answers(agents, question)
    good = agents.orchestrator.start(RESEARCH, {"question": "Why?"})
    bad = agents.orchestrator.start(RESEARCH_THEN_FAIL, {"question": "How?"})

    good.result(timeout=SOON)
    with pytest.raises(WorkflowFailedError):
        bad.result(timeout=SOON)

    told = data(agents, limit=2)
    assert [each["outcome"] for run in (good, bad) for each in of(run, told["training_examples"])] == [
        "completed",
        "compensated",
    ]
    assert told["success_rate"] == 0.5


def test_what_has_failed_is_in_the_history_and_nothing_to_train_with(agents: Agents) -> None:
    agents.stub.when("Why?").reply(*["I do not know."] * 3)

    run = agents.orchestrator.start(RESEARCH, {"question": "Why?"})
    with pytest.raises(WorkflowFailedError):
        run.result(timeout=SOON)

    told = data(agents)
    assert of(run, told["training_examples"]) == []
    [execution] = of(run, told["execution_history"])
    assert (execution["status"], execution["outcome"], execution["attempt"]) == ("failed", "failed", 3)
    assert "LMAnswerError" in execution["error"]


def test_what_another_process_says_of_a_run_is_part_of_its_example_and_goes_with_it(
    agents: Agents, tmp_path: Path
) -> None:
    answers(agents, "Why?")
    run = agents.orchestrator.start(RESEARCH, {"question": "Why?"})
    run.result(timeout=SOON)

    assert run.feedback(0.25, "too short", actor="ann") == ["research"]
    with pytest.raises(WorkflowError, match='did you mean "research"'):
        run.feedback(1, step="reserch")

    file = tmp_path / "examples.jsonl"
    assert researcher.export_examples(file, app=agents.app) == len(file.read_text().splitlines())
    [line] = of(run, [json.loads(line) for line in file.read_text().splitlines()])
    assert (line["score"], line["note"], line["scored_by"]) == (0.25, "too short", "ann")

    run.delete()

    assert of(run, data(agents)["execution_history"]) == []
    with pytest.raises(WorkflowNotFoundError):
        run.feedback(1)


def test_an_attempt_that_failed_after_the_answer_leaves_no_second_example(agents: Agents) -> None:
    answers(agents, "Why?")

    run = agents.orchestrator.start(RESEARCH, {"question": "Why?", "crashes": 1})
    run.result(timeout=SOON)

    told = data(agents)
    [example] = of(run, told["training_examples"])
    assert example["attempt"] == 2
    assert len(example["trace"]) == 3
    assert [each["status"] for each in of(run, told["execution_history"])] == ["succeeded"]


def test_an_agent_whose_worker_was_killed_leaves_one_example(own_agents: Agents) -> None:
    agents = own_agents
    answers(agents, "Why?")
    victim = agents.worker()
    agents.stub.hold(after=1)
    run = agents.orchestrator.start(RESEARCH, {"question": "Why?"})
    agents.stub.wait_for(2, timeout=SOON)

    victim.kill()
    agents.stub.release()
    agents.worker()
    run.result(timeout=SOON)

    told = data(agents)
    [example] = told["training_examples"]
    assert (example["outcome"], example["attempt"], len(example["trace"])) == ("completed", 2, 3)
    assert len(told["execution_history"]) == 1


def test_what_a_person_has_changed_is_marked(agents: Agents) -> None:
    agents.stub.when("Buy?").reply(react_agent(("pay", {"amount": 500}), answer="Done.", sources=[]))
    run = agents.orchestrator.start(RESEARCH, {"question": "Buy?"})
    wait = wait_until(
        lambda: next((one for one in run.describe().steps["research"].waiting_for if one.kind == "tool"), None),
        SOON,
        "the wait for approval",
    )

    run.approve(wait.id or "", {"amount": 50}, actor="ann")
    run.result(timeout=SOON)

    [example] = of(run, data(agents)["training_examples"])
    assert (example["outcome"], example["edited"]) == ("completed", True)


def test_what_a_person_says_in_place_of_an_agent_is_an_example(agents: Agents) -> None:
    agents.stub.when("Why?").reply(fields(answer="Who knows?"), fields(answer="unsure"))
    run = agents.orchestrator.start(DOUBT, {"question": "Why?"})
    wait_until(lambda: run.status == "paused", SOON, "the step to wait for a person")
    before = doubter.get_optimization_data(app=agents.app)

    run.supply("it", {"answer": "Because."}, actor="ann")
    run.result(timeout=SOON)

    assert [(each["step"], each["edited"]) for each in of(run, before["training_examples"])] == [("first", False)]
    example, first = of(run, doubter.get_optimization_data(app=agents.app)["training_examples"])
    assert (example["inputs"], example["outputs"]) == ({"question": "Why?"}, {"answer": "Because."})
    assert (example["outcome"], example["edited"], example["error"]) == ("completed", True, None)
    assert (first["outcome"], first["edited"], first["outputs"]) == ("completed", True, {"answer": "Who knows?"})


def test_an_example_outlives_its_run_and_can_still_be_judged_and_erased(agents: Agents) -> None:
    answers(agents, "Why?")
    run = agents.orchestrator.start(RESEARCH_BRIEFLY, {"question": "Why?"})
    run.result(timeout=SOON)
    wait_until(lambda: not agents.orchestrator.list(workflow="research-briefly").runs, SOON, "the end of its retention")

    assert run.feedback(True) == ["research"]
    [example] = of(run, data(agents)["training_examples"])
    assert (example["outcome"], example["score"]) == ("completed", 1.0)

    run.delete()

    assert of(run, data(agents)["execution_history"]) == []
