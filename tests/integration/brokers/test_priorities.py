"""An undo does not wait behind a long backlog of new starts, in the same queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from multiagents import ResultEvent, WorkflowBuilder
from multiagents.orchestrator.dispatch.kombu import SEPARATOR
from multiagents.testing import server_kind
from multiagents.workflow.definition import Definition
from tests.support.apps import scripted
from tests.support.scenario import Deployment, Scenario

BACKLOG = 2_000


@pytest.mark.parametrize(
    "outbox",
    [
        pytest.param(False, id="the store's database"),
        pytest.param(True, id="another database", marks=pytest.mark.full),
    ],
)
@pytest.mark.skipif(server_kind() == "rabbitmq", reason="there a queue has to be declared for priorities")
def test_an_undo_that_comes_after_2000_starts_is_done_first(
    new_redis_url: Callable[[], str], tmp_path: Path, outbox: bool
) -> None:
    # Given: a run whose only step somebody else has done; then a backlog of starts; and only then a cancel.
    deployment = Deployment(
        new_redis_url(), tmp_path, broker=new_redis_url() if outbox else "", lease=30.0, sweep_interval=1.0
    )
    rules = Scenario(deployment, "priorities")
    early = WorkflowBuilder("early").add_step("pay", "play", compensation="undo", external=True).add_wait("go")
    run = rules.start(early.build(register=False))
    done = f"{run.transaction_id}/pay/do/1"
    deployment.orchestrator.engine.receive(
        ResultEvent(transaction_id=run.transaction_id, correlation_id=done, step="pay", attempt=1)
    )
    many = WorkflowBuilder("many").add_step("all_of_them", "echo").build(register=False)
    for number in range(BACKLOG):
        deployment.orchestrator.start(many, {}, f"many-{number}")
    run.cancel()

    # When: a worker comes.
    try:
        deployment.start_worker()
        assert rules.end(run, 60).status == "cancelled"
    finally:
        for worker in deployment.workers:
            worker.kill()

    # Then: nearly all of the backlog is still there.
    assert rules.began(run) == ["pay.undo"]
    assert deployment.orchestrator.count("many", "completed") < BACKLOG / 20


@pytest.mark.parametrize("outbox", [False, True], ids=["the store's database", "another database"])
@pytest.mark.skipif(server_kind() == "rabbitmq", reason="there a queue has to be declared for priorities")
def test_a_start_goes_on_though_others_tasks_keep_its_queue_busy(
    new_redis_url: Callable[[], str], tmp_path: Path, outbox: bool
) -> None:
    # Given: there are always others' tasks in the queue; they go before what has a priority.
    url = new_redis_url()
    broker = new_redis_url() if outbox else url
    with Deployment(url, tmp_path, broker=broker, lease=30.0, sweep_interval=0.5) as deployment:
        rules = Scenario(deployment, "busy")
        app, queue = deployment.orchestrator.app, scripted.client(broker)
        flow = WorkflowBuilder("busy").add_step("a", "echo").build(register=False)

        def fill() -> int:
            missing = max(0, 40 - queue.llen("celery"))
            for _ in range(missing):
                app.send_task("somebody.elses", ignore_result=True)
            return missing

        fill()

        # When: a run is started.
        run = rules.start(flow)
        sent, until = 0, time.monotonic() + 30
        while not run.status.is_end and time.monotonic() < until:
            sent += fill()

        # Then: it has its turn all the same.
        assert run.status == "completed"
        assert sent > 0


@pytest.mark.skipif(server_kind() == "rabbitmq", reason="there a queue has to be declared for priorities")
def test_a_start_that_another_process_has_to_decide_waits_likewise(new_redis_url: Callable[[], str]) -> None:
    app = scripted.make_app(url := new_redis_url())
    built = WorkflowBuilder("elsewhere").add_step("echo", when=lambda ctx: True).build(register=False)
    read = Definition.from_dict(built.to_dict())
    assert read.lacks_code

    app.multiagents.start(read, {})

    part = app.multiagents.keys.of_partition(0)
    assert scripted.client(url).hgetall(part.sequence) == {f"celery{SEPARATOR}3": "1"}
