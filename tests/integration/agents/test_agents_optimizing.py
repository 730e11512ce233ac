"""An agent learns from what it has done: a saga makes a better program of it, and takes back what is not better."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from celery import Celery, _state

from multiagents import Budget, Orchestrator, Run, init_app, optimize
from multiagents.agents.agent_task import AgentTask
from multiagents.exceptions import ConfigurationError, WorkerError, WorkerNotFoundError
from multiagents.testing import wait_until
from multiagents.testing.lm_stub import LMStub, fields, rate_limited, truncated
from multiagents.workflow.definition import Definition
from tests.support.agents_kit import Agents
from tests.support.apps import learners
from tests.support.apps.learners import EXAMPLES, mood_of, opposite, temper_of

SOON = 60.0
EXACT = "tests.support.apps.learners:exact"


@pytest.fixture
def orchestrator(lm_stub: LMStub) -> Iterator[Orchestrator]:
    """Runs everything in this process."""
    before = _state._tls.current_app
    lm_stub.answer_with(learners.answer)
    app = Celery("learners", set_as_current=False)
    app.conf.task_always_eager = True
    app.conf.multiagents_key_prefix = f"learners-{id(app)}"
    app.conf.multiagents_lm = {"model": "openai/gpt-x", "api_base": lm_stub.openai_base, "api_key": "hidden-key"}
    app.set_current()
    yield init_app(app)
    _state._set_current_app(before)


def test_a_worker_learns_from_examples_and_scores_better_on_those_that_were_held_out(
    orchestrator: Orchestrator, lm_stub: LMStub
) -> None:
    run = optimize(mood_of, metric=EXACT, examples=EXAMPLES, canary_runs=0)

    result = run.result()
    assert result["scores"]["candidate"] == 1.0
    assert result["scores"]["current"] < 1.0
    [program] = mood_of.programs()
    assert (program.version, program.state, program.optimized_by) == (1, "current", run.transaction_id)
    assert program.scores == result["scores"]
    assert program.versions == {"dspy": dspy.__version__}
    assert orchestrator.start(learners.MOOD, {"text": "awful it is"}).result()["mood"] == "bad"


@pytest.mark.parametrize("optimizer", ["gepa", "mipro"])
def test_better_instructions_are_found_by(optimizer: str, orchestrator: Orchestrator, lm_stub: LMStub) -> None:
    pytest.importorskip("optuna")  # no part of DSPy, nor of what agents need
    run = optimize(
        mood_of, metric="judge_mood", optimizer=optimizer, budget=60, examples=EXAMPLES, canary_runs=0, seed=3
    )

    assert run.result()["scores"]["candidate"] == 1.0
    assert lm_stub.count <= 60 + 2 * 4
    [program] = mood_of.programs()
    assert program.versions.keys() == {"dspy", {"gepa": "gepa", "mipro": "optuna"}[optimizer]}
    assert "hidden-key" not in str(orchestrator.store.programs.get("mood_of", 1))
    assert lm_stub.openai_base not in str(orchestrator.store.programs.get("mood_of", 1))


def test_an_agent_may_judge_another_one_in_the_same_attempt(orchestrator: Orchestrator, lm_stub: LMStub) -> None:
    lm_stub.when("[[ ## verdict ## ]]").reply(
        lambda request: fields(verdict="right" if agree(request.prompt) else "wrong")
    )
    run = optimize(mood_of, metric="mood_judge", examples=EXAMPLES, canary_runs=0)

    assert run.result()["scores"]["candidate"] == 1.0
    assert run.describe().steps["evaluate"].usage.calls == 2 * 2 * 4
    assert lm_stub.count == run.describe().steps["compile"].usage.calls + 2 * 2 * 4


def agree(prompt: str) -> bool:
    """Whether an example and a prediction that a judge is shown have the same mood."""
    return len(set(re.findall(r'"mood": ?"(good|bad)"', prompt))) == 1


def test_an_answer_that_cannot_be_used_scores_nothing_and_no_log_quotes_it(
    orchestrator: Orchestrator, lm_stub: LMStub, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    lm_stub.when(lambda request: re.search("nice [0-3]", request.prompt) is not None).reply("unspeakable")
    lm_stub.when(lambda request: "awful 1" in request.prompt).reply(truncated("[[ ## mood ## ]]\nunspeakable"))
    with caplog.at_level("INFO"):
        run = optimize(mood_of, metric=EXACT, examples=EXAMPLES, canary_runs=0)

    assert run.result()["scores"]["candidate"] > run.result()["scores"]["current"]
    assert run.describe().steps["evaluate"].attempts == 1
    said = capfd.readouterr()
    assert "unspeakable" not in caplog.text + said.out + said.err
    assert "nice" not in caplog.text + said.out + said.err


def test_a_metric_that_fails_fails_the_step(orchestrator: Orchestrator) -> None:
    run = optimize(mood_of, metric="tests.support.apps.learners:broken", examples=EXAMPLES, canary_runs=0)

    assert run.status == "failed"
    error = run.describe().error
    assert error is not None
    assert "LookupError: there is no such thing" in f"{error.type}: {error.message}"


def test_a_budget_in_calls_bounds_what_looking_for_a_program_takes(orchestrator: Orchestrator, lm_stub: LMStub) -> None:
    run = optimize(mood_of, metric=EXACT, examples=EXAMPLES, canary_runs=0, budget=2)

    assert run.result()["scores"]["candidate"] == 1.0
    assert run.describe().steps["compile"].usage.calls == 2


def test_a_budget_in_money_ends_an_optimization(orchestrator: Orchestrator, lm_stub: LMStub) -> None:
    orchestrator.app.conf.multiagents_lm_prices = {"openai/*": {"input": 1, "output": 1}}
    budget = Budget("learning:{worker}", tokens=2_600, per="run")
    run = optimize(learners.bounded, metric=EXACT, examples=EXAMPLES, canary_runs=0, budget=budget)

    assert run.status == "failed"
    error = run.describe().error
    assert error is not None
    assert error.type.endswith("BudgetExceededError")
    assert 'budget "learning:bounded"' in error.message
    assert 0 < lm_stub.count < 16


def test_what_is_not_better_is_not_put_in_place(orchestrator: Orchestrator) -> None:
    run = optimize(mood_of, metric=EXACT, examples=EXAMPLES, canary_runs=0, threshold=0.9)

    assert run.status == "failed"
    error = run.describe().error
    assert error is not None
    assert "is not better by 0.9, and is not put in place: on 4 held-out examples it scored 1.000" in error.message
    assert mood_of.programs() == []


def test_a_person_approves_with_the_scores_at_hand_or_does_not(orchestrator: Orchestrator) -> None:
    approved, rejected = (
        optimize(mood_of, metric=EXACT, examples=EXAMPLES, canary_runs=0, approve=True) for _ in range(2)
    )

    assert approved.describe().steps["evaluate"].result["scores"]["candidate"] == 1.0
    approved.approve("approve", actor="ann")
    rejected.reject("approve", actor="ann", reason="not now")

    assert (approved.status, rejected.status) == ("completed", "failed")
    assert [(each.version, each.state) for each in mood_of.programs()] == [(1, "current"), (2, "kept")]


def test_undoing_an_optimization_takes_back_what_it_has_put_in_place(orchestrator: Orchestrator) -> None:
    run = optimize(mood_of, metric=EXACT, examples=EXAMPLES, canary_runs=0)
    run.result()

    run.compensate(reason="too slow", actor="ann")

    assert run.status == "compensated"
    [program] = mood_of.programs()
    assert program.state == "kept"
    assert [event.action for event in program.events] == ["promoted", "withdrawn"]


def test_examples_are_those_of_completed_runs_and_of_high_scores(orchestrator: Orchestrator) -> None:
    for each in EXAMPLES:
        orchestrator.start(learners.MOOD, {**each["inputs"], "strict": "awful 5" not in each["inputs"]["text"]})
    run = optimize(mood_of, metric=opposite, canary_runs=0)

    data = run.describe().steps["snapshot"].result["data"]
    texts = {one["inputs"]["text"] for part in data.values() for one in part}
    assert texts == {"awful 5", *(f"nice {number}" for number in range(6))}


def test_what_cannot_be_optimized_is_told_before_anything_is_paid(orchestrator: Orchestrator, lm_stub: LMStub) -> None:
    def told(worker: Any = mood_of, **given: Any) -> str:
        with pytest.raises((ConfigurationError, WorkerError)) as refused:
            optimize(worker, **{"metric": EXACT, "examples": EXAMPLES, **given})
        return str(refused.value)

    assert 'optimizer "bootsrap" is not known; did you mean "bootstrap"?' in told(optimizer="bootsrap")
    assert 'metric "tests.nowhere:exact" was not found' in told(metric="tests.nowhere:exact")
    assert 'metric "tests.support.apps.learners:exakt" was not found' in told(metric=f"{EXACT[:-3]}akt")
    assert "cannot be imported by the workers" in told(metric=lambda example, prediction: True)
    assert "has 3 examples that are good to learn from" in told(examples=EXAMPLES[:3])
    assert "has 0 examples that are good to learn from" in told(examples=None)
    assert "harmful may not be called for nothing" in told(learners.with_tools)
    assert 'worker "plain_worker" (tests.support.apps.learners.plain_worker) is no agent' in told("plain_worker")
    assert "budget=0; expected a whole number of at least 1, or None" in told(budget=0)
    assert "holdout=1; expected a number between 0 and 1" in told(holdout=1)
    with pytest.raises(WorkerNotFoundError, match='did you mean "mood_of"'):
        optimize("mod_of", metric=EXACT)
    assert lm_stub.count == 0


# --- with workers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def agents(redis_url: str, tmp_path: Path, lm_stub: LMStub) -> Iterator[Agents]:
    """A deployment of the test's own, whose workers it may kill; it has none yet."""
    before = _state._tls.current_app
    lm_stub.answer_with(learners.answer)
    with Agents(redis_url, tmp_path, lm_stub, app=learners.__name__) as made:
        made.app.set_current()
        yield made
        made.show()
    _state._set_current_app(before)


@pytest.mark.parametrize("answered", [3, *(pytest.param(one, marks=pytest.mark.full) for one in (0, 9))])
def test_S35_an_optimization_that_was_killed_repeats_nothing_that_was_paid(agents: Agents, answered: int) -> None:
    victim = agents.worker()
    agents.stub.when(lambda request: request.number == 2).reply(rate_limited(retry_after=2.5))  # the worker is freed
    agents.stub.hold(after=answered)
    run = optimize(mood_of, metric=EXACT, examples=EXAMPLES, canary_runs=0)
    agents.stub.wait_for(answered + 1, timeout=SOON)

    victim.kill()
    agents.stub.release()
    agents.worker()

    assert run.result(timeout=SOON)["scores"]["candidate"] == 1.0
    # Four examples are answered well at once, and four that were held out are answered by each of two programs.
    assert agents.stub.count == 4 + 2 * 4 + len(["the busy one", "the one under way"])
    steps = run.describe().steps
    used = [steps[name].usage for name in ("compile", "evaluate")]
    assert sum(each.possibly_paid_twice for each in used) == 1
    assert [each.state for each in mood_of.programs()] == ["current"]


@pytest.fixture(scope="module")
def warm(new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    """A deployment with a worker; each test has an agent of its own there."""
    before = _state._tls.current_app
    folder = tmp_path_factory.mktemp("canaries")
    with LMStub() as stub, Agents(new_redis_url(), folder, stub, app=learners.__name__) as made:
        stub.answer_with(learners.answer)
        made.app.set_current()
        made.worker("threads", concurrency=4)
        yield made
        made.show()
    _state._set_current_app(before)


def play(agents: Agents, workflow: Definition, number: int, **context: Any) -> None:
    """Start runs of a workflow that asks the worker, and wait until they are over."""
    given = [{"text": f"awful {one}", **context} for one in range(number)]
    runs = [agents.orchestrator.start(workflow, each) for each in given]
    for run in runs:
        wait_until(lambda run=run: run.status.is_end, SOON, "the end of a run")


def canary(agent: AgentTask, **options: Any) -> Run:
    """Optimize an agent, and wait until what it has learned is a canary."""
    run = optimize(agent, metric=EXACT, examples=EXAMPLES, canary_share=0.5, **options)
    wait_until(lambda: run.describe().steps["canary"].status == "succeeded", SOON, "the canary")
    assert [(each.state, each.share) for each in agent.programs()] == [("canary", 0.5)]
    return run


def test_a_canary_that_does_as_well_is_put_in_place_for_all(warm: Agents) -> None:
    run = canary(mood_of, canary_runs=3)

    def awaited() -> list[str]:
        return [f"{each.kind}: {each}" for each in run.describe().steps["judge"].waiting_for]

    wait_until(lambda: awaited() == ["canary: the end of runs with canary 1: 0 of 3 have ended"], SOON, "the wait")
    while not run.status.is_end:
        play(warm, learners.MOOD, 4, strict=True)

    judged = run.result(timeout=SOON)["canary"]
    assert judged["runs"] >= 3
    assert judged["rate"] == 1.0
    assert [(each.state, each.share) for each in mood_of.programs()] == [("current", 1.0)]
    assert run.describe().steps["judge"].attempts == 1


def test_a_canary_that_does_worse_is_taken_back(warm: Agents) -> None:
    run = canary(temper_of, canary_runs=4)

    while not run.status.is_end:
        play(warm, learners.TEMPER, 4, sulks=True)

    assert run.status == "compensated"
    error = run.describe().error
    assert error is not None
    assert "does worse, and is taken back" in error.message
    [program] = temper_of.programs()
    assert program.state == "kept"
    assert [event.action for event in program.events] == ["promoted", "withdrawn"]
    assert "does worse" in str(program.events[-1].reason)
