"""What an agent has learned is asked with as soon as it is promoted, and a step goes on with what it has begun with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, _state

from multiagents import Orchestrator, RetryPolicy, WorkflowBuilder, dspy_worker, init_app
from multiagents.agents.agent_task import AgentTask
from multiagents.exceptions import ConfigurationError, ProgramMismatchError, ProgramNotFoundError, WorkerError
from multiagents.testing import wait_until
from multiagents.testing.lm_stub import LMStub, fields, react_agent
from tests.support.agents_kit import Agents
from tests.support.apps.agents import RESEARCH, THINK, researcher, thinker

dspy = pytest.importorskip("dspy")

SOON = 40.0
SECRET = "no-secret"


def learn(orchestrator: Orchestrator, worker: AgentTask, *demos: dict[str, Any], instructions: str = "") -> int:
    """Keep a program as an optimizer would make it: with examples, or with other instructions."""
    from multiagents.agents.dspy.learned import written
    from multiagents.agents.dspy.program import adapter_of, program_of

    agent = worker.agent
    program = program_of(agent)
    name, predictor = program.named_predictors()[-1]
    predictor.demos = [dspy.Example(**demo).with_inputs() for demo in demos]
    predictor.lm = dspy.LM("openai/gpt-stub", api_base="http://127.0.0.1:9/hidden", api_key=SECRET)
    if instructions:
        predictor.signature = predictor.signature.with_instructions(instructions)
    about = {"optimizer": "by hand", "scores": {"candidate": 1.0}}
    return orchestrator.store.programs.add(
        worker.name, written(program, agent, adapter_of(agent)), about, token=f"{name}-{demos}-{instructions}"
    )


@pytest.fixture
def current(request: pytest.FixtureRequest) -> Iterator[None]:
    """The app of the test is the current one, as it is in a user's module."""
    before = _state._tls.current_app
    yield
    _state._set_current_app(before)


# --- in one process --------------------------------------------------------------------------------------------------


@pytest.fixture
def orchestrator(lm_stub: LMStub, current: None) -> Orchestrator:
    """Runs everything in this process."""
    lm_stub.answer_with(lambda _: fields(answer="So."))
    app = Celery("programs", set_as_current=False)
    app.conf.task_always_eager = True
    app.conf.multiagents_key_prefix = f"programs-{id(app)}"
    app.conf.multiagents_lm = {"model": "openai/gpt-x", "api_base": lm_stub.openai_base, "api_key": "x"}
    app.set_current()
    return init_app(app)


@dspy_worker("learner", signature="question -> answer: str")
def learner(answer: str) -> None:
    assert answer


@dspy_worker("other_learner", signature="question, hint -> answer: str", adapter="json")
def other_learner(answer: str) -> None:
    assert answer


LEARN = WorkflowBuilder("learn-something").add_step("ask", learner).build()
DEMO = {"question": "What is red?", "answer": "A colour."}


def test_a_promoted_program_is_asked_with_and_a_rollback_takes_it_back(
    orchestrator: Orchestrator, lm_stub: LMStub
) -> None:
    version = learn(orchestrator, learner, DEMO)

    def asked() -> bool:
        orchestrator.start(LEARN, {"question": "Why?"}).result()
        return "A colour." in lm_stub.requests[-1].text

    before = asked()
    learner.promote(version, actor="ann", reason="it is better")
    with_it = asked()
    assert learner.rollback(actor="bob") == 0
    assert (before, with_it, asked()) == (False, True, False)


def test_programs_are_shown_with_where_they_stand_and_who_has_put_them_there(orchestrator: Orchestrator) -> None:
    for number in range(4):
        learn(orchestrator, learner, DEMO, instructions=f"Answer {number}.")
    learner.promote(1)
    learner.promote(2, actor="ann", reason="it is better")
    learner.promote(3, share=0.1, actor="ann")

    shown = learner.programs()

    assert [(each.version, each.state, round(each.share, 3)) for each in shown] == [
        (1, "former", 0),
        (2, "current", 0.9),
        (3, "canary", 0.1),
        (4, "kept", 0),
    ]
    [event] = shown[1].events
    assert (event.action, event.share, event.actor, event.reason) == ("promoted", 1.0, "ann", "it is better")
    assert (shown[0].optimizer, shown[0].scores) == ("by hand", {"candidate": 1.0})
    assert abs((shown[0].created_at - orchestrator.store.now()).total_seconds()) < 60


def test_a_share_of_the_runs_asks_with_a_canary(orchestrator: Orchestrator, lm_stub: LMStub) -> None:
    learner.promote(learn(orchestrator, learner, DEMO), share=0.5)
    placement = orchestrator.store.programs.placement("learner")
    ids = [f"run-{number}" for number in range(12)]

    for each in ids:
        orchestrator.start(LEARN, {"question": "Why?"}, transaction_id=each).result()

    asked = ["A colour." in request.text for request in lm_stub.requests]
    assert asked == [placement.chosen(f"{each}/ask") == 1 for each in ids]
    assert set(asked) == {True, False}
    assert [each.experience.program for each in learner.examples()] == ["1" if one else "" for one in reversed(asked)]


def test_a_program_that_was_made_for_other_code_is_refused_in_words(orchestrator: Orchestrator) -> None:
    version = learn(orchestrator, other_learner, DEMO)
    kept = orchestrator.store.programs.get("other_learner", version)
    misfit = orchestrator.store.programs.add("learner", kept, {}, token="misfit")

    with pytest.raises(ProgramMismatchError) as refused:
        learner.promote(misfit)
    assert "signature was self(question: str, hint: str, answer: str" in str(refused.value)
    assert "adapter was dspy.adapters.json_adapter.JSONAdapter, and is dspy.adapters.chat_adapter" in str(refused.value)
    assert orchestrator.store.programs.placement("learner").current == 0


def test_a_worker_whose_code_fits_no_more_goes_on_with_its_own_and_says_so_once(
    orchestrator: Orchestrator, lm_stub: LMStub, caplog: pytest.LogCaptureFixture
) -> None:
    store = orchestrator.store
    kept = store.programs.get("learner", learn(orchestrator, learner, DEMO))
    misfit = store.programs.add("learner", {**kept, "fits": {**kept["fits"], "dspy": "3.3.0"}}, {}, token="misfit")
    assert store.programs.place("learner", store.programs.placement("learner").promoted(misfit), {})

    for _ in range(2):
        assert orchestrator.start(LEARN, {"question": "Why?"}).result()["answer"] == "So."

    assert not any("A colour." in request.text for request in lm_stub.requests)
    told = [record.getMessage() for record in caplog.records if "does not fit" in record.getMessage()]
    assert len(told) == 1
    assert "dspy was 3.3.0, and is" in told[0]


def test_what_cannot_be_promoted_is_told(orchestrator: Orchestrator) -> None:
    version = learn(orchestrator, learner, DEMO)

    with pytest.raises(ProgramNotFoundError, match=r"has no program of version 7 \(kept are: 1\)"):
        learner.promote(7)
    for share in (0, 1.5, True, "half"):
        with pytest.raises(WorkerError, match="share must be a number above 0 and up to 1"):
            learner.promote(version, share=share)  # type: ignore[arg-type]
    with pytest.raises(WorkerError, match="there is nothing to roll back"):
        learner.rollback()


def test_an_app_without_an_orchestrator_is_told(current: None) -> None:
    Celery("none", set_as_current=False).set_current()

    with pytest.raises(ConfigurationError, match='the Celery app "none" has no orchestrator'):
        learner.programs()


FAILS_ONCE = RetryPolicy(max_attempts=2, initial_interval=0)


def test_an_attempt_goes_on_with_the_program_of_the_first_one(orchestrator: Orchestrator, lm_stub: LMStub) -> None:
    promoted: list[int] = []

    @dspy_worker("learns_meanwhile", signature="question -> answer: str", retry=FAILS_ONCE)
    def learns_meanwhile(answer: str) -> None:
        if not promoted:
            promoted.append(learn(orchestrator, learns_meanwhile, DEMO))
            learns_meanwhile.promote(promoted[0])
            raise RuntimeError("after the answer")

    flow = WorkflowBuilder("learn-meanwhile").add_step("ask", learns_meanwhile).build()
    run = orchestrator.start(flow, {"question": "Why?"})

    assert run.result()["answer"] == "So."
    assert lm_stub.count == 1
    orchestrator.start(flow, {"question": "Why?"}).result()
    assert "A colour." in lm_stub.requests[-1].text


# --- with workers ----------------------------------------------------------------------------------------------------


def test_a_worker_asks_with_what_was_promoted_without_being_started_again(agents: Agents, current: None) -> None:
    agents.app.set_current()
    agents.stub.answer_with(lambda _: fields(reasoning="So.", answer="Yes.", agreed=True))
    version = learn(agents.orchestrator, thinker, instructions="Be brief.")

    def asked() -> str:
        agents.orchestrator.start(THINK, {"question": "Why?"}).result(timeout=SOON)
        return agents.stub.requests[-1].text

    assert "Be brief." not in asked()
    thinker.promote(version)
    wait_until(lambda: "Be brief." in asked(), SOON, "the new program")
    thinker.rollback()
    wait_until(lambda: "Be brief." not in asked(), SOON, "the old one")


def test_S35_a_step_that_was_killed_goes_on_with_its_program_whatever_was_promoted_meanwhile(
    own_agents: Agents, current: None
) -> None:
    agents = own_agents
    agents.app.set_current()
    calls = ("look_up", {"word": "a"}), ("look_up", {"word": "b"})
    agents.stub.when("Why?").reply(react_agent(*calls, answer="Because.", sources=[]))
    first = learn(agents.orchestrator, researcher, instructions="Be brief.")
    second = learn(agents.orchestrator, researcher, instructions="Be long.")
    researcher.promote(first)
    victim = agents.worker()
    agents.stub.hold(after=3)
    run = agents.orchestrator.start(RESEARCH, {"question": "Why?"})
    agents.stub.wait_for(4, timeout=SOON)

    researcher.promote(second)
    victim.kill()
    agents.stub.release()
    agents.worker()

    assert run.result(timeout=SOON)["answer"] == "Because."
    assert agents.stub.count == 5
    assert "Be brief." in agents.stub.requests[-1].text
    agents.orchestrator.start(RESEARCH, {"question": "Why?"}).result(timeout=SOON)
    assert "Be long." in agents.stub.requests[-1].text
    stored = "".join(
        str(agents.redis.hgetall(key)) for key in agents.redis.scan_iter("*") if agents.redis.type(key) == "hash"
    )
    assert "Be brief." in stored
    for hidden in (SECRET, "http://127.0.0.1:9/hidden", "pickle"):
        assert hidden not in stored
