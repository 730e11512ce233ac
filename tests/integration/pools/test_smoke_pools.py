"""The other pools and the queued mode, once each, with pytest-celery's components as processes.

The whole suite of the rules runs over pools and modes in ``make test-full``; this is what every ``make test`` looks at.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_celery import CeleryTestSetup

from multiagents import RetryPolicy, Step, WorkflowBuilder
from tests.support.apps import scripted

KINDS = [("threads", "inline"), ("gevent", "inline"), ("solo", "inline"), ("prefork", "queued"), ("gevent", "queued")]


@pytest.fixture(params=KINDS, ids="-".join)
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def default_worker_command(default_worker_container_cls: Any, kind: tuple[str, str]) -> list[str]:
    concurrency = "1" if kind[0] == "solo" else "4"
    command = default_worker_container_cls.command("-P", kind[0], "-c", concurrency, "--without-gossip")
    command[command.index("-A") + 1] = scripted.__name__
    return command


@pytest.fixture
def default_worker_env(default_worker_env: dict[str, str], kind: tuple[str, str]) -> dict[str, str]:
    settings = {**scripted.SETTINGS, "orchestration": kind[1]}
    return {**default_worker_env, **{f"MULTIAGENTS_{name.upper()}": str(value) for name, value in settings.items()}}


@pytest.fixture
def orchestrator(celery_setup: CeleryTestSetup, kind: tuple[str, str]) -> Any:
    url = celery_setup.app.conf.broker_url
    return scripted.make_app(url, **scripted.SETTINGS, orchestration=kind[1]).multiagents


def test_sagas_run_are_retried_limited_and_undone_on_this_pool(
    orchestrator: Any, celery_setup: CeleryTestSetup, kind: tuple[str, str]
):
    good = (
        WorkflowBuilder("good")
        .add_step("a", "play", compensation="undo")
        .add_parallel("both", [Step("l", "play_async"), [Step("r", "play"), Step("r2", "echo")]])
        .add_step("last", "play_async")
        .build(register=False)
    )
    quick = RetryPolicy(max_attempts=1)
    limited = (
        WorkflowBuilder("limited")
        .add_step("a", "play", compensation="undo")
        .add_step("b", "hang_async", compensation="undo", timeout=0.4, retry=quick)
        .build(register=False)
    )

    runs = {
        "good": orchestrator.start(good, {"script": {"a": ["fail", {"n": 1}], "l": [{"m": 2}], "last": ["fail"]}}),
        "bad": orchestrator.start(good, {"script": {"last": ["terminal"], "a.undo": ["fail"]}}),
        "limited": orchestrator.start(limited, {}),
        "conditional": orchestrator.start(scripted.conditional, {"wanted": False}),
        "cancelled": orchestrator.start(good, {"script": {"a": ["wait_until_cancelled"]}}),
    }
    runs["cancelled"].cancel()
    for run in runs.values():
        orchestrator.store.wait_for_end(run.transaction_id, 30)

    assert {name: run.status.value for name, run in runs.items()} == {
        "good": "completed",
        "bad": "compensated",
        "limited": "compensated",
        "conditional": "completed",
        "cancelled": "cancelled",
    }
    assert runs["good"].result(1)["m"] == 2
    with scripted.client(orchestrator.runtime.address) as journal:
        begun = [json.loads(entry) for entry in journal.lrange(f"journal:{runs['bad'].transaction_id}", 0, -1)]
    assert [entry["attempt"] for entry in begun if entry["direction"] == "undo"] == [1, 2]
    assert orchestrator.store.visibility.unattended() == []
    # Queued means: the orchestrator is a Celery task of its own.
    told = celery_setup.worker.container.process.log
    assert ("Task multiagents.orchestrate[" in told) == (kind[1] == "queued")
