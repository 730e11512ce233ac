"""``WorkerManager`` with real worker processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from celery import Celery

from multiagents import WorkerManager, worker
from multiagents.exceptions import WorkerError
from multiagents.testing import wait_until

APP = """
import os
from celery import Celery
from multiagents import worker

app = Celery("managed", broker=os.environ["CELERY_BROKER_URL"], set_as_current=False)

@worker("managed_charge")
def managed_charge(context):
    return {"ok": True}
"""


@worker("manager_knows")
def manager_knows(context: dict[str, int]) -> None: ...


def test_it_starts_a_worker_says_how_it_is_and_stops_it_warm(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "managed_app.py").write_text(APP)
    monkeypatch.setenv("CELERY_BROKER_URL", redis_url)
    monkeypatch.setenv("PYTHONPATH", f"{Path.cwd()}:{tmp_path}")
    with Celery("asks", broker=redis_url, set_as_current=False) as app, WorkerManager() as manager:
        node = manager.start("managed_app:app", pool="threads", concurrency=1, queues=["payments"])

        assert manager.health(app, timeout=0.2)[node].alive is False
        health = wait_until(lambda: (h := manager.health(app)[node]).alive and h, 30, "the worker to answer")

        assert (health.node, health.queues) == (node, ("payments",))
        assert "managed_charge" in health.registered
        manager.stop()
        assert manager.health(app, timeout=0.2) == {}


def test_it_lists_the_workers_of_this_process() -> None:
    assert WorkerManager().registered["manager_knows"].name == "manager_knows"


def test_an_app_that_no_other_process_can_import_is_refused() -> None:
    with (
        Celery("hidden", broker="memory://", set_as_current=False) as app,
        pytest.raises(WorkerError, match=r'start\("celery_app:app"\)'),
    ):
        WorkerManager().start(app)


def test_an_app_is_found_in_the_module_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiagents.worker_sdk.manager import _path_of

    module = type(sys)("a_project")
    with Celery("found", broker="memory://", set_as_current=False) as app:
        module.app = app  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "a_project", module)

        assert _path_of(app) == "a_project:app"


def test_health_needs_an_app() -> None:
    with pytest.raises(WorkerError, match="needs the Celery app"):
        WorkerManager().health()
