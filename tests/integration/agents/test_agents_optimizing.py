"""An agent learns from what it has done: a saga makes a better program of it, and takes back what is not better."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from celery import Celery, _state

from multiagents import Orchestrator, init_app, optimize
from multiagents.exceptions import ConfigurationError, WorkerError, WorkerNotFoundError
from multiagents.testing.lm_stub import LMStub
from tests.support.apps import learners
from tests.support.apps.learners import EXAMPLES, mood_of, opposite

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
    pytest.importorskip("optuna")
    run = optimize(
        mood_of, metric="judge_mood", optimizer=optimizer, budget=60, examples=EXAMPLES, canary_runs=0, seed=3
    )

    assert run.result()["scores"]["candidate"] == 1.0
    assert lm_stub.count <= 60 + 2 * 4
    [program] = mood_of.programs()
    assert program.versions.keys() == {"dspy", {"gepa": "gepa", "mipro": "optuna"}[optimizer]}
    assert "hidden-key" not in str(orchestrator.store.programs.get("mood_of", 1))
    assert lm_stub.openai_base not in str(orchestrator.store.programs.get("mood_of", 1))


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
