"""A message that a commit pushes is, apart from ids, the message that Celery would have sent (a golden test).

The broker here is Redis, whatever the other tests run on: nothing is rendered for another one.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from celery import signals

from multiagents.names import HEADER, Correlation, Direction
from multiagents.workflow.builder import WorkflowBuilder
from tests.support.apps import mixed  # noqa: F401 - registers the workers
from tests.support.mixed_deployment import MixedDeployment, receiving


@pytest.fixture
def deployment(redis_url: str, tmp_path: Path) -> Iterator[MixedDeployment]:
    with MixedDeployment(tmp_path, redis_url, redis_url) as made:
        yield made


GOLDEN = (
    WorkflowBuilder("golden")
    .add_step("a", "plain.take", compensation="plain.put_back")
    .add_step("b", "plain.take", queue="urgent", priority=7, timeout=20)
    .add_step("c", "plain.routed", after=["a"])
    .add_step("d", "plain.of_orders")
    .build(register=False)
)


def taken_apart(message: str) -> dict[str, Any]:
    """A message as data, without what differs from one message to the next."""
    found: dict[str, Any] = json.loads(message)
    found["body"] = json.loads(b64decode(found["body"]))
    assert found["properties"].pop("delivery_tag")
    # Which thread would wait for the answer: nobody does. The others have their place in the headers; given as options,
    # Celery puts them here as well.
    for name in ("reply_to", "argsrepr", "kwargsrepr"):
        found["properties"].pop(name, None)
    return found


@pytest.mark.parametrize("receiver", [False, True], ids=["from a template", "with a receiver of before_task_publish"])
@pytest.mark.parametrize(
    ("step", "direction", "task", "queue", "priority", "limit"),
    [
        pytest.param("a", "do", "plain.take", "celery", None, 3610, id="as it comes"),
        pytest.param("a", "undo", "plain.put_back", "celery", None, 3610, id="an undo"),
        pytest.param("b", "do", "plain.take", "urgent", 7, 30, id="queue, priority and limit of the step"),
        pytest.param("c", "do", "plain.routed", "urgent", 6, 3610, id="queue and priority of task_routes"),
        pytest.param("d", "do", "plain.of_orders", "orders", None, 3610, id="queue of the worker"),
    ],
)
def test_a_rendered_message_is_what_celery_would_have_sent(
    deployment: MixedDeployment,
    step: str,
    direction: str,
    task: str,
    queue: str,
    priority: int | None,
    limit: int,
    receiver: bool,
) -> None:
    dispatcher = deployment.orchestrator.dispatcher
    correlation = Correlation("order-1", step, Direction(direction), 2, "5f0cR-2x")

    def look_on(**_arguments: Any) -> None:
        """Its being there is what counts."""

    with receiving(signals.before_task_publish, look_on) if receiver else nullcontext():
        before = dispatcher.address(GOLDEN, Correlation("order-0", step, Direction(direction), 13))
        sent = dispatcher.address(GOLDEN, correlation)
    text = f"{sent.prefix}1{sent.suffix}"
    rendered = taken_apart(text)

    # The very message that a user would send with these options, ...
    deployment.app.tasks[task].apply_async(
        kwargs={
            "transaction_id": "order-1",
            "step": step,
            "direction": direction,
            "attempt": 2,
            "definition": GOLDEN.content_hash,
            "nonce": "5f0cR-2x",
        },
        task_id=f"order-1/{step}/{direction}/2",
        root_id="order-1",
        parent_id="order-1",
        argsrepr="()",
        kwargsrepr=f"{{'transaction_id': 'order-1', 'step': '{step}', '{direction}': 2}}",
        headers={HEADER: "0:1"},
        time_limit=limit,
        ignore_result=True,
        **({"queue": queue, "priority": priority} if step == "b" else {}),
    )
    expected = taken_apart(deployment.redis.rpop(sent.target))
    assert rendered == expected
    assert expected["properties"]["delivery_info"]["routing_key"] == queue
    # ... and the outbox sends the same.
    dispatcher.publish(GOLDEN, correlation, queue)
    published = taken_apart(deployment.redis.rpop(sent.target))
    assert published["headers"].pop(HEADER) == "0:0"
    assert {**published["headers"], HEADER: "0:1"} == expected["headers"]
    assert {**published, "headers": None} == {**expected, "headers": None}

    # The sweep finds a message's number by this text; and no two messages share a tag.
    assert f'"{HEADER}": "0:1"' in text
    assert "order-0" not in text
    tags = [json.loads(f"{one.prefix}1{one.suffix}")["properties"]["delivery_tag"] for one in (before, sent)]
    assert tags[0] != tags[1]
