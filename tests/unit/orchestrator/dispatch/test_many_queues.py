"""A queue for each customer: what a process remembers of them has an end."""

from __future__ import annotations

import pytest
from celery import Celery

from multiagents import WorkflowBuilder, init_app
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.dispatch import celery as dispatch
from multiagents.state_store.records import Announced


def test_what_is_remembered_of_queues_has_an_end_and_every_message_goes_to_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "MAX_CACHED", 4)
    app = Celery("queues", broker="redis://127.0.0.1:1/0", set_as_current=False)
    dispatcher = init_app(app, {"redis_url": "redis://127.0.0.1:1/0"}).dispatcher
    monkeypatch.setattr(dispatcher._directory, "_read", Announced)  # there is no server

    for number in (*range(20), 0):
        flow = WorkflowBuilder("q").add_step("a", "do", queue=f"tenant-{number}").build(register=False)
        sent = dispatcher.address(flow, Correlation("order-1", "a", Direction.DO, 1))

        assert sent.target.startswith(f"tenant-{number}")
        assert f'"routing_key": "tenant-{number}"' in sent.prefix + sent.suffix
    assert max(map(len, (dispatcher._templates, dispatcher._lists, dispatcher._routes))) <= 4
