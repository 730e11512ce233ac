"""A Celery task that was there already, as it is: what it asks of Celery, a step answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multiagents.testing.plugin import WorkerStarter
from tests.support import ROOT
from tests.support.apps import borrowed

#: How its run ends, after how many attempts, with what.
ENDS: dict[str, tuple[str, int, Any]] = {
    "retries": ("completed", 4, {"retries": 3}),
    "gives_up": ("failed", 2, "ValueError"),
    "has_a_way_out": ("completed", 2, {"way": "out"}),
    "does_not_throw": ("completed", 2, {"retries": 1}),
    "auto": ("failed", 3, "ValueError"),
    "raises": ("failed", 2, "KeyError"),
    "ignores": ("completed", 1, {}),
    "rejects": ("failed", 1, "celery.exceptions.Reject"),
    "comes_again": ("completed", 1, {"times": 3}),
    "replaces": ("failed", 1, "multiagents.exceptions.TerminalError"),
    "soft": ("completed", 1, {"partial": True}),
    "hard": ("failed", 2, "multiagents.worker_sdk.execution.timeouts.StepTimeoutError"),
}


class Scene:
    def __init__(self, url: str) -> None:
        self.app = borrowed.Celery("client", broker=url, set_as_current=False)
        self.orchestrator = borrowed.init_app(self.app, borrowed.SETTINGS)

    def end(self, run: Any) -> Any:
        self.orchestrator.store.wait_for_end(run.transaction_id, 40)
        return run.describe()


@pytest.fixture(params=["prefork", "threads", "gevent", "solo"])
def pool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def shop(pool: str, redis_url: str, start_worker: WorkerStarter, tmp_path: Path) -> Iterator[Scene]:
    env = {"PYTHONPATH": str(ROOT), "CELERY_BROKER_URL": redis_url, "MULTIAGENTS_REDIS_URL": redis_url}
    env["BORROWED_TIMES"] = str(tmp_path / "times")
    start_worker("tests.support.apps.borrowed", pool=pool, concurrency=1 if pool == "solo" else 4, cwd=ROOT, env=env)
    scene = Scene(redis_url)
    yield scene
    scene.app.close()


def test_what_a_celery_task_asks_of_celery_its_step_answers(shop: Scene, pool: str) -> None:
    limits = ("soft", "hard") if pool == "threads" else ()  # nothing stops a thread
    runs = {name: shop.orchestrator.start(borrowed.FLOWS[name], {}) for name in ENDS if name not in limits}

    states = {name: shop.end(run) for name, run in runs.items()}

    ended = {
        name: (s.status, s.steps["it"].attempts, s.error.type if s.error else s.steps["it"].result)
        for name, s in states.items()
    }
    assert ended == {name: ENDS[name] for name in runs}
    assert "add_child" in states["replaces"].error.message


def test_a_celery_task_finds_a_request_like_any_other(shop: Scene) -> None:
    run = shop.orchestrator.start(borrowed.FLOWS["looks"], {})

    seen = shop.end(run).steps["it"]

    assert seen.result == {
        "id": f"{run.transaction_id}/it/do/1",
        "hostname": seen.worker,
        "queue": "celery",
        "root": run.transaction_id,
        "progress": {"done": 1},
        "called_directly": False,
    }
