"""Starts in a Redis that is not the store go on among others' tasks when they have waited long, a few at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from multiagents import Orchestrator, WorkflowBuilder, failpoints
from multiagents.failpoints import WriteSite
from multiagents.names import Correlation
from multiagents.orchestrator.dispatch.kombu import SEPARATOR
from multiagents.orchestrator.recovery import Sweep, sweep
from multiagents.testing import wait_until
from multiagents.workflow.definition import Definition

LOW = f"celery{SEPARATOR}3"
FLOW = WorkflowBuilder("starved").add_step("a", "echo").build(register=False)
ELSEWHERE = WorkflowBuilder("starved_elsewhere").add_step("a", "echo", when=lambda ctx: True).build(register=False)


class Deployment:
    """A store and another Redis as the broker, in which others' tasks wait; nothing is consumed."""

    def __init__(self, store: str, broker: str) -> None:
        self.app = Celery("starved", broker=broker, set_as_current=False)
        self.orchestrator = Orchestrator(self.app, {"redis_url": store})
        self.broker: Any = redis.Redis.from_url(broker, decode_responses=True)
        self.sweep = Sweep(self.orchestrator.engine)
        self.app.send_task("somebody.elses", ignore_result=True)

    def waiting(self, name: str) -> list[str]:
        """The ids of the messages in a list, the next to be consumed first."""
        return [json.loads(message)["headers"]["id"] for message in reversed(self.broker.lrange(name, 0, -1))]

    def look(self) -> int:
        """Sweep once; how many starts are left."""
        self.sweep._raise_at = 0.0
        self.sweep.tick()
        return int(self.broker.llen(LOW))


@pytest.fixture
def deployment(new_redis_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    monkeypatch.setattr(sweep, "AGED_MS", 0)
    made = Deployment(new_redis_url(), new_redis_url())
    yield made
    made.orchestrator.store.close()
    made.broker.close()
    made.app.close()


def test_starts_that_have_waited_go_on_ten_at_a_time(deployment: Deployment) -> None:
    names = [f"run-{number:02}" for number in range(25)]
    for name in names:
        deployment.orchestrator.start(FLOW, {}, name)
    deployment.app.send_task("somebody.elses", priority=3, ignore_result=True)

    assert [deployment.look() for _ in range(3)] == [16, 16, 16]
    assert deployment.waiting("celery")[1:] == [f"{name}/a/do/1" for name in names[:10]]
    deployment.broker.ltrim("celery", 0, 0)  # all but the last are consumed
    assert deployment.look() == 16
    deployment.broker.delete("celery")
    assert deployment.look() == 16, "nothing keeps them"
    deployment.app.send_task("somebody.elses", ignore_result=True)

    assert [deployment.look(), deployment.look()] == [6, 6]


def test_starts_that_have_not_waited_stay(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "AGED_MS", 3_600_000)
    deployment.orchestrator.start(FLOW, {}, "run")

    assert deployment.look() == 1


def test_a_start_that_another_process_has_to_decide_goes_on_and_one_that_is_over_keeps_none(
    deployment: Deployment,
) -> None:
    over = deployment.orchestrator.start(FLOW, {}, "over")
    over.terminate()
    over.delete(reason="a test")
    deployment.orchestrator.start(Definition.from_dict(ELSEWHERE.to_dict()), {}, "decided-elsewhere")
    deployment.orchestrator.start(FLOW, {}, "run")

    assert deployment.look() == 0
    assert deployment.waiting("celery")[1:] == ["over/a/do/1", "decided-elsewhere//do/0", "run/a/do/1"]


def test_others_tasks_of_the_same_priority_stay_where_they_are(deployment: Deployment) -> None:
    deployment.app.send_task("somebody.elses", priority=3, ignore_result=True)
    deployment.orchestrator.start(FLOW, {}, "run")

    assert deployment.look() == 2


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_who_dies_as_a_start_goes_on_loses_none(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    deployment.orchestrator.start(FLOW, {}, "run")

    def dies(site: WriteSite, action: Callable[[], Any]) -> Any:
        if site is WriteSite.RAISE_START:
            if done:
                action()
            raise KeyboardInterrupt
        return action()

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "injector", dies)
        with pytest.raises(KeyboardInterrupt):
            deployment.look()

    assert deployment.waiting(LOW) == ([] if done else ["run/a/do/1"])
    wait_until(lambda: deployment.look() == 0, 5, "the start to go on")
    assert deployment.waiting("celery")[1:] == ["run/a/do/1"]
    assert deployment.orchestrator.store.load("run").in_flight["a"].attempt == Correlation.parse("run/a/do/1").attempt
