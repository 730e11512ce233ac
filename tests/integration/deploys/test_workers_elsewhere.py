"""Steps whose worker the sending process has not imported: workers announce where their steps go."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multiagents import Step, WorkflowBuilder
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.dispatch.celery import CeleryDispatcher
from multiagents.orchestrator.dispatch.worker_directory import WorkerFacts
from multiagents.retry import RetryPolicy
from multiagents.settings import Settings
from multiagents.state_store import StateStore, open_store
from multiagents.state_store.records import of_workers
from multiagents.testing import server_kind, wait_until
from tests.support.apps import scripted
from tests.support.scenario import Deployment, Scenario

#: Workers of a team of its own: nobody else imports them, and nobody else consumes their queue.
FAR_APP = """
from tests.support.apps.scripted import app, worker, RetryPolicy, TerminalError, current_step, note

@worker("far_do", queue="far", timeout=0, retry=RetryPolicy(max_attempts=2, initial_interval=0))
def far_do(context):
    note()
    if context.get("fails"):
        raise TerminalError("it will never work")
    return {"far": True}

@worker("far_undo", queue="far")
def far_undo(context):
    note()
"""
FLOW = (
    WorkflowBuilder("far")
    .add_step("a", "far_do", compensation="far_undo")
    .add_step("b", "play", compensation="undo")
    .add_parallel("both", [Step("c", "far_do", compensation="far_undo"), Step("d", "play", compensation="far_undo")])
    .add_step("e", "play")
    .build(register=False)
)


@pytest.fixture
def scenario(new_redis_url: Callable[[], str], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scenario]:
    """A client and a worker that know the workers of `scripted`, and a worker that knows those of `FAR_APP`, too."""
    broker = request.getfixturevalue("rabbitmq").new_vhost() if server_kind() == "rabbitmq" else ""
    (tmp_path / "app_far.py").write_text(FAR_APP)
    with Deployment(new_redis_url(), tmp_path, broker=broker) as made:
        made.start_worker(app="app_far", cwd=tmp_path, queues=["far"]).ready()
        wait_until(lambda: "far_do" in made.orchestrator.store.announced().workers, 10, "the announcement")
        scenario = Scenario(made, request.node.name)
        yield scenario
        scenario.close()


def test_steps_and_undos_reach_the_queue_of_their_worker_whoever_sends_them(scenario: Scenario) -> None:
    assert "far_do" not in scenario.deployment.app.tasks

    there = scenario.play(FLOW)
    back = scenario.play(FLOW, e=["terminal"])

    assert (there.status, there.context["far"]) == ("completed", True)
    assert back.status == "compensated"
    # Nothing went to somebody who would have had to pass it on.
    assert "unregistered task" not in scenario.deployment.workers[0].log
    assert {name: step.status for name, step in back.steps.items() if name != "e"} == dict.fromkeys(
        "abcd", "compensated"
    )


# --- what is taken over ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[StateStore]:
    """An empty store of each kind."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("new_redis_url")()
    made = open_store(url)
    yield made
    made.close()
    if request.param == "memory":
        made.clear()  # type: ignore[attr-defined]


def test_queue_limit_priority_and_retries_are_those_that_the_worker_announced(store: StateStore) -> None:
    policy = RetryPolicy(max_attempts=7)
    facts = WorkerFacts("far", 20.0, 6, policy)
    store.announce(of_workers({"far_do": facts.to_dict(), "far_undo": {}}))
    app = scripted.make_app("redis://127.0.0.1:1/0")
    orchestrator = app.multiagents
    dispatcher = CeleryDispatcher(
        app, Settings(), orchestrator.runtime.address, orchestrator.keys, announced=store.announced
    )

    do, undo = (
        dispatcher.address(FLOW, Correlation("order-1", "a", direction, 1))
        for direction in (Direction.DO, Direction.UNDO)
    )

    assert do.target == "far\x06\x166"
    assert _time_limit(do) == 30
    assert dispatcher.retry_policy(FLOW, Correlation("order-1", "a", Direction.DO, 1)) == policy
    assert (undo.target, _time_limit(undo)) == ("celery", 3610)


def test_what_nobody_has_announced_goes_where_it_went_and_has_no_limit_of_ours(store: StateStore) -> None:
    app = scripted.make_app("redis://127.0.0.1:1/0")
    orchestrator = app.multiagents
    dispatcher = CeleryDispatcher(
        app, Settings(), orchestrator.runtime.address, orchestrator.keys, announced=store.announced
    )

    sent = dispatcher.address(FLOW, Correlation("order-1", "a", Direction.DO, 1))

    assert (sent.target, _time_limit(sent)) == ("celery", None)


def test_a_worker_announces_its_own_workers_and_no_other_tasks() -> None:
    announced = scripted.make_app("redis://127.0.0.1:1/0").multiagents.dispatcher.workers_here()

    assert announced["limited"] == {"timeout": 0.5, "retry": {"max_attempts": 1}, "home": "celery"}
    # Where something has loaded agents, those that optimize them are workers as well.
    others = [name for name in announced if not name.startswith("multiagents.optimize.")]
    assert not [name for name in others if name.startswith(("celery.", "multiagents."))]


def _time_limit(dispatch: Any) -> Any:
    message = json.loads(f"{dispatch.prefix}1{dispatch.suffix}")
    assert b64decode(message["body"])
    return message["headers"]["timelimit"][0]
