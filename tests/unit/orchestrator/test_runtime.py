"""What all the runs of an app have in common: where they live is read from the app, when it is first asked for."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from multiagents.exceptions import ConfigurationError
from multiagents.orchestrator.runtime import Runtime

RABBIT, BROKER, RESULTS, OWN = (
    "amqp://guest@127.0.0.1//",
    "redis://broker:6379/0",
    "redis://results:6379/1",
    "rediss://own:6379/2",
)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULTIAGENTS_REDIS_URL", raising=False)


def app_of(**conf: Any) -> Celery:
    app = Celery("runtime", set_as_current=False)
    app.conf.update(conf)
    return app


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ({"broker_url": BROKER, "result_backend": RESULTS, "multiagents_redis_url": OWN}, OWN),
        ({"broker_url": BROKER, "result_backend": RESULTS}, BROKER),
        ({"broker_url": RABBIT, "result_backend": RESULTS}, RESULTS),
        ({"broker_url": RABBIT, "broker_write_url": f"{BROKER};redis://other/0"}, BROKER),
        ({"broker_url": BROKER, "task_always_eager": True}, "memory://"),
        ({"broker_url": BROKER, "task_always_eager": True, "multiagents_redis_url": OWN}, OWN),
    ],
)
def test_runs_live_where_the_app_says_or_else_where_it_has_a_redis(conf: dict[str, Any], expected: str):
    assert str(Runtime(app_of(**conf)).address) == expected


def test_without_any_redis_it_is_said_what_to_set():
    runtime = Runtime(app_of(broker_url=RABBIT))

    with pytest.raises(ConfigurationError, match=r"set app\.conf\.multiagents_redis_url"):
        _ = runtime.address


def test_what_is_configured_after_the_runtime_was_made_counts_until_it_is_first_asked_for():
    app = app_of(broker_url=RABBIT)
    runtime = Runtime(app, {"lease": 7})
    app.conf.multiagents_redis_url = OWN

    assert (str(runtime.address), runtime.settings.lease, runtime.settings.redis_url) == (OWN, 7, OWN)

    app.conf.multiagents_redis_url = BROKER
    assert str(runtime.address) == OWN
