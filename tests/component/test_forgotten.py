"""What a first user forgets: ``build()``, ``init_app``; the error says so where it is noticed first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, signals

from multiagents import Orchestrator, WorkflowBuilder, init_app, worker
from multiagents.exceptions import ConfigurationError, DefinitionError

FORGOTTEN: Any = WorkflowBuilder("forgotten").add_step("a", "forgetful")

#: Where a workflow is given to an orchestrator.
TAKEN: dict[str, Callable[[Orchestrator], object]] = {
    "start": lambda orchestrator: orchestrator.start(FORGOTTEN),
    "list": lambda orchestrator: orchestrator.list(FORGOTTEN),
    "count": lambda orchestrator: orchestrator.count(FORGOTTEN),
    "bulk": lambda orchestrator: orchestrator.bulk("cancel", FORGOTTEN),
    "schedule": lambda orchestrator: orchestrator.schedule("nightly", FORGOTTEN, 60),
    "child": lambda _orchestrator: WorkflowBuilder("parent").add_child("own", FORGOTTEN).build(register=False),
}


@worker("forgetful")
def forgetful(context: dict[str, Any]) -> None: ...


@pytest.mark.parametrize("place", TAKEN)
def test_a_builder_in_the_place_of_its_workflow_is_refused_and_build_is_named(
    orchestrator: Orchestrator, place: str
) -> None:
    with pytest.raises(DefinitionError, match=r"build\(\)"):
        TAKEN[place](orchestrator)


def test_something_else_in_the_place_of_a_workflow_is_refused(orchestrator: Orchestrator) -> None:
    with pytest.raises(DefinitionError, match=r"start\(\) was given 7; expected a definition"):
        orchestrator.start(7)  # type: ignore[arg-type]


class WorkerOf:
    """What Celery gives the receivers of its signals, as far as they look at it."""

    def __init__(self, app: Celery) -> None:
        self.app = app


def test_a_worker_process_that_has_workers_and_no_orchestrator_says_so(caplog: pytest.LogCaptureFixture) -> None:
    app = Celery("forgetful", set_as_current=False)
    caplog.set_level(logging.WARNING)

    signals.worker_init.send(sender=WorkerOf(app))

    [told] = [each.getMessage() for each in caplog.records if "no orchestrator" in each.getMessage()]
    assert "forgetful" in told
    assert "call multiagents.init_app(app)" in told


def test_the_orchestrators_task_in_an_app_without_one_says_what_was_forgotten() -> None:
    app = Celery("forgetful", set_as_current=False)

    with pytest.raises(ConfigurationError, match=r"call multiagents.init_app\(app\)"):
        app.tasks["multiagents.orchestrate"].apply(["order-1"], throw=True)


@pytest.mark.parametrize(
    "given", [None, "shop", WorkerOf(Celery("forgetful", set_as_current=False))], ids=["none", "name", "holder"]
)
def test_something_else_in_the_place_of_the_app_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected the Celery app"):
        init_app(given)
