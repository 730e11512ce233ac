"""An unmodified Flower beside a worker with `init_app`: its pages work, and sagas are seen in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from multiagents.embedded import free_port
from multiagents.testing import server_kind, wait_until
from tests.support.apps import mixed
from tests.support.mixed_deployment import MixedDeployment

#: In a run's input: must not be seen in Flower.
SECRET = "4111-1111-1111-1111"


class Flower:
    """A Flower process, asked over HTTP."""

    def __init__(self, deployment: MixedDeployment) -> None:
        self.port = free_port()
        self.process = deployment.run_celery("flower", f"--port={self.port}", "--address=127.0.0.1")
        wait_until(self._answers, 30, "Flower")

    def _answers(self) -> bool:
        assert self.process.is_running, self.process.log
        try:
            self.get("/healthcheck")
        except OSError:
            return False
        return True

    def get(self, path: str) -> str:
        """A page."""
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            page: str = answer.read().decode()
        return page

    def ask(self, path: str) -> Any:
        """An answer of its API."""
        return json.loads(self.get(path))

    def tasks_of(self, transaction_id: str) -> dict[str, dict[str, Any]]:
        """What it knows of the steps of a run: correlation id -> task."""
        return {uuid: task for uuid, task in self.ask("/api/tasks").items() if uuid.startswith(f"{transaction_id}/")}


@pytest.fixture(scope="module")
def plain(
    request: pytest.FixtureRequest, new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MixedDeployment]:
    store = new_redis_url()
    broker = request.getfixturevalue("rabbitmq").new_vhost() if server_kind() == "rabbitmq" else store
    with MixedDeployment(tmp_path_factory.mktemp("flower"), broker, store) as made:
        made.start_worker()
        yield made


@pytest.fixture(scope="module")
def flower(plain: MixedDeployment) -> Flower:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FLOWER_UNAUTHENTICATED_API", "true")
        return Flower(plain)


@pytest.fixture(scope="module")
def undone(plain: MixedDeployment, flower: Flower) -> Any:
    """A run that was undone, after Flower has seen its worker."""
    wait_until(lambda: flower.ask("/api/workers?refresh=1"), 20, "Flower to see the worker")
    run = plain.orchestrator.start(mixed.taken_back, {"card": SECRET}, transaction_id="order-A-1")
    wait_until(lambda: run.status == "compensated", what="the end of the run")
    wait_until(lambda: len(flower.tasks_of("order-A-1")) == 7, what="Flower to hear of seven tasks")
    return run


def test_the_worker_pages_know_the_worker(plain: MixedDeployment, flower: Flower) -> None:
    (node,) = plain.nodes
    workers = wait_until(lambda: flower.ask("/api/workers?refresh=1"), 20, "Flower to see the worker")

    assert "plain.take" in workers[node]["registered"]
    assert [queue["name"] for queue in workers[node]["active_queues"]] == ["celery"]
    wait_until(lambda: node in flower.get("/workers?json=1"), what="a heartbeat of the worker")
    assert "Workers" in flower.get("/workers")
    assert node in flower.get(f"/worker/{node}")


@pytest.mark.skipif(server_kind() == "rabbitmq", reason="Flower asks RabbitMQ's management plugin, which is off here")
def test_the_broker_page_knows_how_long_the_queues_are(plain: MixedDeployment, flower: Flower) -> None:
    # Two steps run, eight more at most wait in the worker's memory.
    runs = [plain.orchestrator.start(mixed.held_up, {"gate": "flower"}) for _ in range(20)]
    wait_until(lambda: len(plain.seen("held")) == 2, what="two steps that run")
    waiting = wait_until(lambda: 10 <= plain.length() <= 12 and plain.length(), what="the prefetch")

    lengths = {queue["name"]: queue["messages"] for queue in flower.ask("/api/queues/length")["active_queues"]}
    page = flower.get("/broker")
    plain.open_gate("flower", 20)

    assert lengths == {"celery": waiting}
    assert f">{waiting}<" in page.replace("\n", "").replace(" ", "")
    assert all(run.result(timeout=15)["held"] for run in runs)


def test_steps_are_tasks_with_their_ids_and_without_payloads(flower: Flower, undone: Any) -> None:
    # The last task's event may still be on its way.
    wait_until(lambda: all(task["state"] != "STARTED" for task in flower.tasks_of("order-A-1").values()), 10, "its end")
    tasks = flower.tasks_of("order-A-1")

    states = {uuid.removeprefix("order-A-1/"): (task["name"], task["state"]) for uuid, task in tasks.items()}
    assert states == {
        "one/do/1": ("plain.take", "SUCCESS"),
        "two/do/1": ("plain.take", "SUCCESS"),
        "three/do/1": ("plain.take", "SUCCESS"),
        "break/do/1": ("plain.break_down", "FAILURE"),
        "three/undo/1": ("plain.put_back", "SUCCESS"),
        "two/undo/1": ("plain.put_back", "SUCCESS"),
        "one/undo/1": ("plain.put_back", "SUCCESS"),
    }
    assert all("order-A-1" in task["kwargs"] for task in tasks.values())
    assert {task["root_id"] for task in tasks.values()} == {"order-A-1"}
    assert SECRET not in flower.get("/api/tasks")
    assert SECRET not in flower.get("/api/task/info/order-A-1%2Fone%2Fdo%2F1")


def test_undos_show_as_parent_and_child(flower: Flower, undone: Any) -> None:
    tasks = flower.tasks_of("order-A-1")

    # Newest first: each undo was the link of the one before.
    assert tasks["order-A-1/two/undo/1"]["parent_id"] == "order-A-1/three/undo/1"
    assert tasks["order-A-1/one/undo/1"]["parent_id"] == "order-A-1/two/undo/1"


def test_the_task_pages_show_a_step(flower: Flower, undone: Any) -> None:
    assert "Tasks" in flower.get("/tasks")
    page = flower.get("/task/order-A-1/two/undo/1")

    assert "plain.put_back" in page
    assert "order-A-1/three/undo/1" in page
    assert SECRET not in page
    with pytest.raises(HTTPError):
        flower.get("/task/order-A-1/nothing/do/1")


def test_tasks_are_found_by_the_id_of_their_run(flower: Flower, undone: Any) -> None:
    found = flower.ask("/api/tasks?search=order-A-1")

    assert len(found) == 7


def test_ordinary_tasks_are_seen_as_before(plain: MixedDeployment, flower: Flower, undone: Any) -> None:
    answer = plain.app.tasks["plain.add"].delay(20, 3)

    assert answer.get(timeout=10) == 23
    seen = wait_until(lambda: flower.ask("/api/tasks").get(answer.id), what="Flower to hear of the task")
    wait_until(lambda: flower.ask("/api/tasks")[answer.id]["state"] == "SUCCESS", what="its success")
    assert (seen["name"], seen["args"]) == ("plain.add", "(20, 3)")
