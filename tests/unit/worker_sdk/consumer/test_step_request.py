"""What a worker process makes of a message of the engine, before it hands it to its pool."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from celery import Celery
from celery.worker import state
from kombu.message import Message
from kombu.serialization import dumps

from multiagents.names import HEADER
from multiagents.worker_sdk.consumer.celery import StepRequest, kill_overdue


def charge_card() -> None:
    pass


@pytest.fixture
def app() -> Celery:
    return Celery("requests", set_as_current=False)


def request(app: Celery, task: Any, headers: dict[str, Any]) -> StepRequest:
    made = app.amqp.as_task_v2("id-1", task.name, kwargs={}, time_limit=3610)
    content_type, encoding, body = dumps(made.body, "json")
    message = Message(
        body=body,
        content_type=content_type,
        content_encoding=encoding,
        headers={**made.headers, **headers},
        properties=made.properties,
        delivery_info={},
    )
    return StepRequest(message, app=app, task=task, hostname="celery@here")


def test_a_step_arms_no_timer_for_its_hard_limit(app: Celery) -> None:
    task = app.task(name="charge_card")(charge_card)

    step = request(app, task, {HEADER: "0:1"})

    assert step.time_limits == (None, None)
    assert step.hard_limit == 3610


def test_another_message_of_the_same_task_is_celerys(app: Celery) -> None:
    task = app.task(name="charge_card")(charge_card)

    plain = request(app, task, {})

    assert list(plain.time_limits) == [3610, None]
    assert plain.hard_limit is None


def test_where_the_task_has_a_limit_of_its_own_the_shorter_holds(app: Celery) -> None:
    task = app.task(name="charge_card", time_limit=60)(charge_card)

    step = request(app, task, {HEADER: "0:1"})

    assert step.time_limits == (None, None)
    assert step.hard_limit == 70


def test_a_clock_that_is_set_forward_brings_no_step_over_its_hard_limit(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = request(app, app.task(name="charge_card")(charge_card), {HEADER: "0:1"})
    monkeypatch.setattr(state, "active_requests", {step})
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _signal: killed.append(pid))
    monkeypatch.setattr(step, "_disarm", lambda: None)
    # What Celery makes of its own clock, which shows two hours more by now.
    step.on_accepted(4711, time.time() - 7_200)

    kill_overdue()
    assert killed == []
    step.begun = time.monotonic() - 7_200
    kill_overdue()

    assert killed == [4711]
