"""What starts a run goes out less urgently than what runs under way send, so that no undo is held up by it."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from multiagents import WorkflowBuilder, init_app
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.dispatch.celery import CeleryDispatcher

REDIS = "redis://127.0.0.1:1/0"
FIRST = Correlation("order-1", "a", Direction.DO, 1)
UNDO = Correlation("order-1", "a", Direction.UNDO, 1)


def _nothing(_context: Any) -> None: ...


def dispatcher(broker: str = REDIS, **settings: Any) -> CeleryDispatcher:
    app = Celery("priorities", broker=broker, set_as_current=False)
    for name in ("p.do", "p.undo"):
        app.task(_nothing, name=name)
    made = init_app(app, {"redis_url": REDIS, **settings}).dispatcher
    assert isinstance(made, CeleryDispatcher)
    return made


def flow(**options: Any) -> Any:
    return WorkflowBuilder("priorities").add_step("a", "p.do", compensation="p.undo", **options).build(register=False)


@pytest.mark.parametrize(
    ("settings", "options", "first", "later"),
    [
        pytest.param({}, {}, "celery\x06\x163", "celery", id="by default"),
        pytest.param({"start_priority": 6}, {}, "celery\x06\x166", "celery", id="another one"),
        pytest.param({"start_priority": 0}, {}, "celery", "celery", id="turned off"),
        pytest.param({}, {"priority": 9}, "celery\x06\x169", "celery\x06\x169", id="the step's own"),
        pytest.param({}, {"priority": 0}, "celery", "celery", id="the step's own, the most urgent"),
    ],
)
def test_what_starts_a_run_waits_in_a_list_of_its_own(
    settings: dict[str, Any], options: dict[str, Any], first: str, later: str
) -> None:
    sends = dispatcher(**settings)

    assert sends.address(flow(**options), FIRST, first=True).target == first
    assert sends.address(flow(**options), FIRST).target == later
    undo = sends.address(flow(**options), UNDO)
    assert undo.target == later


def test_the_priority_of_its_task_goes_before_that_of_the_start() -> None:
    sends = dispatcher()
    sends.app.conf.task_routes = {"p.do": {"priority": 6}}

    assert sends.address(flow(), FIRST, first=True).target == "celery\x06\x166"


def test_where_the_start_is_decided_elsewhere_the_message_that_says_so_waits_likewise() -> None:
    sends = dispatcher()

    first, later = sends.orchestration("order-1", first=True), sends.orchestration("order-1")

    assert first is not None
    assert later is not None
    assert (first[0], later[0]) == ("celery\x06\x163", "celery")


@pytest.mark.parametrize(
    ("broker", "priority"),
    [
        ("redis://127.0.0.1:1/5", 3),
        ("rediss://127.0.0.1:1/0", 3),
        ("sentinel://127.0.0.1:1/0;sentinel://127.0.0.1:2/0", 3),
        # There a larger number is more urgent, and a queue has to be declared for it.
        ("amqp://127.0.0.1:1//", None),
    ],
)
def test_by_default_it_is_so_on_redis_and_on_no_other_broker(broker: str, priority: int | None) -> None:
    assert dispatcher(broker)._start_priority == priority


def test_whoever_asks_for_it_has_it_on_any_broker() -> None:
    assert dispatcher("amqp://127.0.0.1:1//", start_priority=2)._start_priority == 2
