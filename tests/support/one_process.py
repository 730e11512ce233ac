"""Runs in the process of the test, from start to end: Celery's ``task_always_eager``, and a store in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from multiagents import Orchestrator, init_app
from multiagents.state_store.memory import InMemoryStateStore

NO_BROKER = "redis://127.0.0.1:1/0"  # nobody listens there


@contextmanager
def one_process(**conf: Any) -> Iterator[Orchestrator]:
    """An orchestrator whose steps are done where it is asked to start a run; its store begins and ends empty.

    Args:
        conf: of its app, e.g. ``multiagents_orchestration="queued"``.
    """
    app = Celery(f"one-process-{uuid4().hex[:8]}", broker=NO_BROKER)
    app.conf.update(task_always_eager=True, **conf)
    # All of a process share it, and a test before this one may have left something there.
    store = InMemoryStateStore.shared()
    store.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MULTIAGENTS_REDIS_URL", raising=False)
        try:
            yield init_app(app)
        finally:
            store.clear()
            app.close()
